"""The measurements of stays at their own times, padded, for models that want no grid."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from ...cache import atomic
from ...errors import DataError

_REMEDY = "Run the same `cm2 extract` again: it writes the measurements anew."


class Irregular(NamedTuple):
    """Measurements of N stays, at most L each.

    Args:
        hours: ``[N, L]`` from ICU entry, ascending; 0 where padded.
        variable: ``[N, L]`` place in `names`; -1 where padded.
        value: ``[N, L]`` not normalised; 0 where padded.
        length: ``[N]`` real measurements of each stay; 0 for a stay without any.
        names: The variables.
    """

    hours: npt.NDArray[np.float32]
    variable: npt.NDArray[np.int16]
    value: npt.NDArray[np.float32]
    length: npt.NDArray[np.int64]
    names: tuple[str, ...]


def read_irregular(
    path: Path, stay_ids: npt.NDArray[np.int64], until_hours: float = 48.0
) -> Irregular:
    """Read measurements of some stays from `CACHE/events/<fingerprint>.parquet`.

    Args:
        path: The table; its hash is checked against the record beside it.
        stay_ids: Rows of the result, in this order, each once.
        until_hours: Measurements after this are left out.

    Raises:
        DataError: There is no such table, or a stay is asked for twice.
        IntegrityError: The table was altered.
    """
    if not path.is_file() or not path.with_suffix(".json").is_file():
        raise DataError(f"{path}: expected a table of measurements with its record. {_REMEDY}")
    if len(np.unique(stay_ids)) != len(stay_ids):
        raise DataError(f"{path}: a stay is asked for twice; expected each stay once.")
    digest = atomic.read_json(path.with_suffix(".json"), _REMEDY)["parquet"]
    frame = pl.DataFrame(pl.from_arrow(atomic.read_parquet(path, digest, _REMEDY)))
    names = tuple(frame["variable"].cast(pl.String).unique().sort())
    rows = pl.DataFrame({"stay_id": stay_ids, "row": np.arange(len(stay_ids))})
    found = (
        frame.filter(pl.col("hours") <= until_hours)
        .with_columns(pl.col("variable").cast(pl.String))
        .join(rows, on="stay_id")
        .sort("row", "hours", "variable")
    )
    row = found["row"].to_numpy()
    length = np.bincount(row, minlength=len(stay_ids))
    place = np.arange(len(row)) - np.repeat(np.cumsum(length) - length, length)
    shape = (len(stay_ids), int(length.max(initial=0)))
    hours, value = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    variable = np.full(shape, -1, np.int16)
    hours[row, place] = found["hours"].to_numpy()
    value[row, place] = found["value"].to_numpy()
    variable[row, place] = np.searchsorted(np.array(names), found["variable"].to_numpy())
    return Irregular(hours, variable, value, length, names)


__all__ = ["Irregular", "read_irregular"]
