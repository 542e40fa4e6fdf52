"""The Clayton copula."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .archimedean import (
    Archimedean,
    Conditional,
    Pair,
    bounded_softplus,
    inverse_bounded_softplus,
    unless_unknown,
)
from .family import Params
from .normal import log1mexp
from .special import (
    expm1_second,
    log1p_second,
    log_expm1_ratio,
    log_log1p_over,
    log_neg_log,
    masked_logsumexp,
    minus_log,
    pair_from_log_hazard,
    softplus,
)

SMALLEST, LARGEST = 1e-4, 38.0  # tau 5e-5 .. 0.95
CLOSE = 0.25  # theta times -log u up to which independence is close


class Clayton(Archimedean):
    """Clayton: C(u) = (1 - M + sum u_i^-theta)^(-1/theta), lower tail dependence.

    Domain: theta > -1/(M - 1); 0 is independence, negative values have the density -inf outside
    the support sum u_i^-theta > M - 1. `natural` stays in (1e-4, 38): negative dependence has no
    gradient outside its support and is meant for evaluation; swap log_u and log_sf of a margin to
    train on negative dependence of a pair.

    All formulas are written in a_i = (exp(theta l_i) - 1)/theta with l_i = -log u_i, which tends to
    l_i as theta tends to 0, so no limit needs a case of its own (Joe 2014, section 4.6).
    """

    name = "clayton"

    def natural(self, raw: Tensor, M: int) -> dict[str, Tensor]:
        """Theta in (1e-4, 38), from raw (..., 1)."""
        return {"theta": SMALLEST + bounded_softplus(raw[..., 0], LARGEST - SMALLEST)}

    def unconstrained(self, params: Params, M: int) -> Tensor:
        """See `Copula.unconstrained`; theta in (1e-4, 38)."""
        return inverse_bounded_softplus(params["theta"] - SMALLEST, LARGEST - SMALLEST).unsqueeze(
            -1
        )

    def _domain(self, M: int) -> tuple[float, float, str]:
        lowest = -1.0 / max(M - 1, 1)
        return lowest, math.inf, f"{lowest:.4g} < theta < inf"

    def _log_density(
        self, log_u: Tensor, log_sf: Tensor, available: Tensor, theta: Tensor
    ) -> Tensor:
        length = torch.where(available, minus_log(log_u, log_sf), 0.0)
        n = available.sum(-1).to(log_u.dtype)
        k = torch.arange(log_u.shape[-1], device=log_u.device, dtype=log_u.dtype)
        used = k < n.unsqueeze(-1)
        constant = torch.log1p(torch.where(used, k * theta.unsqueeze(-1), 0.0)).sum(-1)
        y = theta.unsqueeze(-1) * length
        log_s, inside = _log_s(y)
        total = length.sum(-1)
        # total - log(S)/theta vanishes with theta; close to 0 by a form that does not cancel
        close = y.abs().amax(-1) < CLOSE
        z = torch.where(close.unsqueeze(-1), y, 0.0)
        second = expm1_second(z)
        a = torch.where(close, (length * (1.0 + z * second)).sum(-1), 0.0)
        excess = theta * (a.square() * log1p_second(theta * a) - (length.square() * second).sum(-1))
        direct = total - log_s / torch.where(close, 1.0, theta)
        density = constant + torch.where(close, excess, direct) + theta * total - n * log_s
        return torch.where(inside, density, -math.inf)

    def log_cdf(self, log_u: Tensor, log_sf: Tensor, params: Params) -> Tensor:
        """log C = -log(S)/theta, -inf outside the support."""
        theta = params["theta"].to(log_u.dtype)
        everything = torch.ones(log_u.shape[-1], dtype=torch.bool, device=log_u.device)
        log_a, _ = _log_sums(log_u, log_sf, everything, theta)
        return -torch.exp(log_log1p_over(theta, log_a))

    def _conditional_on(self, given: Pair, known: Tensor, theta: Tensor) -> Conditional:
        n = known.sum(-1).to(theta.dtype)
        _, log_s = _log_sums(*given, known, theta)

        def h(target: Pair) -> Pair:
            log_a = log_neg_log(*target) + log_expm1_ratio(theta * minus_log(*target))
            # h = (S_with / S_without)^-(1/theta + n), written as exp(-g)
            log_g = torch.log1p(n * theta) + log_log1p_over(theta, log_a - log_s)
            return unless_unknown(n == 0, target, pair_from_log_hazard(log_g))

        return h

    def _inverse(self, q: Pair, given: Pair, known: Tensor, theta: Tensor) -> Pair:
        n = known.sum(-1).to(theta.dtype)
        _, log_s = _log_sums(*given, known, theta)
        log_b = log_neg_log(*q) - torch.log1p(n * theta)
        b = -q[0] / (1.0 + n * theta)
        log_l = log_log1p_over(theta, log_s + log_b + log_expm1_ratio(theta * b))
        return pair_from_log_hazard(log_l)

    def kendall_tau(self, params: Params) -> Tensor:
        """theta / (theta + 2)."""
        return params["theta"] / (params["theta"] + 2.0)

    def from_kendall_tau(self, tau: Tensor, M: int) -> dict[str, Tensor]:
        """2 tau / (1 - tau)."""
        return {"theta": 2.0 * tau / (1.0 - tau)}

    def tail_dependence(self, params: Params) -> tuple[Tensor, Tensor]:
        """2^(-1/theta) below for theta > 0, else 0; none above."""
        theta = params["theta"]
        positive = theta > 0
        lower = torch.exp2(-1.0 / torch.where(positive, theta, 1.0))
        return torch.where(positive, lower, 0.0), torch.zeros_like(theta)


def _log_s(y: Tensor) -> tuple[Tensor, Tensor]:
    """log S = log(1 + sum expm1(y)), with y = 0 where absent, and whether S > 0."""
    top = y.amax(-1)
    moderate = top < 1.0
    excess = torch.expm1(torch.where(moderate.unsqueeze(-1), y, 0.0)).sum(-1)
    inside = excess > -1.0
    near = torch.log1p(torch.where(inside, excess, 0.0))
    # = exp(-top) (M + sum expm1(y)); take M - 1 off again
    top = torch.where(moderate, 1.0, top)
    scaled = torch.exp(torch.where(moderate.unsqueeze(-1), 0.0, y) - top.unsqueeze(-1)).sum(-1)
    rest = scaled - (y.shape[-1] - 1) * torch.exp(-top)
    far = top + torch.log(torch.where(moderate, 1.0, rest))
    return torch.where(moderate, near, far), inside


def _log_sums(
    log_u: Tensor, log_sf: Tensor, available: Tensor, theta: Tensor
) -> tuple[Tensor, Tensor]:
    """log sum a_i and log S = log(1 + theta sum a_i) = log(1 - n + sum u_i^-theta).

    log S is -inf outside the support of a negative theta.
    """
    log_l = log_neg_log(log_u, log_sf)
    ratio = log_expm1_ratio(theta.unsqueeze(-1) * -log_u)
    log_a = masked_logsumexp(log_l + ratio, available)
    zero = theta == 0
    log_y = torch.where(zero, -50.0, torch.log(torch.where(zero, 1.0, theta).abs()) + log_a)
    positive = softplus(log_y)
    inside = log_y < 0
    negative = torch.where(inside, log1mexp(-torch.where(inside, log_y, -1.0)), -math.inf)
    log_s = torch.where(theta > 0, positive, negative)
    return log_a, torch.where(zero, theta * torch.exp(torch.where(zero, log_a, 0.0)), log_s)
