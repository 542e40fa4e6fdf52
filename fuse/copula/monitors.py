"""Signs that the copula term is honest: uniform margins, no lost scale, no lost dimensions."""

from __future__ import annotations

import math

import torch
from torch import Tensor


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


def _centred(x: Tensor, available: Tensor) -> tuple[Tensor, Tensor]:
    """Rows less their mean, ``(M, N, D)``, and the share of each in a mean, ``(M, N, 1)``."""
    share = available.to(x.dtype) / available.sum(0).clamp_min(1)  # (N, M)
    rows = torch.where(available.unsqueeze(-1), x, 0.0).transpose(0, 1)
    mass = share.T.unsqueeze(-1)
    return rows - (mass * rows).sum(1, keepdim=True), mass


def effective_rank(x: Tensor, available: Tensor) -> Tensor:
    """How many directions the values really use: exp of the entropy of the variance shares.

    Eigenvalues of the covariance as shares of their sum (after Roy and Vetterli 2007): D for a
    ball, 1 for a line or a point.

    Args:
        x: Embeddings or copula coordinates, shape (N, M, D).
        available: Bool, (N, M).

    Returns:
        Shape (M,).
    """
    centred, mass = _centred(x, available)
    values = torch.linalg.eigvalsh(centred.mT @ (mass * centred)).clamp_min(0.0)
    tiny = torch.finfo(x.dtype).tiny
    share = values / values.sum(-1, keepdim=True).clamp_min(tiny)
    return torch.exp(-torch.xlogy(share, share).sum(-1))


def spread(x: Tensor, available: Tensor) -> Tensor:
    """Root mean square standard deviation of the coordinates, shape (M,); 0 after a collapse.

    Args:
        x: Shape (N, M, D).
        available: Bool, (N, M).
    """
    centred, mass = _centred(x, available)
    return (mass * centred.square()).sum(1).mean(-1).sqrt()
