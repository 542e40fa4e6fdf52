"""Facts at ICU entry: what the releases call them, what is unknown, and nothing from later."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cm2.cache.cohort import Cohort
from cm2.cache.view import ModalityView, view
from cm2.extract.config import ExtractConfig
from cm2.extract.modalities.static import COLUMNS, admission_groups, unit_groups
from cm2.extract.runner import extract

from ..conftest import Tree, at


def facts(data: Path, cache: Path) -> tuple[dict[int, dict[str, float]], ModalityView]:
    extract(ExtractConfig(data=data, cache=cache, modality="static"))
    cohort = Cohort.open(cache)
    found = view(cache, cohort, "static")
    ids = cohort.stays["stay_id"].to_pylist()
    return {
        stay: dict(zip(COLUMNS, row[0].tolist(), strict=True))
        for stay, row in zip(ids, found.values, strict=True)
    }, found


def test_every_stay_has_its_facts_and_a_mask_for_each(mimic3: Tree, tmp_path: Path) -> None:
    kinds = {"100": "EMERGENCY", "101": "ELECTIVE", "110": "", "120": "NEWBORN"}
    for row in mimic3.tables["admissions"]:
        row["admission_type"] = kinds[row["hadm_id"]]
        if row["hadm_id"] == "101":
            row["admittime"] = at(-36, 20)
    mimic3.headers["admissions"].append("admission_type")
    rows, found = facts(mimic3.write(tmp_path / "data"), tmp_path / "cache")
    assert found.columns == COLUMNS
    assert found.has.all()
    assert sorted(rows) == [1000, 1001, 1100]  # the infant is not in the cohort
    first, second, old = rows[1000], rows[1001], rows[1100]
    assert first["age"] == pytest.approx(50.0, abs=0.01)
    assert old["age"] == pytest.approx(91.4, abs=0.01)
    assert (first["sex->female"], old["sex->female"], old["mask->sex"]) == (1, 0, 1)
    assert (first["admission->emergency"], first["admission->elective"]) == (1, 0)
    assert (second["admission->emergency"], second["admission->elective"]) == (0, 1)
    assert old["mask->admission"] == 0
    assert (first["unit->medical"], first["unit->surgical"], first["mask->unit"]) == (1, 0, 1)
    assert (first["hours_before_icu"], second["hours_before_icu"]) == (0, 36)


def test_what_a_release_does_not_tell_is_masked(mimic4: Tree, tmp_path: Path) -> None:
    for row in mimic4.tables["icu/icustays"]:
        row |= {"first_careunit": "Somewhere", "last_careunit": "Somewhere"}
    rows, _ = facts(mimic4.write(tmp_path / "data"), tmp_path / "cache")
    for row in rows.values():
        assert row["mask->admission"] == 0
        assert row["mask->unit"] == 1
        assert not any(value for name, value in row.items() if name.startswith("unit->"))


def test_nothing_that_is_known_later_changes_a_fact(mimic3: Tree, tmp_path: Path) -> None:
    before = facts(mimic3.write(tmp_path / "a"), tmp_path / "cache-a")[1]
    for row in mimic3.tables["admissions"]:
        row |= {"dischtime": at(200, 20), "deathtime": at(199, 20), "hospital_expire_flag": "1"}
    for row in mimic3.tables["icustays"]:
        row |= {"los": "9"}
    after = facts(mimic3.write(tmp_path / "b"), tmp_path / "cache-b")[1]
    np.testing.assert_array_equal(before.values, after.values)
    assert (before.space, before.content) == (after.space, after.content)


@pytest.mark.parametrize(
    ("word", "groups"),
    [
        ("Medical/Surgical Intensive Care Unit (MICU/SICU)", ("medical", "surgical")),
        ("Medical Intensive Care Unit (MICU)", ("medical",)),
        ("MICU", ("medical",)),
        ("Surgical Intensive Care Unit (SICU)", ("surgical",)),
        ("SICU", ("surgical",)),
        ("Trauma SICU (TSICU)", ("trauma",)),
        ("TSICU", ("trauma",)),
        ("Coronary Care Unit (CCU)", ("coronary",)),
        ("CCU", ("coronary",)),
        ("Cardiac Vascular Intensive Care Unit (CVICU)", ("cardiac_surgery",)),
        ("CSRU", ("cardiac_surgery",)),
        ("Neuro Surgical Intensive Care Unit (Neuro SICU)", ("neuro",)),
        ("Neuro Stepdown", ("neuro",)),
        ("NICU", ()),
    ],
)
def test_units_of_both_releases_fall_into_the_same_groups(
    word: str, groups: tuple[str, ...]
) -> None:
    assert unit_groups(word) == groups


@pytest.mark.parametrize(
    ("word", "group"),
    [
        ("EMERGENCY", "emergency"),
        ("EW EMER.", "emergency"),
        ("DIRECT EMER.", "emergency"),
        ("URGENT", "urgent"),
        ("ELECTIVE", "elective"),
        ("SURGICAL SAME DAY ADMISSION", "elective"),
        ("OBSERVATION ADMIT", "observation"),
        ("EU OBSERVATION", "observation"),
        ("AMBULATORY OBSERVATION", "observation"),
        ("DIRECT OBSERVATION", "observation"),
        ("NEWBORN", None),
    ],
)
def test_kinds_of_admission_fall_into_groups(word: str, group: str | None) -> None:
    assert admission_groups(word) == (() if group is None else (group,))


@pytest.mark.parametrize("name", ["mimiciii_demo", "mimiciv_demo"])
def test_the_open_demos_tell_all_facts_of_nearly_all_stays(
    name: str, shared: Path, tmp_path: Path
) -> None:
    rows, found = facts(shared / "data" / name, tmp_path / "cache")
    assert np.isfinite(found.values).all()
    table = {column: np.array([row[column] for row in rows.values()]) for column in COLUMNS}
    for column in COLUMNS:
        if column.startswith("mask->"):
            assert table[column].mean() > 0.99, column
    assert 0.3 < table["sex->female"].mean() < 0.7
    admissions = sum(table[c] for c in COLUMNS if c.startswith("admission->"))
    units = sum(table[c] for c in COLUMNS if c.startswith("unit->"))
    assert (admissions == 1).all()
    assert (units >= 1).all()
    assert 0 <= np.median(table["hours_before_icu"]) < 24
