"""What the best of many tries is worth: the part of its lead that chance alone explains.

The best of n equally good settings looks better than their mean by the expected largest of n
noises. All settings share their seeds and stays, so what matters is what is left of a score when
the means of its setting and of its seed are taken away. Without seeds the bootstrap interval of
the validation AUROC stands in, an upper bound: what the shared stays have in common cancels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import ndtr

from .index import Standing


def expected_maximum(n: int) -> float:
    """Expected largest of n independent standard normal numbers.

    Raises:
        ValueError: n is below 1.
    """
    if n < 1:
        raise ValueError(f"expected one number or more, found {n}")
    x = np.linspace(-12, 12, 48_001)
    density = np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    return float(np.trapezoid(x * n * density * ndtr(x) ** (n - 1), x))


def noise_of_means(standings: Sequence[Standing]) -> float | None:
    """Standard deviation of a setting's mean over its seeds, beside what its seeds explain.

    Args:
        standings: Complete settings, all with the same seeds.

    Returns:
        None without two settings and two seeds.
    """
    table = np.array([one.scores for one in standings])
    n, seeds = table.shape if table.ndim == 2 else (0, 0)
    if n < 2 or seeds < 2:
        return None
    rest = table - table.mean(1, keepdims=True) - table.mean(0) + table.mean()
    return math.sqrt(float((rest**2).sum()) / ((n - 1) * (seeds - 1)) / seeds)


def gain_by_chance(n: int, noise: float) -> float:
    """How far the best of n equally good settings is expected to look above their mean."""
    return expected_maximum(n) * noise


__all__ = ["expected_maximum", "gain_by_chance", "noise_of_means"]
