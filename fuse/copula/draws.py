"""Draws of absent modalities given the present ones, through the copula of each coordinate."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ..readable import readable
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
    log_u, log_sf = (torch.zeros_like(x) for x in q)
    for rows, _, _ in alike(available):
        u, sf = (x[rows].mT for x in pair)
        at, at_sf = (x[:, rows].mT for x in q)
        drawn = copula.impute(u, sf, available[rows].unsqueeze(-2), at, at_sf, params)
        log_u = log_u.index_copy(1, rows, drawn[0].mT)
        log_sf = log_sf.index_copy(1, rows, drawn[1].mT)
    assert coupling.inverse is not None  # joint.py refuses the others
    return where_absent(coupling.inverse, (log_u, log_sf), available, mix)


def where_absent(
    draw: Callable[..., Tensor], numbers: Sequence[Tensor], available: Tensor, mix: Mixture
) -> Tensor:
    """Vectors that are computed for absent modalities alone; zero for the others.

    Args:
        draw: From the numbers and the mixture of a modality to vectors, ``(..., D)``.
        numbers: What it reads, each (n, B, M, .).
        available: Bool, (B, M).
        mix: One mixture per modality.

    Returns:
        Shape (n, B, M, D).
    """
    if not readable(available):
        return draw(*numbers, mix)
    row, m = torch.nonzero(~available, as_tuple=True)
    drawn = draw(*(x[:, row, m] for x in numbers), Mixture(*(part[m] for part in mix)))
    empty = drawn.new_zeros(*numbers[0].shape[:-1], drawn.shape[-1])
    return empty.index_put((torch.arange(len(drawn))[:, None], row, m), drawn)


def alike(available: Tensor) -> list[tuple[Tensor, list[int], list[int]]]:
    """Gather the rows of each availability pattern, so that nothing is solved for present ones.

    Args:
        available: Bool, (B, M).

    Returns:
        Indices of rows, the modalities to draw there, and those to condition on; all rows at
        once, and all modalities as both, where the mask may not be read.
    """
    B, M = available.shape
    if not readable(available):
        return [(torch.arange(B, device=available.device), list(range(M)), list(range(M)))]
    found = []
    for pattern in torch.unique(available, dim=0):
        rows = (available == pattern).all(-1).nonzero().flatten()
        there = pattern.tolist()
        found.append(
            (rows, [m for m in range(M) if not there[m]], [m for m in range(M) if there[m]])
        )
    return found


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
    assert coupling.inverse is not None  # joint.py refuses the others
    K, D = mix.means.shape[-2:]
    score, share = (x.to(pair[0]) for x in _nodes(K, D))
    q = log_ndtr(score), log_ndtr(-score)  # (n, D) or (n, 1)
    places, points = [], []
    for rows, absent, present in alike(available):
        for m in absent:
            # First in order, so that it is drawn given the present modalities alone.
            order = [m, *(j for j in present if j != m)]
            u, sf = (x[rows][:, order].mT for x in pair)
            at, at_sf = (x[:, None, :, None].expand(-1, len(rows), D, len(order)) for x in q)
            known, kept = available[rows][:, None, order], copula.marginal(params, order)
            drawn = copula.impute(u, sf, known, at, at_sf, kept)
            points.append(torch.stack([x[..., 0] for x in drawn]))  # (2, n, rows, D)
            places.append((rows, torch.full_like(rows, m)))
    if not points:
        return torch.zeros_like(pair[0])
    row, which = (torch.cat(part) for part in zip(*places, strict=True))
    log_u, log_sf = torch.cat(points, 2)
    values = coupling.inverse(log_u, log_sf, Mixture(*(part[which] for part in mix)))
    return torch.zeros_like(pair[0]).index_put((row, which), torch.tensordot(share, values, 1))
