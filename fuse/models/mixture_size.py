"""How many components a marginal needs: mixtures of several sizes on stays that none has seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..copula.goodness import spread
from ..copula.mixture import Mixture, log_prob
from ..random import key
from .alignment import start_mixture

SIZES = range(1, 7)
"""Numbers of components that are tried: those of the paper."""

ROWS = 2048
"""Training rows that a mixture is fitted to: some hundred numbers need no more."""

_NORMAL = 1.96


def by_modality(
    names: Sequence[str],
    training: tuple[Tensor, Tensor],
    unseen: tuple[Tensor, Tensor],
    own: int,
    floor: float,
    seed: int,
) -> dict[str, dict[str, Any]]:
    """`held_out_by_size` of every modality.

    Args:
        names: The modalities.
        training: Copula coordinates ``(N, M, D_c)`` and availability ``(N, M)``.
        unseen: The same of other stays.
        own: See `held_out_by_size`, as `floor`.
        floor: Smallest standard deviation.
        seed: Seed of the run.
    """
    (w, has), (other, other_has) = training, unseen
    return {
        name: held_out_by_size(
            w[:, m][has[:, m]],
            other[:, m][other_has[:, m]],
            own,
            floor,
            key(seed, "mixture", name),
        )
        for m, name in enumerate(names)
    }


def held_out_by_size(
    training: Tensor, unseen: Tensor, own: int, floor: float, seed: int
) -> dict[str, Any]:
    """Fit mixtures of several sizes to training rows and judge them on unseen ones.

    Args:
        training: Copula coordinates ``(N, D_c)`` of stays that have the modality; at most `ROWS`
            of them, evenly spaced, are used.
        unseen: The same of other stays, ``(n, D_c)``.
        own: The run's number of components, which the others are compared with.
        floor: Smallest standard deviation.
        seed: Seed of the starts.

    Returns:
        n, and `sizes`: by K (as text, for JSON) the mean log density per coordinate and stay in
        nats as `value`, and its `difference` from K = `own` with a 95 % interval `low`, `high`
        (normal, stays taken as independent). A size with more components than training rows is
        left out; no sizes where a side has fewer than two rows.
    """
    seen, other = training.cpu()[spread(len(training), ROWS)], unseen.cpu()
    if min(len(seen), len(other)) < 2:
        return {"n": len(other), "sizes": {}}
    by_stay = {
        K: log_prob(other, Mixture(*_fitted(seen, K, floor, seed))) / other.shape[1]
        for K in sorted({*SIZES, own})
        if len(seen) >= K
    }
    sizes = {}
    for K, density in by_stay.items():
        apart = density - by_stay[own]
        half = _NORMAL * float(apart.std()) / len(apart) ** 0.5
        mean = float(apart.mean())
        sizes[str(K)] = {
            "value": float(density.mean()),
            "difference": mean,
            "low": mean - half,
            "high": mean + half,
        }
    return {"n": len(other), "sizes": sizes}


def _fitted(rows: Tensor, K: int, floor: float, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    weights, means, stds = start_mixture(rows, K, floor, seed)
    return torch.log(weights), means, stds


__all__ = ["ROWS", "SIZES", "by_modality", "held_out_by_size"]
