"""How well copula families fit arguments that a model learned, on rows that it has not seen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations

import torch
from torch import Tensor

from . import COPULAS, get_copula
from .family import Copula

BINS = 10
ROWS = 512
"""Rows that a family is fitted to: one or two numbers need no more."""


def spread(rows: int, most: int) -> Tensor:
    """Positions of at most so many rows, evenly spaced: a table may be sorted by anything."""
    kept = min(rows, most)
    return torch.arange(kept) * rows // max(kept, 1)


def fit(
    copula: Copula, start: Tensor, log_u: Tensor, log_sf: Tensor, available: Tensor, steps: int = 50
) -> Tensor:
    """Find the dependence with the largest mean log density.

    Args:
        copula: The family.
        start: Unconstrained parameters to begin with; left as they are.
        log_u: Log of the arguments, ``(N, M, D)``.
        log_sf: Log of one minus the arguments, the same shape.
        available: ``(N, M)`` bool, two or more in every row.
        steps: Largest number of iterations of L-BFGS.

    Returns:
        Unconstrained parameters, as `start`.
    """
    M = available.shape[1]
    there = available.unsqueeze(-2)
    raw = start.detach().clone().requires_grad_()
    optimizer = torch.optim.LBFGS([raw], max_iter=steps, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        params = copula.natural(raw, M)
        value = -copula.log_density(log_u.mT, log_sf.mT, params, there).mean()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    with torch.enable_grad():
        optimizer.step(loss)  # type: ignore[no-untyped-call]
    return raw.detach()


def held_out(
    training: tuple[Tensor, Tensor, Tensor], unseen: tuple[Tensor, Tensor, Tensor]
) -> Mapping[str, float | None]:
    """Fit each family to training rows and judge it on unseen ones.

    One dependence for all coordinates; everything but it is held. Independence has 0 by definition,
    so that a positive number says that the family tells more than independence.

    Args:
        training: log_u and log_sf ``(N, M, D)``, available ``(N, M)``; at most `ROWS` of them with
            two modalities or more, evenly spaced, are used.
        unseen: The same of other rows.

    Returns:
        By family the mean log density per coordinate and stay, in nats; None where the fit is not
        finite or no row has two modalities.
    """
    seen, other = (_together(*rows) for rows in (training, unseen))
    result: dict[str, float | None] = {}
    for name in COPULAS:
        copula = get_copula(name)
        if not len(seen[0]) or not len(other[0]):
            result[name] = None
        elif name == "independence":
            result[name] = 0.0
        else:
            M = seen[2].shape[1]
            rows = spread(len(seen[0]), ROWS)
            some_u, some_sf, some = (part[rows] for part in seen)
            raw = fit(copula, copula.initial(M), some_u, some_sf, some, steps=20)
            log_u, log_sf, available = other
            value = copula.log_density(
                log_u.mT, log_sf.mT, copula.natural(raw, M), available.unsqueeze(-2)
            ).mean()
            result[name] = float(value) if math.isfinite(value) else None
    return result


def pair_counts(names: Sequence[str], u: Tensor, available: Tensor) -> dict[str, list[list[int]]]:
    """Count the arguments of every pair of modalities in `BINS` x `BINS` cells.

    Args:
        names: The modalities, M.
        u: Arguments ``(N, M, D)``, all coordinates of which are counted together.
        available: ``(N, M)`` bool.

    Returns:
        By "first,second" the counts, bins of the first modality by rows.
    """
    found = {}
    for a, b in combinations(range(len(names)), 2):
        both = available[:, a] & available[:, b]
        pair = torch.stack([u[both][:, a].flatten(), u[both][:, b].flatten()], 1)
        cells = (pair * BINS).long().clamp(0, BINS - 1)
        counts = torch.bincount(cells[:, 0] * BINS + cells[:, 1], minlength=BINS**2)
        found[f"{names[a]},{names[b]}"] = counts.reshape(BINS, BINS).tolist()
    return found


def _together(log_u: Tensor, log_sf: Tensor, available: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    rows = available.sum(1) >= 2
    return log_u[rows].detach(), log_sf[rows].detach(), available[rows]


__all__ = ["ROWS", "fit", "held_out", "pair_counts", "spread"]
