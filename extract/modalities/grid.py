"""From measurements to a regular grid: bins, last value, fill, one-hot columns, masks.

Bins are closed on the right: bin b holds (b * step, (b + 1) * step], the first one also 0, so
that a bin tells what was known at its end and the last one ends at the prediction time. Within a
bin the last measurement counts. A cell without one repeats the previous bin; before the first
observation of a stay it holds the variable's normal value of variables.csv. The mask columns are
1 where a bin has a measurement of its own.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import polars as pl

from ..sources.catalogue import Preset, variables

_EPSILON = 1e-6


def bins(until_hours: float, step_hours: float) -> int:
    """Return the number of bins that cover (0, until]; the last one may be shorter."""
    return max(1, math.ceil(until_hours / step_hours - _EPSILON))


def last_in_bin(
    found: pl.DataFrame,
    stay_ids: npt.NDArray[np.int64],
    step_hours: float,
    until_hours: float,
    width: int | None = None,
) -> npt.NDArray[np.float32]:
    """Put the last measurement of each bin into its cell.

    Args:
        found: stay_id, hours, variable, value; one row per stay, time and variable, sorted.
        stay_ids: Rows of the result, ascending.
        step_hours: Width of a bin.
        until_hours: Measurements after this are not used.
        width: Number of variables V; by default the 17 of variables.csv.

    Returns:
        ``[N, T, V]``; NaN where a bin has no measurement.
    """
    steps = bins(until_hours, step_hours)
    width = len(variables()) if width is None else width
    cells = np.full((len(stay_ids), steps, width), np.nan, dtype=np.float32)
    hours = found["hours"].to_numpy()
    used = hours <= until_hours + _EPSILON
    found, hours = found.filter(pl.Series(used)), hours[used]
    rows = np.searchsorted(stay_ids, found["stay_id"].to_numpy())
    step = np.floor(hours / step_hours - _EPSILON).clip(0, steps - 1).astype(np.int64)
    # Rows are in time order, and numpy assigns repeated indices in order: the last one stays.
    cells[rows, step, found["variable"].to_numpy()] = found["value"].to_numpy()
    return cells


def columns_of(cells: npt.NDArray[np.float32], preset: Preset) -> npt.NDArray[np.float32]:
    """Fill gaps and expand cells into named columns (`catalogue.columns`).

    Args:
        cells: ``[N, T, 17]``, NaN where a bin has no measurement.
        preset: Which one-hot columns.

    Returns:
        ``[N, T, 59]`` corrected or ``[N, T, 76]`` reference, un-normalised, without NaN.
    """
    observed = ~np.isnan(cells)
    steps = np.arange(cells.shape[1])[None, :, None]
    latest = np.maximum.accumulate(np.where(observed, steps, -1), axis=1)
    carried = np.take_along_axis(cells, latest.clip(0), axis=1)
    values: list[npt.NDArray[np.float32]] = []
    for i, variable in enumerate(variables()):
        normal, levels = variable.normal, np.asarray(variable.levels)
        if preset == "reference" and variable.categorical:
            levels = np.arange(len(variable.reference_levels))
            normal = variable.reference_levels.index(variable.reference_normal)
        filled = np.where(latest[..., i] >= 0, carried[..., i], np.float32(normal))[..., None]
        values.append((filled == levels).astype(np.float32) if variable.categorical else filled)
    return np.concatenate([*values, observed.astype(np.float32)], axis=-1)  # [N, T, C]


__all__ = ["bins", "columns_of", "last_in_bin"]
