"""Draws of absent modalities given the present ones, through the copula of each coordinate."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from .couplings import Coupling, Pair
from .family import Copula, Params
from .mixture import Mixture

HERMITE_NODES = 64
SOBOL_NODES = 64


def conditional(
    pair: Pair,
    available: Tensor,
    q: Tensor,
    mix: Mixture,
    coupling: Coupling,
    copula: Copula,
    params: Params,
) -> Tensor:
    """Absent modalities at the conditional quantiles q, shape (n, B, M, D).

    Args:
        pair: Copula arguments of the present modalities, (B, M, D).
        available: Bool, (B, M).
        q: Uniform numbers, (n, B, M, D).
        mix: One mixture per modality.
        coupling: How vectors and copula arguments correspond; must have an inverse.
        copula: The family.
        params: Its parameters.
    """
    assert coupling.inverse is not None  # joint.py refuses the others
    drawn = copula.impute(
        pair[0].mT, pair[1].mT, available.unsqueeze(-2), q.log().mT, (-q).log1p().mT, params
    )
    # The caller keeps present rows as they are; the centre stands in for them here, so that no
    # solver works on a far tail whose result is thrown away.
    log_u, log_sf = (torch.where(available.unsqueeze(-1), -math.log(2.0), x.mT) for x in drawn)
    return coupling.inverse(log_u, log_sf, mix)


def conditional_mean(
    pair: Pair,
    available: Tensor,
    mix: Mixture,
    coupling: Coupling,
    copula: Copula,
    params: Params,
) -> Tensor:
    """E[w_m | present], shape (B, M, D): arguments as in `conditional`.

    Coordinates of one modality are independent given the present ones if it has a single
    component (or a single coordinate): then Gauss-Hermite quadrature over the normal score of q
    is exact to rounding for the Gaussian family and nearly so for the others. Otherwise a
    coordinate depends on the earlier ones and the mean is taken over 64 Sobol points.
    Each absent modality is averaged on its own, the other absent ones integrated out.
    """
    M, D = pair[0].shape[-2:]
    if D == 1 or mix.means.shape[-2] == 1:
        nodes, weight = np.polynomial.hermite_e.hermegauss(HERMITE_NODES)
        q = torch.special.ndtr(torch.from_numpy(nodes)).reshape(-1, 1)
        share = torch.from_numpy(weight / weight.sum())
    else:
        sobol = torch.quasirandom.SobolEngine(D, scramble=True, seed=0)  # type: ignore[no-untyped-call]
        q = sobol.draw(SOBOL_NODES, dtype=torch.float64).clamp(1e-6, 1 - 1e-6)
        share = torch.full((SOBOL_NODES,), 1.0 / SOBOL_NODES, dtype=torch.float64)
    like = pair[0]
    q = q.to(like).clamp(torch.finfo(like.dtype).tiny, 1 - torch.finfo(like.dtype).eps / 2)
    q = q[:, None, None, :].expand(-1, *like.shape)
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
        means.append(torch.tensordot(share.to(like), points[..., 0, :], 1))
    return torch.stack(means, -2)
