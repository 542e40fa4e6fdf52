"""Signs that the copula term is honest: uniform margins, no lost scale, no lost dimensions."""

from __future__ import annotations

import math

import torch
from torch import Tensor

EMPTY = 1e-9
"""Share of the largest variance that rounding of embeddings, widened by the whitening, leaves to a
direction without any."""


def ks_distance(log_u: Tensor, available: Tensor) -> Tensor:
    """Kolmogorov-Smirnov distance of each coordinate of u from the uniform distribution.

    Below about 1.63 / sqrt(N) (the 1 % point) u is as good as uniform; a distance that stays
    above 0.1 means that the marginals do not fit and the copula term is not a log density.

    Args:
        log_u: log u, shape (N, M, D).
        available: Bool, (N, M); absent rows are not read.

    Returns:
        Shape (M, D); 1 for a modality without rows.
    """
    present = available.unsqueeze(-1).expand_as(log_u)
    u, order = torch.sort(torch.where(present, log_u.exp(), torch.inf), 0)
    share = torch.gather(present.to(log_u.dtype), 0, order)
    count = share.sum(0)
    after = torch.cumsum(share, 0) / count.clamp_min(1.0)
    gap = torch.maximum(after - u, u - after + share / count.clamp_min(1.0))
    distance = torch.where(share > 0, gap, 0.0).amax(0)
    return torch.where(count > 0, distance, 1.0)


def ks_bound(rows: Tensor, coordinates: int, level: float = 0.01) -> Tensor:
    """The distance that chance alone exceeds in any of the coordinates with probability `level`.

    Dvoretzky-Kiefer-Wolfowitz inequality (Massart 1990), Bonferroni over the coordinates.

    Args:
        rows: Rows behind each distance, at least 1.
        coordinates: Number of distances looked at together.
        level: Probability, in (0, 1).

    Returns:
        Shape of `rows`.
    """
    return torch.sqrt(math.log(2 * coordinates / level) / (2 * rows.double().clamp_min(1.0)))


def spread_and_rank(x: Tensor, available: Tensor) -> tuple[Tensor, Tensor]:
    """How far the values extend, and how many directions they really use.

    Args:
        x: Embeddings or copula coordinates, shape (N, M, D).
        available: Bool, (N, M).

    Returns:
        Root mean square standard deviation of the coordinates, 0 after a collapse; and the
        effective rank, exp of the entropy of the covariance's eigenvalues as shares of their sum
        (after Roy and Vetterli 2007): D for a ball, 1 for a line or a point. Each of shape (M,).
    """
    covariance = _covariance(x, available)
    extent = covariance.diagonal(dim1=-2, dim2=-1).mean(-1).clamp_min(0.0).sqrt()
    values = torch.linalg.eigvalsh(covariance).clamp_min(0.0)
    part = values / values.sum(-1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
    return extent, torch.exp(-torch.xlogy(part, part).sum(-1))


def directions(w: Tensor, available: Tensor) -> Tensor:
    """In how many directions copula coordinates differ between stays at all.

    Args:
        w: White coordinates in float64, of embeddings in float32, shape (N, M, D).
        available: Bool, (N, M).

    Returns:
        Whole numbers up to D, shape (M,): the rank of each covariance to the rounding of float32.
    """
    values: Tensor = torch.linalg.eigvalsh(_covariance(w, available))
    return (values > EMPTY * values[:, -1:]).sum(-1)


def _covariance(x: Tensor, available: Tensor) -> Tensor:
    """Covariance of each modality over the rows that have it, (M, D, D)."""
    share = available.to(x.dtype) / available.sum(0).clamp_min(1)  # (N, M)
    mass = share.T.unsqueeze(-1)  # (M, N, 1)
    rows = torch.where(available.unsqueeze(-1), x, 0.0).transpose(0, 1)
    centred = rows - mass.mT @ rows
    return centred.mT @ (mass * centred)
