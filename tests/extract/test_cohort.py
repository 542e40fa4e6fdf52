from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from cm2.cache.cohort import write_cohort
from cm2.errors import ConfigError, DataError
from cm2.extract.cohort import build, check, race_group
from cm2.extract.config import ExtractConfig
from cm2.extract.sources import open_source


def make(root: Path, cache: Path, **options: Any) -> tuple[pl.DataFrame, dict[str, Any]]:
    config = ExtractConfig(data=root, cache=cache, **options)
    table, info = build(open_source(root, config.dataset), config)
    return pl.DataFrame(pl.from_arrow(table)), info


def label(frame: pl.DataFrame, stay: int, column: str) -> Any:
    return frame.filter(pl.col("stay_id") == stay)[column].item()


@pytest.mark.parametrize(("rule", "readmitted", "ones"), [("icu", 4, 21), ("hospital", 6, 23)])
def test_mimic3_demo_counts(
    shared: Path, tmp_path: Path, rule: str, readmitted: int, ones: int
) -> None:
    stays, info = make(shared / "data" / "mimiciii_demo", tmp_path, readm_rule=rule)
    assert [row["stays"] for row in info["attrition"]] == [136, 126, 115, 114, 57]
    assert [row["paper"] for row in info["attrition"]] == [61532, 55830, 50186, 42276, 21139]
    assert info["tasks"]["ihm"] == {"stays": 57, "positives": 17, "paper_positives": 2795}
    assert info["tasks"]["readm"]["readmitted_survivors"] == readmitted
    assert info["tasks"]["readm"]["positives"] == ones
    eligible = stays.filter("in_readm")
    assert eligible.height == 57
    assert eligible["y_readm"].sum() == ones
    assert eligible["y_ihm"].sum() == 17


@pytest.mark.parametrize(("rule", "readmitted"), [("icu", 5), ("hospital", 10)])
def test_mimic4_demo_counts(shared: Path, tmp_path: Path, rule: str, readmitted: int) -> None:
    _, info = make(shared / "data" / "mimiciv_demo", tmp_path, readm_rule=rule)
    assert [row["stays"] for row in info["attrition"]] == [140, 129, 112, 112, 54]
    assert info["tasks"]["ihm"]["positives"] == 9
    assert info["tasks"]["readm"]["readmitted_survivors"] == readmitted


@pytest.mark.parametrize(("name", "differ"), [("mimiciii_demo", 1), ("mimiciv_demo", 0)])
def test_both_death_rules_agree_on_the_eligible_stays_of_the_demos(
    shared: Path, tmp_path: Path, name: str, differ: int
) -> None:
    """One shorter stay of MIMIC-III has its time of death a day after discharge."""
    root = shared / "data" / name
    ours, _ = make(root, tmp_path, death_rule="deathtime")
    theirs, _ = make(root, tmp_path, death_rule="dod")
    other = ours.filter(ours["y_ihm"] != theirs["y_ihm"])
    assert other.height == differ
    assert not other["in_ihm"].any()


def test_the_table_of_stays_has_the_contracted_columns(mimic3: Any, tmp_path: Path) -> None:
    root = mimic3.write(tmp_path / "root")
    config = ExtractConfig(data=root, cache=tmp_path)
    table, _ = build(open_source(root), config)
    assert {field.name: str(field.type) for field in table.schema} == {
        "stay_id": "int64",
        "subject_id": "int64",
        "hadm_id": "int64",
        "intime": "timestamp[us]",
        "outtime": "timestamp[us]",
        "split": "string",
        "age": "double",
        "sex": "string",
        "race": "string",
        "unit": "string",
        "los_hours": "double",
        "in_ihm": "bool",
        "y_ihm": "int8",
        "in_readm": "bool",
        "y_readm": "int8",
    }


def test_a_stay_of_48_hours_with_a_measurement_is_eligible(mimic3: Any, tmp_path: Path) -> None:
    mimic3.tables["icustays"][0]["los"] = "2.0"
    mimic3.tables["icustays"][2]["los"] = "1.9999"
    stays, info = make(mimic3.write(tmp_path / "root"), tmp_path)
    assert label(stays, 1000, "in_ihm")
    assert not label(stays, 1100, "in_ihm"), "shorter than 48 h"
    assert not label(stays, 1001, "in_ihm"), "nothing was measured"
    assert info["attrition"][-1]["stays"] == 1


def test_a_measurement_after_48_hours_makes_no_stay_eligible(mimic3: Any, tmp_path: Path) -> None:
    for row in mimic3.tables["chartevents"] + mimic3.tables["labevents"]:
        if row["subject_id"] == "10":
            row["charttime"] = "2150-01-03 00:00:01"
    stays, _ = make(mimic3.write(tmp_path / "root"), tmp_path)
    assert not label(stays, 1000, "in_ihm")


@pytest.mark.parametrize(
    ("discharge", "expected"),
    [
        ("2150-01-20 00:00:00", 1),
        ("2149-12-21 00:00:01", 1),
        ("2149-12-21 00:00:00", 0),
        ("2150-01-25 00:00:00", 1),
    ],
)
def test_readmission_is_within_30_days_and_overlap_counts(
    mimic3: Any, tmp_path: Path, discharge: str, expected: int
) -> None:
    first = mimic3.tables["admissions"][0]
    first |= {"admittime": "2149-12-01 00:00:00", "dischtime": discharge}
    stays, _ = make(mimic3.write(tmp_path / "root"), tmp_path)
    assert label(stays, 1000, "y_readm") == expected
    assert label(stays, 1001, "y_readm") == 0, "the last admission is no readmission"
    assert label(stays, 1100, "y_readm") == 0


def test_only_the_hospital_rule_counts_an_admission_without_an_eligible_icu_stay(
    mimic3: Any, tmp_path: Path
) -> None:
    mimic3.tables["icustays"] = [r for r in mimic3.tables["icustays"] if r["hadm_id"] != "101"]
    root = mimic3.write(tmp_path / "root")
    icu, _ = make(root, tmp_path, readm_rule="icu")
    hospital, _ = make(root, tmp_path, readm_rule="hospital")
    assert label(icu, 1000, "y_readm") == 0
    assert label(hospital, 1000, "y_readm") == 1


def test_a_death_in_hospital_is_a_one_in_both_labels(mimic3: Any, tmp_path: Path) -> None:
    mimic3.tables["admissions"][2]["deathtime"] = "2150-01-03 12:00:00"
    mimic3.tables["admissions"][1]["hospital_expire_flag"] = "1"
    stays, _ = make(mimic3.write(tmp_path / "root"), tmp_path)
    assert [label(stays, stay, "y_ihm") for stay in (1000, 1001, 1100)] == [0, 1, 1]
    assert label(stays, 1100, "y_readm") == 1


def test_a_death_later_on_the_day_of_discharge_counts_by_the_published_rule_only(
    mimic3: Any, tmp_path: Path
) -> None:
    mimic3.tables["admissions"][2]["dischtime"] = "2150-01-04 15:00:00"
    mimic3.tables["patients"][1]["dod"] = "2150-01-04 00:00:00"
    root = mimic3.write(tmp_path / "root")
    assert label(make(root, tmp_path)[0], 1100, "y_ihm") == 0
    assert label(make(root, tmp_path, death_rule="dod")[0], 1100, "y_ihm") == 1


def test_lost_stays_are_counted_by_reason(mimic3: Any, tmp_path: Path) -> None:
    stays = mimic3.tables["icustays"]
    moved = stays[0] | {"icustay_id": "2000", "last_careunit": "SICU"}
    other_ward = stays[0] | {"icustay_id": "2001", "last_wardid": "8"}
    second = stays[2] | {"icustay_id": "1101"}
    orphan = stays[0] | {"icustay_id": "2002", "subject_id": "99", "hadm_id": "990"}
    backwards = stays[1] | {"icustay_id": "2003", "outtime": "2149-01-01 00:00:00"}
    repeated = dict(stays[0])
    mimic3.tables["icustays"] = [*stays, moved, other_ward, second, orphan, backwards, repeated]
    _, info = make(mimic3.write(tmp_path / "root"), tmp_path)
    counts = {row["rule"]: row["stays"] for row in info["attrition"]}
    assert counts == {
        "ICU stays": 9,
        "with usable times": 8,
        "in one care unit throughout": 6,
        "of a listed admission and patient": 5,
        "the only one of the admission": 3,
        "of an adult": 2,
        "eligible at 48 h": 1,
    }


def test_two_different_rows_of_one_stay_are_refused(mimic3: Any, tmp_path: Path) -> None:
    stays = mimic3.tables["icustays"]
    stays.append(stays[0] | {"los": "9"})
    with pytest.raises(DataError, match="stay_id 1000"):
        make(mimic3.write(tmp_path / "root"), tmp_path)


def test_the_order_of_source_rows_changes_nothing(mimic3: Any, tmp_path: Path) -> None:
    first = make(mimic3.write(tmp_path / "a"), tmp_path / "c1")
    for seed in range(3):
        other = make(mimic3.write(tmp_path / f"b{seed}", shuffle=seed), tmp_path / f"c2{seed}")
        assert first[0].equals(other[0])
        assert first[1] == other[1]


def test_an_existing_cohort_is_not_reused_under_other_rules(mimic3: Any, tmp_path: Path) -> None:
    root = mimic3.write(tmp_path / "root")
    source = open_source(root)
    config = ExtractConfig(data=root, cache=tmp_path)
    cohort = write_cohort(tmp_path, "default", *build(source, config))
    check(cohort, source, config)
    check(cohort, source, config.model_copy(update={"preset": "reference", "step_hours": 1.0}))
    for other in ({"readm_rule": "hospital"}, {"death_rule": "dod"}, {"split_seed": 1}):
        with pytest.raises(ConfigError, match="built differently"):
            check(cohort, source, config.model_copy(update=other))


def test_race_is_grouped() -> None:
    words = {
        "WHITE - RUSSIAN": "white",
        "PORTUGUESE": "white",
        "BLACK/CAPE VERDEAN": "black",
        "CARIBBEAN ISLAND": "black",
        "HISPANIC/LATINO - CUBAN": "hispanic",
        "HISPANIC OR LATINO": "hispanic",
        "SOUTH AMERICAN": "hispanic",
        "ASIAN - CHINESE": "asian",
        "AMERICAN INDIAN/ALASKA NATIVE": "other",
        "MULTI RACE ETHNICITY": "other",
        "PATIENT DECLINED TO ANSWER": "unknown",
        "UNKNOWN/NOT SPECIFIED": "unknown",
        "unable to obtain": "unknown",
        None: "unknown",
    }
    frame = pl.DataFrame({"race": list(words)}).select(race_group())
    assert dict(zip(words, frame["race"], strict=True)) == words
