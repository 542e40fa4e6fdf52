from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cm2.cache.cohort import Cohort, view, write_cohort, write_links
from cm2.cache.store import StoreWriter
from cm2.extract.cohort import build
from cm2.extract.config import ExtractConfig
from cm2.extract.modalities import ehr, events
from cm2.extract.sources import open_source
from cm2.extract.sources.catalogue import published
from cm2.extract.work import Plan

Chart = Callable[..., dict[str, str]]


def planned(root: Path, cache: Path, **options: Any) -> tuple[Cohort, Plan]:
    config = ExtractConfig(data=root, cache=cache, **options)
    source = open_source(root)
    cohort = write_cohort(cache, "default", *build(source, config))
    return cohort, ehr.plan(source, cohort, config, published(config.preset))


def test_a_stay_without_measurements_has_a_reason_and_no_item(mimic3: Any, tmp_path: Path) -> None:
    _, plan = planned(mimic3.write(tmp_path / "root"), tmp_path)
    assert [item.item_id for item in plan.work] == ["1000", "1100"]
    assert plan.links.to_pydict() == {
        "stay_id": [1000, 1001, 1100],
        "items": [["1000"], [], ["1100"]],
        "has": [True, False, True],
        "why_no": [None, "no_measurement", None],
    }


def test_the_stored_view_is_in_stay_order_and_not_normalised(mimic3: Any, tmp_path: Path) -> None:
    cohort, plan = planned(mimic3.write(tmp_path / "root"), tmp_path)
    writer = StoreWriter(tmp_path, plan.space, plan.provenance)
    stamps = {item.item_id: item.stamp for item in plan.work}
    writer.commit("0" * 12, plan.encode(plan.work[::-1]), stamps)
    writer.finish(complete=True)
    write_links(tmp_path, "default", "ehr", plan.links, plan.rules)
    seen = view(tmp_path, cohort, "ehr")
    assert seen.values.shape == (3, 24, 59)
    assert seen.has.tolist() == [True, False, True]
    rate = seen.values[..., seen.columns.index("Heart Rate")]
    assert rate[0].tolist() == [80.0] + [90.0] * 23
    assert rate[2].tolist() == [70.0] * 24
    assert not seen.values[1].any()


def test_only_the_stamp_of_a_changed_stay_changes(
    mimic3: Any, charted: Chart, tmp_path: Path
) -> None:
    _, before = planned(mimic3.write(tmp_path / "a"), tmp_path / "c1")
    mimic3.tables["chartevents"].append(charted(211, 30, "77"))
    mimic3.tables["chartevents"].append(charted(999, 30, "77"))
    _, after = planned(mimic3.write(tmp_path / "b", shuffle=1), tmp_path / "c2")
    assert before.work[0].stamp != after.work[0].stamp
    assert before.work[1].stamp == after.work[1].stamp


def test_the_space_depends_on_the_grid_and_not_on_the_data(
    mimic3: Any, mimic4: Any, tmp_path: Path
) -> None:
    three = planned(mimic3.write(tmp_path / "a"), tmp_path / "c1")[1].space
    four = planned(mimic4.write(tmp_path / "b"), tmp_path / "c2")[1].space
    assert three.id == four.id
    others = [
        ehr.space(config, published(config.preset))
        for options in ({}, {"preset": "reference"}, {"step_hours": 1}, {"until_hours": 24})
        for config in [ExtractConfig(data="x", **options)]
    ]
    assert others[0].id == three.id
    assert len({space.id for space in others}) == 4


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({"step_hours": 1}, (48, 59)),
        ({"until_hours": 24, "step_hours": 4}, (6, 59)),
        ({"preset": "reference"}, (24, 76)),
    ],
)
def test_any_grid_is_made_from_the_same_measurements(
    mimic3: Any, tmp_path: Path, options: dict[str, Any], shape: tuple[int, int]
) -> None:
    _, plan = planned(mimic3.write(tmp_path / "root"), tmp_path, **options)
    values = plan.encode(plan.work).arrays["values"]
    assert values.shape[1:] == shape
    assert values.dtype == np.float32
    assert np.isfinite(values).all()


def test_nothing_later_than_the_end_of_the_series_enters_it(
    mimic3: Any, charted: Chart, tmp_path: Path
) -> None:
    root = mimic3.write(tmp_path / "a")
    _, early = planned(root, tmp_path / "c1", until_hours=24)
    mimic3.tables["chartevents"].append(charted(211, 24.5, "200"))
    _, late = planned(mimic3.write(tmp_path / "b"), tmp_path / "c2", until_hours=24)
    assert [item.stamp for item in early.work] == [item.stamp for item in late.work]
    a, b = (plan.encode(plan.work).arrays["values"] for plan in (early, late))
    assert np.array_equal(a, b)


def test_encoding_in_any_grouping_gives_the_same_series(shared: Path, tmp_path: Path) -> None:
    _, plan = planned(shared / "data" / "mimiciv_demo", tmp_path)
    whole = plan.encode(plan.work)
    assert whole.arrays["values"].shape == (112, 24, 59)
    parts = [plan.encode([item]).arrays["values"] for item in plan.work]
    assert np.array_equal(whole.arrays["values"], np.concatenate(parts))
    again = planned(shared / "data" / "mimiciv_demo", tmp_path)[1]
    assert [item.stamp for item in again.work] == [item.stamp for item in plan.work]


def test_the_real_series_are_plausible(shared: Path, tmp_path: Path) -> None:
    """Published observation rates and means of MIMIC-III, with room for a demo of 57 stays."""
    cohort, plan = planned(shared / "data" / "mimiciii_demo", tmp_path)
    rows = cohort.stays.select(["stay_id", "in_ihm"]).to_pylist()
    eligible = {str(row["stay_id"]) for row in rows if row["in_ihm"]}
    shard = plan.encode([item for item in plan.work if item.item_id in eligible])
    values, names = shard.arrays["values"], plan.space.columns

    def mean(name: str) -> float:
        return float(values[..., names.index(name)].mean())

    assert mean("mask->Heart Rate") == pytest.approx(0.96, abs=0.03)
    assert mean("mask->Temperature") == pytest.approx(0.54, abs=0.05)
    assert mean("mask->Glasgow coma scale eye opening") == pytest.approx(0.555, abs=0.05)
    assert mean("mask->Glucose") == pytest.approx(0.41, abs=0.08)
    assert mean("Heart Rate") == pytest.approx(86, abs=5)
    assert mean("Temperature") == pytest.approx(36.9, abs=0.3)
    assert mean("pH") == pytest.approx(7.39, abs=0.03)
    assert mean("Fraction inspired oxygen") == pytest.approx(0.4, abs=0.1)
    assert mean("Glasgow coma scale eye opening->1") > 0.1, "closed eyes survive"
    assert mean("mask->Glasgow coma scale total") > 0.5, "totals are summed from their parts"
    spread = float(values[..., names.index("Diastolic blood pressure")].std())
    assert spread < 25, "outliers are gone"


def test_a_second_plan_reads_no_source_table(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = shared / "data" / "mimiciii_demo"
    cohort, first = planned(root, tmp_path)
    monkeypatch.setattr(events, "measure", lambda *_: pytest.fail("the source was read again"))
    config = ExtractConfig(data=root, cache=tmp_path, step_hours=1)
    again = ehr.plan(open_source(root), cohort, config, published("corrected"))
    assert [item.stamp for item in again.work] == [item.stamp for item in first.work]
