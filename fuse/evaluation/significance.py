"""Whether two models differ on the same stays: paired bootstrap, DeLong's test, Holm's adjustment.

A t-test over bootstrap replicates is not offered: its n is the number of replicates, which the user
chooses, so it calls equal models different at will.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import erfc
from scipy.stats import rankdata

from .bootstrap import units_of
from .discrimination import Floats, checked


class Difference(NamedTuple):
    """A paired difference with its interval and two-sided p; None where it is not defined."""

    value: float | None
    low: float | None
    high: float | None
    p: float | None


class DeLong(NamedTuple):
    """AUROC of two scores, the variance of their difference and the two-sided p."""

    first: float
    second: float
    variance: float
    p: float | None


def interval(
    replicates: Floats, level: float = 0.95, least: float = 0.5
) -> tuple[float, float] | None:
    """Percentile interval over the replicates that are defined.

    Args:
        replicates: Shape ``(R,)``; NaN where undefined.
        level: Coverage aimed at.
        least: Share of replicates that must be defined.

    Returns:
        None when too few replicates are defined, or there are none.
    """
    kept = replicates[~np.isnan(replicates)]
    if not len(kept) or len(kept) < least * len(replicates):
        return None
    low, high = np.quantile(kept, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired_bootstrap(first: Floats, second: Floats, value: float | None) -> Difference:
    """Judge the difference of one metric between two models on the same resamples.

    Args:
        first: The metric of the first model over replicates, ``(R,)``; NaN where undefined.
        second: The same of the second model, from the same resamples.
        value: The difference (first minus second) on all stays.

    Returns:
        The percentile interval, and p: twice the smaller share of replicates on either side of 0
        (Efron and Tibshirani, 1993, §15.4), with one more replicate that counts on both sides, so
        never 0.
    """
    gap = first - second
    bounds = interval(gap)
    if value is None or bounds is None:
        return Difference(value, None, None, None)
    kept = gap[~np.isnan(gap)]
    side = min((kept <= 0).sum(), (kept >= 0).sum())
    return Difference(value, *bounds, min(1.0, 2 * float(side + 1) / (len(kept) + 1)))


def delong(
    y: ArrayLike, first: ArrayLike, second: ArrayLike, groups: ArrayLike | None = None
) -> DeLong | None:
    """Test whether two correlated AUROCs differ (DeLong, DeLong and Clarke-Pearson, 1988).

    With `groups`, stays of one patient may depend on each other: the components are summed by
    patient (Obuchowski, 1997), which is DeLong's variance when every patient has one stay.
    Components come from mid-ranks in O(n log n) (Sun and Xu, 2014).

    Args:
        y: Labels, 0 or 1, shape ``(n,)``.
        first: Scores of one model.
        second: Scores of the other for the same stays.
        groups: Patient of each stay; None takes stays as independent.

    Returns:
        None when a class has fewer than two patients. p is None when the variance is zero although
        the AUROCs differ, and 1 when they are equal.
    """
    labels, scores, _ = checked(y, first)
    other = checked(y, second)[1]
    unit = units_of(groups, len(labels))
    positive, negative = labels == 1, labels == 0
    with_positive, with_negative = (len(np.unique(unit[c])) for c in (positive, negative))
    if min(with_positive, with_negative) < 2:
        return None
    areas, gaps = [], []
    for values in (scores, other):
        area, component = _components(values, positive, negative)
        areas.append(area)
        gaps.append(component - area)
    gap = gaps[0] - gaps[1]
    patients = int(unit.max()) + 1
    above = np.bincount(unit[positive], gap[positive], patients) / positive.sum()
    below = np.bincount(unit[negative], gap[negative], patients) / negative.sum()
    variance = float(
        above @ above * with_positive / (with_positive - 1)
        + below @ below * with_negative / (with_negative - 1)
        + 2 * (above @ below) * patients / (patients - 1)
    )
    return DeLong(areas[0], areas[1], variance, _two_sided(areas[0] - areas[1], variance))


def _components(
    scores: Floats, positive: NDArray[np.bool_], negative: NDArray[np.bool_]
) -> tuple[float, Floats]:
    # for each stay the share of the other class that it is ranked rightly against, ties one half
    everyone = rankdata(scores)
    component = np.empty(len(scores))
    component[positive] = (everyone[positive] - rankdata(scores[positive])) / negative.sum()
    component[negative] = 1 - (everyone[negative] - rankdata(scores[negative])) / positive.sum()
    return float(component[positive].mean()), component


def _two_sided(difference: float, variance: float) -> float | None:
    if abs(difference) < 1e-15:
        return 1.0
    if variance <= 1e-30:
        return None
    return float(erfc(abs(difference) / math.sqrt(2 * variance)))


def holm(p: Sequence[float | None]) -> list[float | None]:
    """Adjust p values for their number (Holm, 1979); the family is what is passed in.

    Args:
        p: One p for each comparison; None is no test, stays None and counts for nothing.
    """
    tested = sorted((value, i) for i, value in enumerate(p) if value is not None)
    adjusted: list[float | None] = [None] * len(p)
    largest = 0.0
    for rank, (value, i) in enumerate(tested):
        largest = max(largest, min(1.0, (len(tested) - rank) * value))
        adjusted[i] = largest
    return adjusted
