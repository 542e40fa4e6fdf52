from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cm2.errors import DataError, IntegrityError
from cm2.extract.modalities import events
from cm2.extract.modalities.irregular import read_irregular
from cm2.extract.selection import select
from cm2.extract.sources import open_source


def stored(mimic3: Any, tmp_path: Path) -> Path:
    source = open_source(mimic3.write(tmp_path / "root"))
    events.load(source, select(source)[0], tmp_path / "cache", "corrected")
    return next((tmp_path / "cache" / "events").glob("*.parquet"))


def test_measurements_stand_at_their_own_times_in_the_order_asked(
    mimic3: Any, tmp_path: Path
) -> None:
    read = read_irregular(stored(mimic3, tmp_path), np.array([1001, 1100, 1000]))
    assert read.length.tolist() == [0, 1, 3]
    assert read.names == ("Glucose", "Heart Rate")
    assert read.hours.tolist() == [[0, 0, 0], [1, 0, 0], [1, 2, 3]]
    assert read.value.tolist() == [[0, 0, 0], [70, 0, 0], [80, 110, 90]]
    assert read.variable.tolist() == [[-1, -1, -1], [1, -1, -1], [1, 0, 1]]


def test_nothing_later_than_asked_is_read(mimic3: Any, tmp_path: Path) -> None:
    read = read_irregular(stored(mimic3, tmp_path), np.array([1000]), until_hours=2)
    assert read.hours.tolist() == [[1, 2]]


def test_an_altered_or_missing_table_and_a_repeated_stay_are_refused(
    mimic3: Any, tmp_path: Path
) -> None:
    path = stored(mimic3, tmp_path)
    with pytest.raises(DataError, match="twice"):
        read_irregular(path, np.array([1000, 1000]))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityError):
        read_irregular(path, np.array([1000]))
    path.unlink()
    with pytest.raises(DataError, match="expected a table"):
        read_irregular(path, np.array([1000]))
