"""A start of the copula's projection where the modalities already agree: canonical correlations."""

from __future__ import annotations

import torch
from torch import Tensor

RIDGE = 0.05
"""Share of the mean variance added to every variance: the embeddings have few strong directions."""


def canonical_projection(z: Tensor, available: Tensor, width: int, ridge: float = RIDGE) -> Tensor:
    """Directions of every modality that agree most with those of the others.

    Regularised canonical correlation analysis; for more than two modalities the leading
    eigenvectors of all their white coordinates together (MAXVAR, Kettenring 1971), which for two
    are the canonical directions. Covariances between modalities come from the stays that have
    both.

    Args:
        z: Embeddings of the training stays, ``(N, M, D)``.
        available: ``(N, M)`` bool.
        width: Number of directions, at most D.
        ridge: Share of the mean variance added to every variance.

    Returns:
        Columns of length 1, strongest agreement first, ``(M, D, width)``.
    """
    M, D = z.shape[1:]
    count = available.sum(0).clamp(min=1)
    z = torch.where(available.unsqueeze(-1), z, 0.0)
    z = torch.where(available.unsqueeze(-1), z - z.sum(0) / count.unsqueeze(-1), 0.0)
    rows = z.transpose(0, 1)  # (M, N, D)
    eye = torch.eye(D, dtype=z.dtype, device=z.device)
    covariance = rows.mT @ rows / count[:, None, None]
    scale = covariance.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None]
    factor = torch.linalg.cholesky(covariance + (ridge * scale + 1e-12) * eye)
    white = torch.linalg.solve_triangular(factor.mT, eye, upper=True)  # (M, D, D)
    together = torch.eye(M * D, dtype=z.dtype, device=z.device)
    for a in range(M):
        for b in range(a):
            both = (available[:, a] & available[:, b]).sum().clamp(min=1)
            cross = white[a].mT @ (rows[a].mT @ rows[b]) @ white[b] / both
            together[a * D : (a + 1) * D, b * D : (b + 1) * D] = cross
            together[b * D : (b + 1) * D, a * D : (a + 1) * D] = cross.mT
    leading = torch.linalg.eigh(together)[1].flip(-1)[:, :width].reshape(M, D, width)
    directions = white @ leading
    scaled: Tensor = directions / directions.norm(dim=-2, keepdim=True).clamp_min(1e-12)
    return scaled
