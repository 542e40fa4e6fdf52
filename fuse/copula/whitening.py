"""The copula space: a few white coordinates of every modality's embedding.

    z [.., M, D] -- projection (learned) --> v [.., M, D_c] -- whitening (statistics) --> w

A diagonal mixture assumes that the coordinates of a component are uncorrelated. Whitening makes
them so over all stays, and it keeps an encoder from being paid for the same information once
per coordinate, or for shrinking. The projection is a parameter and receives gradient through
the copula term. Means and covariances are buffers, set by an exact pass over the training rows
(once per epoch), constants for the gradient unless the caller asks otherwise. The Cholesky factor
is unique and continuous in the covariance, so an axis never flips from one pass to the next.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...errors import ConfigError, DataError


def _moments(x: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted mean (M, 1, D) and centred values (M, N, D), from (N, M, D) and (N, M)."""
    rows = x.transpose(0, 1)
    mean = share.T.unsqueeze(-2) @ rows
    return mean, rows - mean


def _each(x: Tensor, matrices: Tensor) -> Tensor:
    """Multiply rows (..., M, I) by the matrix of their modality (M, I, J), to (..., M, J).

    One product per modality; broadcasting would copy the matrices for every row.
    """
    return torch.einsum("...mi,mij->...mj", x, matrices)


class Whitening(nn.Module):
    """Affine maps between projected embeddings, white coordinates and embeddings; no parameters.

    Args:
        M: Modalities.
        D_c: Coordinates of the copula space.
        D: Width of the embedding that `decode` restores.
        shrinkage: Share of the mean variance blended into the covariance, in [0, 1).
    """

    mean: Tensor
    transform: Tensor
    embedding_mean: Tensor
    decoder: Tensor

    def __init__(self, M: int, D_c: int, D: int, shrinkage: float = 1e-3) -> None:
        super().__init__()
        if not 0 <= shrinkage < 1:
            raise ConfigError(f"The shrinkage of a covariance lies in [0, 1); found {shrinkage}.")
        self.shrinkage = shrinkage
        self.register_buffer("mean", torch.zeros(M, D_c))
        self.register_buffer("transform", torch.eye(D_c).repeat(M, 1, 1))
        self.register_buffer("embedding_mean", torch.zeros(M, D))
        self.register_buffer("decoder", torch.zeros(M, D_c, D))

    def forward(self, v: Tensor, available: Tensor | None = None) -> Tensor:
        """White coordinates, (..., M, D_c) to (..., M, D_c).

        Args:
            v: Projected embeddings.
            available: Bool, (B, M), for `v` of shape (B, M, D_c): the value stays the same, but
                the gradient is that of statistics which follow the rows of this batch, and
                absent rows become 0. Without it an encoder is rewarded for growing or turning
                faster than the passes of `update` (docs/mathematics.md).
        """
        w = _each(v - self.mean, self.transform)
        if available is None:
            return w
        present = available.unsqueeze(-1)
        w = torch.where(present, w, 0.0)
        share = present / present.sum(0).clamp_min(1)  # (B, M, 1)
        shift = (share * w).sum(0)
        w = w - (shift - shift.detach())
        # In white coordinates a change dS of the covariance changes its Cholesky factor, the
        # identity, by the lower triangle of dS with half the diagonal.
        half = torch.einsum("bmi,bmj->mij", share * w, w).tril()
        half = half - 0.5 * torch.diag_embed(half.diagonal(dim1=-2, dim2=-1))
        turn = (half - half.detach()).mT
        return torch.where(present, w - _each(w, turn), 0.0)

    def decode(self, w: Tensor) -> Tensor:
        """The embedding expected from its white coordinates, (..., M, D_c) to (..., M, D)."""
        return self.embedding_mean + _each(w, self.decoder)

    @torch.no_grad()
    def update(self, v: Tensor, z: Tensor, weights: Tensor) -> None:
        """Set the statistics from all training rows at once.

        Args:
            v: Projected embeddings, shape (N, M, D_c).
            z: Embeddings, shape (N, M, D).
            weights: 1 where the modality is present, 0 where its row means nothing, (N, M).

        Raises:
            DataError: A modality with fewer than two rows.
        """
        present = weights.sum(0)
        if (present < 2).any():
            counts = ", ".join(f"{count:g}" for count in present.tolist())
            raise DataError(
                "The copula space needs at least two training rows of every modality; rows by "
                f"modality: {counts}. Leave the absent modality out of --modalities."
            )
        share = (weights / present).double()
        keep = weights.unsqueeze(-1) > 0
        v, z = (torch.where(keep, x, 0.0).double() for x in (v, z))
        mean, centred = _moments(v, share)
        mass = share.T.unsqueeze(-1)  # (M, N, 1)
        covariance = centred.mT @ (mass * centred)  # (M, D_c, D_c)
        eye = torch.eye(v.shape[-1], dtype=v.dtype, device=v.device)
        scale = covariance.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None]
        # The tiny constant only matters for an embedding that has collapsed to a point.
        shrunk = (1 - self.shrinkage) * covariance + (self.shrinkage * scale + 1e-12) * eye
        factor = torch.linalg.cholesky(shrunk)
        transform = torch.linalg.solve_triangular(factor.mT, eye, upper=True)
        embedding_mean, difference = _moments(z, share)
        white = centred @ transform
        gram = white.mT @ (mass * white) + 1e-9 * eye
        decoder = torch.linalg.solve(gram, white.mT @ (mass * difference))
        self.mean.copy_(mean.squeeze(-2))
        self.transform.copy_(transform)
        self.embedding_mean.copy_(embedding_mean.squeeze(-2))
        self.decoder.copy_(decoder)


class CopulaSpace(nn.Module):
    """Learned projection and whitening of all modalities together.

    Args:
        M: Modalities.
        D: Width of the embeddings.
        D_c: Coordinates of the copula space; equal to D there is no projection (the paper's
            literal form).
        shrinkage: See `Whitening`.
        seed: Seed of the orthogonal start of the projections.

    Raises:
        ConfigError: D_c outside 1..D.
    """

    def __init__(self, M: int, D: int, D_c: int, shrinkage: float = 1e-3, seed: int = 0) -> None:
        super().__init__()
        if not 1 <= D_c <= D:
            raise ConfigError(
                f"The copula space has between 1 and {D} coordinates (the width of the "
                f"embedding); found {D_c}. Change --copula-dim."
            )
        self.whitening = Whitening(M, D_c, D, shrinkage)
        self.projection: nn.Parameter | None = None
        if D_c < D:
            generator = torch.Generator().manual_seed(seed)
            start = torch.linalg.qr(torch.randn(M, D, D_c, generator=generator))[0]
            self.projection = nn.Parameter(start)
            self.whitening.decoder.copy_(start.mT)
        else:
            self.whitening.decoder.copy_(torch.eye(D))

    def project(self, z: Tensor) -> Tensor:
        """Embeddings (..., M, D) to projected embeddings (..., M, D_c)."""
        if self.projection is None:
            return z
        return _each(z, self.projection)

    def forward(self, z: Tensor, available: Tensor | None = None) -> Tensor:
        """White copula coordinates, (..., M, D) to (..., M, D_c); gradient to z and projection.

        Args:
            z: Embeddings.
            available: See `Whitening.forward`.
        """
        w: Tensor = self.whitening(self.project(z), available)
        return w

    def decode(self, w: Tensor) -> Tensor:
        """The embedding expected from its copula coordinates, (..., M, D_c) to (..., M, D)."""
        return self.whitening.decode(w)

    @torch.no_grad()
    def update(self, z: Tensor, available: Tensor) -> None:
        """Refresh the statistics from all training rows, `z` (N, M, D), `available` (N, M) bool."""
        self.whitening.update(self.project(z), z, available.to(z.dtype))
