"""Figures that tell whether embeddings keep their scale and rank, and margins their shape."""

from __future__ import annotations

import torch
from torch import Tensor


def spread(z: Tensor) -> float:
    """Mean standard deviation of the columns of ``(N, D)``."""
    return float(z.std(0, correction=0).mean())


def effective_rank(z: Tensor) -> float:
    """Exponential of the entropy of the covariance spectrum (Roy and Vetterli, 2007).

    Args:
        z: ``(N, D)``.

    Returns:
        Between 1 (one direction) and D; 1 for constant rows.
    """
    centred = (z - z.mean(0)).double()
    values = torch.linalg.svdvals(centred).square()
    total = values.sum()
    if total <= 0:
        return 1.0
    share = (values / total).clamp(min=1e-30)
    return float(torch.exp(-(share * share.log()).sum()))


def ks_distance(u: Tensor) -> float:
    """Kolmogorov-Smirnov distance of numbers to the uniform distribution, 0 for none."""
    ordered = u.flatten().double().sort().values
    n = len(ordered)
    if n == 0:
        return 0.0
    steps = torch.arange(n + 1, dtype=torch.float64) / n
    above = (steps[1:] - ordered).max()
    below = (ordered - steps[:-1]).max()
    return float(torch.maximum(above, below))
