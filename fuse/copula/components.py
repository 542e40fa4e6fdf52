"""The coupling `component`: a copula inside every combination of mixture components.

    p(w_1..w_M) = sum_{k_1..k_M} prod_m pi_{m,k_m} N(w_m | k_m) prod_d c(Phi(z_{1,k_1,d}), ..)

Margins are the mixtures, coordinates have no order, and the copula argument of a component is
its plain normal distribution. It costs K^M terms and is a mixture of copulas, not one.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .family import Copula, Params
from .mixture import Mixture, log_prob
from .normal import LOG_SQRT_2PI, complete, log_ndtr, normal_quantile

Pair = tuple[Tensor, Tensor]


def _combinations(M: int, K: int, device: torch.device) -> Tensor:
    """Every choice of a component per modality, (K^M, M)."""
    axes = [torch.arange(K, device=device)] * M
    return torch.cartesian_prod(*axes).reshape(-1, M)


def _pick(per_component: Tensor, combinations: Tensor) -> Tensor:
    """(.., M, K, *rest) to (.., K^M, M, *rest) along a choice of components; rest is D or nothing.

    The component axis is given as -2 (with a rest of one axis) by all callers.
    """
    chosen = [
        per_component[..., m, :, :].index_select(-2, column)
        for m, column in enumerate(combinations.unbind(-1))
    ]
    return torch.stack(chosen, -2)


def _terms(
    w: Tensor, available: Tensor, mix: Mixture, copula: Copula, params: Params
) -> tuple[Tensor, Pair]:
    """Log of every combination's term, (.., K^M), and its copula arguments, (.., K^M, M, D)."""
    combinations = _combinations(w.shape[-2], mix.means.shape[-2], w.device)
    z = (w.unsqueeze(-2) - mix.means) / mix.stds  # (.., M, K, D)
    log_normal = (-0.5 * z.square() - torch.log(mix.stds) - LOG_SQRT_2PI).sum(-1, keepdim=True)
    there = available[..., None, None]
    part = mix.log_weights.unsqueeze(-1) + torch.where(there, log_normal, 0.0)  # (.., M, K, 1)
    pair = complete(log_ndtr(-z.abs()), z > 0)
    half = -math.log(2.0)
    log_u, log_sf = (_pick(torch.where(there, x, half), combinations) for x in pair)
    log_c = copula.log_density(log_u.mT, log_sf.mT, params, available[..., None, None, :])
    return _pick(part, combinations).squeeze(-1).sum(-1) + log_c.sum(-1), (log_u, log_sf)


def component_log_ratio(
    w: Tensor, available: Tensor, mix: Mixture, copula: Copula, params: Params
) -> Tensor:
    """Log of the joint density over the product of the present marginals, shape (..).

    Args:
        w: Shape (.., M, D).
        available: Bool, (.., M).
        mix: One mixture per modality, leading axis M.
        copula: The family.
        params: Its parameters.
    """
    terms, _ = _terms(w, available, mix, copula, params)
    alone = torch.where(available, log_prob(w, mix), 0.0).sum(-1)
    # With one modality the difference is 0 but for rounding.
    return torch.where(available.sum(-1) >= 2, torch.logsumexp(terms, -1) - alone, 0.0)


def component_draws(
    w: Tensor, available: Tensor, uniforms: Tensor, mix: Mixture, copula: Copula, params: Params
) -> Tensor:
    """Draw the absent modalities given the present ones, shape (n, .., M, D).

    A combination is picked by its posterior weight with the last uniform number of the first
    modality; inside it every coordinate is drawn through the copula. No gradient passes the pick.

    Args:
        w: Shape (.., M, D).
        available: Bool, (.., M).
        uniforms: Shape (n, .., M, D + 1).
        mix: One mixture per modality, leading axis M.
        copula: The family.
        params: Its parameters.
    """
    terms, (log_u, log_sf) = _terms(w, available, mix, copula, params)
    bounds = torch.cumsum(torch.softmax(terms.detach(), -1), -1)[..., :-1]
    chosen = (uniforms[..., :1, -1] > bounds).sum(-1)  # (n, ..)
    combinations = _combinations(w.shape[-2], mix.means.shape[-2], w.device)

    def at(x: Tensor) -> Tensor:
        """(.., K^M, M, D) to (n, .., M, D)."""
        x = x.expand(*chosen.shape, *x.shape[-3:])
        where = chosen[..., None, None, None].expand(*chosen.shape, 1, *x.shape[-2:])
        return torch.gather(x, -3, where).squeeze(-3)

    q = uniforms[..., :-1]
    drawn = copula.impute(
        at(log_u).mT, at(log_sf).mT, available.unsqueeze(-2), q.log().mT, (-q).log1p().mT, params
    )
    half = -math.log(2.0)
    there = available.unsqueeze(-1)
    z = normal_quantile(*(torch.where(there, half, x.mT) for x in drawn))
    means, stds = (at(_pick(x, combinations)) for x in (mix.means, mix.stds))
    return means + stds * z
