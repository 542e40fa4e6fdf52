"""Bootstrap intervals: patients (or stays) drawn with replacement, all metrics of all replicates.

A replicate is a vector of counts: how often each patient was drawn. Scores are sorted once; a
replicate then costs a few cumulative sums of counts, exact in integers, whatever the ties. The same
seed draws the same patients for every model on the same stays, so differences are paired.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...errors import DataError
from ..random import key
from .calibration import ECE_BINS, bin_of
from .discrimination import Floats, checked

METRICS = ("auroc", "aupr", "brier", "ece")
_BLOCK = 32  # replicates at a time: counts and their sums stay in the processor's cache


@dataclass(frozen=True)
class Replicates:
    """Metrics of one model over bootstrap replicates.

    Args:
        values: Metric to shape ``(R,)``; NaN where a replicate holds one class only.
        degenerate: How many replicates hold one class only: they have no AUROC and no AUPR.
    """

    values: dict[str, Floats]
    degenerate: int


def units_of(groups: ArrayLike | None, stays: int) -> NDArray[np.int64]:
    """Number what is resampled, ``(n,)`` from 0.

    Args:
        groups: Patient of each stay, ``(n,)``; None takes every stay for itself.
        stays: Number n of stays.

    Raises:
        DataError: Another number of patients than stays.
    """
    if groups is None:
        return np.arange(stays)
    unit = np.unique(np.asarray(groups), return_inverse=True)[1]
    if unit.shape != (stays,):
        raise DataError(f"Expected {stays} patients, one for each stay, found {len(unit)}.")
    return unit


def resamples(units: int, replicates: int, seed: int) -> Iterator[NDArray[np.int32]]:
    """Draw units with replacement, as many as there are.

    Args:
        units: Number of patients or stays, at least 1.
        replicates: How many resamples.
        seed: Names the stream; a replicate depends on the seed and its own number of predecessors.

    Yields:
        Counts, shape ``(block, units)``; each row sums to ``units``.
    """
    generator = np.random.Generator(np.random.PCG64(key(seed, "bootstrap")))
    for start in range(0, replicates, _BLOCK):
        block = np.empty((min(_BLOCK, replicates - start), units), np.int32)
        for row in block:
            row[:] = np.bincount(generator.integers(0, units, units), minlength=units)
        yield block


def bootstrap(
    y: ArrayLike,
    scores: Sequence[ArrayLike],
    groups: ArrayLike | None = None,
    *,
    replicates: int = 1000,
    seed: int = 0,
) -> list[Replicates]:
    """Compute every metric of several models on the same resampled patients.

    Args:
        y: Labels, 0 or 1, shape ``(n,)``; or one column for each entry of `scores`, ``(n, S)``,
            NaN where unknown.
        scores: Probabilities of each model or target for the same stays, each ``(n,)``.
        groups: Patient of each stay, ``(n,)``; None resamples stays.
        replicates: How many resamples.
        seed: Names the resamples.

    Returns:
        One `Replicates` for each entry of `scores`.
    """
    table = np.asarray(y, np.float64)
    columns = [table] * len(scores) if table.ndim == 1 else list(table.T)
    unit = units_of(groups, len(table))
    if not len(table) or len(columns) != len(scores):
        raise DataError(
            f"Expected labels and {len(scores)} columns of scores of some stays, found labels of "
            f"shape {table.shape}."
        )
    units = int(unit.max()) + 1
    plans = []
    for column, score in zip(columns, scores, strict=True):
        known = ~np.isnan(column)
        labels, p, _ = checked(column[known], np.asarray(score)[known], probability=True)
        plans.append(_Plan(labels, p, unit[known], units))
    parts: list[list[Floats]] = [[] for _ in plans]
    for counts in resamples(units, replicates, seed):
        for plan, part in zip(plans, parts, strict=True):
            part.append(plan.metrics(counts))
    results = []
    for part in parts:
        drawn = np.concatenate(part, axis=1) if part else np.empty((len(METRICS), 0))
        values = dict(zip(METRICS, drawn, strict=True))
        results.append(Replicates(values, int(np.isnan(values["auroc"]).sum())))
    return results


class _Plan:
    # What the metrics of one model need, sorted once; `metrics` maps counts to values.

    def __init__(self, y: Floats, p: Floats, unit: NDArray[np.int64], units: int) -> None:
        positive, negative = np.flatnonzero(y == 1), np.flatnonzero(y == 0)
        positive = positive[np.argsort(-p[positive], kind="stable")]
        negative = negative[np.argsort(-p[negative], kind="stable")]
        falling = -p[positive]
        self.ends = np.append(np.flatnonzero(np.diff(falling)), len(falling) - 1)[: len(falling)]
        at = falling[self.ends]  # (G,) the distinct scores of positives, negated
        self.above = np.searchsorted(-p[negative], at, side="left")  # negatives scored higher
        self.down_to = np.searchsorted(-p[negative], at, side="right")  # higher or tied
        self.ties = bool((self.above != self.down_to).any())
        self.positive, self.negative = unit[positive], unit[negative]
        rows = np.zeros((len(y), ECE_BINS + 2))
        rows[np.arange(len(y)), bin_of(p)] = y - p
        rows[:, ECE_BINS] = (y - p) ** 2
        rows[:, ECE_BINS + 1] = 1.0
        sums = np.zeros((units, ECE_BINS + 2))  # by patient
        np.add.at(sums, unit, rows)
        self.sums = sums

    def metrics(self, counts: NDArray[np.int32]) -> Floats:
        """Map counts ``(b, units)`` to the values of `METRICS`, ``(4, b)``."""
        sums = counts.astype(np.float64) @ self.sums
        with np.errstate(invalid="ignore"):  # a target none of whose patients was drawn
            error = np.abs(sums[:, :ECE_BINS]).sum(1) / sums[:, -1]
            squared = sums[:, ECE_BINS] / sums[:, -1]
        area, precision = self._ranks(counts)
        return np.stack([area, precision, squared, error])

    def _ranks(self, counts: NDArray[np.int32]) -> tuple[Floats, Floats]:
        below = np.zeros((len(counts), len(self.negative) + 1), np.int32)
        np.cumsum(counts[:, self.negative], axis=1, out=below[:, 1:])
        hits = np.cumsum(counts[:, self.positive], axis=1, dtype=np.int32)[:, self.ends]
        gained = np.diff(hits, axis=1, prepend=0).astype(np.float64)  # (b, G)
        false = np.take(below, self.down_to, axis=1)
        ranked = false + np.take(below, self.above, axis=1) if self.ties else 2 * false
        positives, negatives = gained.sum(1), below[:, -1].astype(np.float64)
        lost = (gained * ranked).sum(1)  # twice the pairs in the wrong order, ties one half
        total = np.maximum(hits + false, 1)
        with np.errstate(invalid="ignore", divide="ignore"):
            area = 1 - lost / (2 * positives * negatives)
            precision = (gained * hits / total).sum(1) / positives
        undefined = (positives == 0) | (negatives == 0)
        area[undefined] = precision[undefined] = np.nan
        return area, precision
