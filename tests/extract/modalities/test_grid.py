from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from cm2.extract.modalities.grid import Placed, bins, columns_of, place
from cm2.extract.sources.catalogue import published

CORRECTED = published("corrected")
NAMES = CORRECTED.names


def grid(
    rows: list[tuple[int, float, str, float]], step: float = 2.0, until: float = 48.0
) -> Placed:
    frame = pl.DataFrame(
        {
            "stay_id": [row[0] for row in rows],
            "hours": [row[1] for row in rows],
            "variable": pl.Series([NAMES.index(row[2]) for row in rows], dtype=pl.UInt8),
            "value": [row[3] for row in rows],
        }
    ).sort("stay_id", "hours", "variable")
    return place(frame, np.array([5, 7]), step, until, len(NAMES))


@pytest.mark.parametrize(
    ("hours", "cell"),
    [(0.0, 0), (0.5, 0), (2.0, 0), (2.0003, 1), (4.0, 1), (46.5, 23), (48.0, 23)],
)
def test_bins_are_closed_on_the_right(hours: float, cell: int) -> None:
    found = grid([(7, hours, "Heart Rate", 80.0)]).cells
    assert np.argwhere(~np.isnan(found)).tolist() == [[1, cell, NAMES.index("Heart Rate")]]


@pytest.mark.parametrize(
    ("until", "step", "count"), [(48, 2, 24), (48, 1, 48), (47.5, 2, 24), (3, 2, 2), (1, 2, 1)]
)
def test_bins_cover_the_window(until: float, step: float, count: int) -> None:
    assert bins(until, step) == count
    assert bins(until, step) == max(1, int(until / step + 1 - 1e-6))


def test_nothing_after_the_end_is_used() -> None:
    found = grid([(5, 3.0, "pH", 7.2), (5, 5.0, "pH", 7.5)], step=2.0, until=4.0).cells
    assert found.shape == (2, 2, 17)
    assert found[0, :, NAMES.index("pH")].tolist()[1] == np.float32(7.2)
    assert np.nanmax(found) < 7.3


def test_the_last_measurement_of_a_bin_counts() -> None:
    found = grid([(5, 0.5, "pH", 7.1), (5, 1.9, "pH", 7.3), (5, 1.0, "pH", 7.2)]).cells
    assert found[0, 0, NAMES.index("pH")] == np.float32(7.3)


def test_gaps_repeat_the_previous_bin_and_start_with_the_normal_value() -> None:
    cells = grid(
        [
            (5, 4.5, "Heart Rate", 120.0),
            (5, 4.5, "Glasgow coma scale eye opening", 1.0),
        ]
    )
    values = columns_of(cells, CORRECTED)
    assert values.shape == (2, 24, 59)
    assert not np.isnan(values).any()
    names = CORRECTED.columns()
    rate = values[0, :, names.index("Heart Rate")]
    assert rate.tolist() == [86.0] * 2 + [120.0] * 22
    closed = values[0, :, names.index("Glasgow coma scale eye opening->1")]
    opened = values[0, :, names.index("Glasgow coma scale eye opening->4")]
    assert closed.tolist() == [0.0] * 2 + [1.0] * 22
    assert opened.tolist() == [1.0] * 2 + [0.0] * 22
    seen = values[0, :, names.index("mask->Heart Rate")]
    assert seen.tolist() == [0.0, 0.0, 1.0] + [0.0] * 21


@pytest.mark.parametrize("preset", ["corrected", "reference"])
def test_one_hot_groups_always_name_one_level(preset: str) -> None:
    values = columns_of(grid([(5, 1.0, "pH", 7.2)]), published(preset))  # type: ignore[arg-type]
    names = published(preset).columns()  # type: ignore[arg-type]
    groups = {name.split("->")[0] for name in names if "->" in name} - {"mask"}
    assert len(groups) == 5
    for group in groups:
        where = [i for i, name in enumerate(names) if name.startswith(group + "->")]
        assert (values[..., where].sum(axis=-1) == 1).all()
