"""A model as the judge sees it: one run, or several seeds of it, on the same resampled patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .bootstrap import METRICS, bootstrap
from .metrics import POINTS, Difference, macro, paired_bootstrap

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Judged:
    """One metric of one model.

    Attributes:
        value: Mean over seeds; None where undefined.
        by_seed: The value of each seed.
        replicates: Mean over seeds inside each resample of patients, ``(R,)``; NaN where undefined.
    """

    value: float | None
    by_seed: tuple[float | None, ...]
    replicates: Floats

    def difference(self, other: Judged) -> Difference:
        """This model's metric minus another's on the same stays and resamples."""
        gap = None if self.value is None or other.value is None else self.value - other.value
        return paired_bootstrap(self.replicates, other.replicates, gap)

    @property
    def sd(self) -> float | None:
        """Standard deviation over seeds; None for fewer than two."""
        values = [value for value in self.by_seed if value is not None]
        return float(np.std(values, ddof=1)) if len(values) > 1 else None


def judged(
    y: Floats,
    p: Sequence[Floats],
    groups: ArrayLike | None,
    *,
    replicates: int = 1000,
    seed: int = 0,
) -> dict[str, Judged]:
    """Compute every metric of a model: a mean over targets, then over seeds.

    Args:
        y: Targets, ``(n, C)``; NaN where unknown.
        p: Probabilities of each seed, ``(n, C)``.
        groups: Patient of each stay, ``(n,)``; None resamples stays.
        replicates: Bootstrap resamples.
        seed: Names the resamples: the same for every model on the same stays.

    Returns:
        By name out of `METRICS`.
    """
    classes = [len(np.unique(column[~np.isnan(column)])) for column in y.T]
    result = {}
    columns = [c for c, n in enumerate(classes) if n > 0]
    drawn = bootstrap(
        np.concatenate([y[:, columns]] * len(p), axis=1),
        [one[:, c] for one in p for c in columns],
        groups,
        replicates=replicates,
        seed=seed,
    )
    for metric in METRICS:
        least = 2 if metric in ("auroc", "aupr") else 1
        defined = [c for c in columns if classes[c] >= least]
        by_seed = tuple(
            macro(POINTS[metric], y[:, defined], one[:, defined]) if defined else None for one in p
        )
        table = np.stack([one.values[metric] for one in drawn]).reshape(len(p), len(columns), -1)
        table = table[:, [columns.index(c) for c in defined]]
        result[metric] = Judged(
            None if not defined else float(np.mean([v for v in by_seed if v is not None])),
            by_seed,
            _macro_drawn(table) if defined else np.full(replicates, np.nan),
        )
    return result


def _macro_drawn(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over seeds, and over the targets that a resample defines if they are half of them.

    Args:
        table: By seed, target and resample; undefined in all seeds alike.

    Returns:
        By resample; NaN where fewer are defined.
    """
    by_target = table.mean(0)
    defined = ~np.isnan(by_target)
    count = defined.sum(0)
    total = np.where(defined, by_target, 0.0).sum(0)
    return np.where(2 * count >= len(by_target), total / np.maximum(count, 1), np.nan)


__all__ = ["Judged", "judged"]
