"""Draws of absent modalities given the present ones, through the copula of each coordinate."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .couplings import Coupling, Pair
from .family import Copula, Params
from .mixture import Mixture
from .normal import log_ndtr

CELLS = 64


def conditional(
    pair: Pair,
    available: Tensor,
    q: Pair,
    mix: Mixture,
    coupling: Coupling,
    copula: Copula,
    params: Params,
) -> Tensor:
    """Absent modalities at the conditional quantiles q, shape (n, B, M, D).

    Present rows come back as they were but for rounding; the caller puts the originals there.

    Args:
        pair: Copula arguments of the present modalities, (B, M, D).
        available: Bool, (B, M).
        q: (log q, log(1 - q)) of uniform numbers, (n, B, M, D).
        mix: One mixture per modality.
        coupling: How vectors and copula arguments correspond; must have an inverse.
        copula: The family.
        params: Its parameters.
    """
    assert coupling.inverse is not None  # joint.py refuses the others
    log_u, log_sf = copula.impute(
        pair[0].mT, pair[1].mT, available.unsqueeze(-2), q[0].mT, q[1].mT, params
    )
    return coupling.inverse(log_u.mT, log_sf.mT, mix)


def _nodes(K: int, D: int) -> tuple[Tensor, Tensor]:
    """Normal scores of q, (n, D) or (n, 1), and their shares, (n,), to average a draw over."""
    if K == 1 or D == 1:
        # Quantiles of a mixture are steep between its components, hence the finer rule.
        score = torch.linspace(-8.5, 8.5, 64 if K == 1 else 1024, dtype=torch.float64)
        return score.unsqueeze(-1), torch.softmax(-0.5 * score.square(), 0)
    cells = np.tile(np.arange(CELLS)[:, None] + 0.5, (1, D)) / CELLS
    q = torch.from_numpy(np.random.default_rng(0).permuted(cells, axis=0))
    return torch.special.ndtri(q), torch.full((CELLS,), 1.0 / CELLS, dtype=torch.float64)


def conditional_mean(
    pair: Pair,
    available: Tensor,
    mix: Mixture,
    coupling: Coupling,
    copula: Copula,
    params: Params,
) -> Tensor:
    """E[w_m | present], shape (B, M, D): arguments as in `conditional`.

    With one component (or one coordinate) the coordinates of a modality are independent given
    the present ones: the trapezoid rule over the normal score of q is exact to rounding for the
    Gaussian family and nearly so for the others. Otherwise a coordinate depends on the earlier
    ones, and the mean is taken over a Latin hypercube of 64 points (error about 0.05).
    Each absent modality is averaged on its own, the other absent ones integrated out.
    """
    M, D = pair[0].shape[-2:]
    score, share = (x.to(pair[0]) for x in _nodes(mix.means.shape[-2], D))
    score = score[:, None, None, :].expand(-1, *pair[0].shape)
    q = log_ndtr(score), log_ndtr(-score)
    means = []
    for m in range(M):
        # First in order, so that it is drawn given the present modalities alone.
        order = [m, *(j for j in range(M) if j != m)]
        points = conditional(
            (pair[0][..., order, :], pair[1][..., order, :]),
            available[..., order],
            q,
            Mixture(*(part[order] for part in mix)),
            coupling,
            copula,
            copula.marginal(params, order),
        )
        means.append(torch.tensordot(share, points[..., 0, :], 1))
    return torch.stack(means, -2)
