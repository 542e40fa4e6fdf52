"""From measurements to steps: bins or own times, last value, fill, one-hot columns, masks.

Bins are closed on the right: bin b holds (b * step, (b + 1) * step], the first one also 0, so
that a bin tells what was known at its end and the last one ends at the prediction time. Within a
bin the last measurement counts. With a step of 0 there are no bins: every time at which a stay has
a measurement is a step. A cell without one repeats the previous step; before the first
observation of a stay it holds the variable's normal value of variables.csv. The mask columns are
1 where a step has a measurement of its own.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from ...cache.space import HOURS
from ..sources.catalogue import Catalogue

_EPSILON = 1e-6


class Placed(NamedTuple):
    """Measurements of N stays in their cells; T steps, V variables.

    Args:
        cells: ``[N, T, V]``, NaN where a step has no measurement.
        mask: ``[N, T]`` real steps.
        hours: ``[N, T]`` own times, ascending, 0 where padded; None of a grid.
    """

    cells: npt.NDArray[np.float32]
    mask: npt.NDArray[np.bool_]
    hours: npt.NDArray[np.float32] | None


def bins(until_hours: float, step_hours: float) -> int:
    """Return the number of bins that cover (0, until]; the last one may be shorter."""
    return max(1, math.ceil(until_hours / step_hours - _EPSILON))


def place(
    found: pl.DataFrame,
    stay_ids: npt.NDArray[np.int64],
    step_hours: float,
    until_hours: float,
    width: int,
) -> Placed:
    """Put the last measurement of each step into its cell.

    Args:
        found: stay_id, hours, variable, value; one row per stay, time and variable, sorted.
        stay_ids: Rows of the result, ascending.
        step_hours: Width of a bin; 0 for one step per time of measurement.
        until_hours: Measurements after this are not used.
        width: Number of variables, V.
    """
    hours = found["hours"].to_numpy()
    used = hours <= until_hours + _EPSILON
    found, hours = found.filter(pl.Series(used)), hours[used]
    rows = np.searchsorted(stay_ids, found["stay_id"].to_numpy())
    own: npt.NDArray[np.float32] | None = None
    if step_hours:
        steps = bins(until_hours, step_hours)
        step = np.floor(hours / step_hours - _EPSILON).clip(0, steps - 1).astype(np.int64)
        mask = np.ones((len(stay_ids), steps), dtype=bool)
    else:
        step, lengths = _times(rows, hours, len(stay_ids))
        steps = max(1, int(lengths.max(initial=0)))
        mask = np.arange(steps) < lengths[:, None]
        own = np.zeros((len(stay_ids), steps), dtype=np.float32)
        own[rows, step] = hours
    cells = np.full((len(stay_ids), steps, width), np.nan, dtype=np.float32)
    # Rows are in time order, and numpy assigns repeated indices in order: the last one stays.
    cells[rows, step, found["variable"].to_numpy()] = found["value"].to_numpy()
    return Placed(cells, mask, own)


def _times(
    rows: npt.NDArray[np.int64], hours: npt.NDArray[np.float64], n: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Number the distinct times of each row from 0; rows and hours are in order."""
    first = np.ones(len(rows), dtype=bool)
    first[1:] = (np.diff(rows) > 0) | (np.diff(hours) > 0)
    lengths = np.bincount(rows[first], minlength=n)
    before = np.cumsum(lengths) - lengths
    return np.cumsum(first) - 1 - before[rows], lengths


def forward(
    cells: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Carry cells ``[N, T, V]`` (NaN where empty) forward; also tell which are known by then."""
    steps = np.arange(cells.shape[1])[None, :, None]
    latest = np.maximum.accumulate(np.where(np.isnan(cells), -1, steps), axis=1)
    return np.take_along_axis(cells, latest.clip(0), axis=1), latest >= 0


def columns_of(placed: Placed, catalogue: Catalogue) -> npt.NDArray[np.float32]:
    """Fill gaps and expand cells into named columns.

    Args:
        placed: The cells.
        catalogue: The variables.

    Returns:
        ``[N, T, C]``, C columns as `catalogue.columns` names them, 59 or 76 of the published
        variables, with own times after a column of the hours; un-normalised, without NaN.
    """
    carried, known = forward(placed.cells)
    values = [] if placed.hours is None else [placed.hours[..., None]]
    for i, variable in enumerate(catalogue.variables):
        normal, levels = variable.normal, np.asarray(variable.levels)
        if catalogue.preset == "reference" and variable.categorical:
            levels = np.arange(len(variable.reference_levels))
            normal = variable.reference_levels.index(variable.reference_normal)
        filled = np.where(known[..., i], carried[..., i], np.float32(normal))[..., None]
        values.append((filled == levels).astype(np.float32) if variable.categorical else filled)
    observed = ~np.isnan(placed.cells)
    return np.concatenate([*values, observed.astype(np.float32)], axis=-1)


def names(columns: tuple[str, ...], step_hours: float) -> tuple[str, ...]:
    """Names of the last axis: with own times the hours come first."""
    return columns if step_hours else (HOURS, *columns)


__all__ = ["Placed", "bins", "columns_of", "forward", "names", "place"]
