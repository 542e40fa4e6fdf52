"""Pointwise bootstrap bands around ROC and PR curves."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .bootstrap import resamples
from .discrimination import Floats, checked


class Bands(NamedTuple):
    """95 % bands on a common grid, shapes ``(grid,)``: sensitivity, and precision."""

    grid: Floats
    roc_low: Floats
    roc_high: Floats
    pr_low: Floats
    pr_high: Floats


def bands(
    y: ArrayLike,
    p: ArrayLike,
    groups: ArrayLike,
    *,
    points: int = 101,
    replicates: int = 500,
    seed: int = 0,
) -> Bands | None:
    """Resample patients and take the 2.5 % and 97.5 % quantiles of the curves at each point.

    Args:
        y: Labels, 0 or 1.
        p: Scores.
        groups: Patient of each stay.
        points: Length of the grid over [0, 1]: false positive rate for ROC, recall for PR.
        replicates: Bootstrap resamples.
        seed: Names the resamples.

    Returns:
        None when only one class is present, or fewer than half of the resamples hold both.
    """
    labels, values, _ = checked(y, p)
    if labels.sum() in (0, len(labels)):
        return None
    order = np.argsort(-values, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(values[order])), len(values) - 1)
    unit = np.unique(groups, return_inverse=True)[1][order]
    positive = labels[order] == 1
    grid = np.linspace(0, 1, points)
    roc, pr = [], []
    for block in resamples(int(unit.max()) + 1, replicates, seed):
        for counts in block:
            weight = counts[unit]
            true = np.cumsum(weight * positive)[ends]
            false = np.cumsum(weight * ~positive)[ends]
            if true[-1] == 0 or false[-1] == 0:
                continue
            recall = true / true[-1]
            roc.append(np.interp(grid, np.append(0, false / false[-1]), np.append(0, recall)))
            first = np.minimum(np.searchsorted(recall, grid - 1e-12), len(true) - 1)
            first = np.maximum(first, np.searchsorted(true, 1))  # before the first hit: its own
            pr.append(true[first] / (true[first] + false[first]))
    if len(roc) < replicates / 2:
        return None
    low, high = np.quantile(roc, [0.025, 0.975], axis=0)
    pr_low, pr_high = np.quantile(pr, [0.025, 0.975], axis=0)
    return Bands(grid, low, high, pr_low, pr_high)
