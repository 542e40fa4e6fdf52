"""The Gumbel copula."""

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
from .special import (
    LOG_ZERO,
    log1p_scaled,
    log_expm1_ratio,
    log_neg_log,
    log_softplus,
    masked_logsumexp,
    pair_from_log_hazard,
)

LARGEST = 20.0  # tau 0.95


class Gumbel(Archimedean):
    """Gumbel: C(u) = exp(-(sum (-log u_i)^theta)^(1/theta)), upper tail dependence.

    Domain: theta >= 1, 1 is independence; positive dependence only. The paper's printed trivariate
    density (appendix C.2) is off by theta^-6.

    With l_i = -log u_i, s = (sum l_i^theta)^(1/theta) and delta = theta - 1 the n-variate density
    is e^-s prod(l_i^delta / u_i) s^(-n theta) sum_k b_{n,k} s^k, where b_{1,1} = 1 and b_{n+1,k} =
    b_{n,k-1} + (n delta + n - k) b_{n,k}. All terms are non-negative, and those with k < n carry a
    factor delta, which is taken out so that theta = 1 has a value and a one-sided gradient.
    """

    name = "gumbel"
    _closed_below = True

    def natural(self, raw: Tensor, M: int) -> dict[str, Tensor]:
        """Theta in (1, 20), from raw (..., 1)."""
        return {"theta": 1.0 + bounded_softplus(raw[..., 0], LARGEST - 1.0)}

    def unconstrained(self, params: Params, M: int) -> Tensor:
        """See `Copula.unconstrained`; theta in (1, 20)."""
        return inverse_bounded_softplus(params["theta"] - 1.0, LARGEST - 1.0).unsqueeze(-1)

    def _domain(self, M: int) -> tuple[float, float, str]:
        return 1.0, math.inf, "theta >= 1"

    def _log_density(
        self, log_u: Tensor, log_sf: Tensor, available: Tensor, theta: Tensor
    ) -> Tensor:
        delta = theta - 1.0
        log_l = log_neg_log(log_u, log_sf)
        log_s = masked_logsumexp(theta.unsqueeze(-1) * log_l, available) / theta
        n = available.sum(-1)
        log_w, _ = _lower_orders(n, delta, log_s, log_u.shape[-1])
        each = delta.unsqueeze(-1) * (log_l - log_s.unsqueeze(-1)) - log_u
        return (
            torch.where(available, each, 0.0).sum(-1)
            - torch.exp(log_s)
            + torch.where(n >= 2, log1p_scaled(delta, log_w), 0.0)
        )

    def log_cdf(self, log_u: Tensor, log_sf: Tensor, params: Params) -> Tensor:
        """log C = -s."""
        theta = params["theta"].to(log_u.dtype)
        log_l = log_neg_log(log_u, log_sf)
        return -torch.exp(torch.logsumexp(theta.unsqueeze(-1) * log_l, -1) / theta)

    def _conditional_on(self, given: Pair, known: Tensor, theta: Tensor) -> Conditional:
        size = given[0].shape[-1] + 1
        delta = theta - 1.0
        n = known.sum(-1)
        log_t = masked_logsumexp(theta.unsqueeze(-1) * log_neg_log(*given), known)
        log_t = torch.where(n == 0, 0.0, log_t)
        log_s = log_t / theta
        # h = exp(-s expm1(growth/theta)) sum_k w_k exp(-e_k growth), growth of log t
        log_w, log_share = _lower_orders(n, delta, log_s, size)
        top = -log1p_scaled(delta, log_w)  # log w_n
        k = torch.arange(1, size, dtype=theta.dtype, device=theta.device)
        count = n.to(theta.dtype).unsqueeze(-1)
        rate = (count * (delta.unsqueeze(-1) + 1.0) - k) / theta.unsqueeze(-1)
        rate = torch.where(k < count, rate, 0.0)
        low = torch.where(n >= 2, -torch.expm1(top), 0.0)  # sum of w_k, k < n
        # the top order in front of the others
        weights = torch.cat(
            [torch.exp(top).unsqueeze(-1), low.unsqueeze(-1) * torch.exp(log_share)], -1
        )
        log_weights = torch.cat([top.unsqueeze(-1), _safe_log(low).unsqueeze(-1) + log_share], -1)
        rates = torch.cat([(count[..., 0] * delta / theta).unsqueeze(-1), rate], -1)

        def h(target: Pair) -> Pair:
            log_growth = log_softplus(theta * log_neg_log(*target) - log_t)
            growth = torch.exp(log_growth)
            first = log_s - torch.log(theta) + log_expm1_ratio(growth / theta)
            # -log(sum)/growth, from 1 - sum where that is small
            exponents = rates * growth.unsqueeze(-1)
            loss = (weights * rates * torch.exp(log_expm1_ratio(-exponents))).sum(-1)
            remainder = loss * growth
            near, tiny = remainder < 0.5, remainder < 1e-8
            decay = -torch.log1p(-torch.where(near, remainder, 0.0))
            near_decay = decay / torch.where(tiny, 1.0, growth)
            near_decay = torch.where(tiny, loss * (1.0 + 0.5 * remainder), near_decay)
            far_decay = -torch.logsumexp(log_weights - exponents, -1)
            far_decay = far_decay / torch.where(near, 1.0, growth)
            second = torch.where(near, near_decay, far_decay)
            # not clamp(min=0), whose gradient is 0 at 0: that is theta = 1
            second = torch.where(second < 0, 0.0, second)
            log_g = log_growth + first + log1p_scaled(second, -first)
            return unless_unknown(n == 0, target, pair_from_log_hazard(log_g))

        return h

    def _inverse(self, q: Pair, given: Pair, known: Tensor, theta: Tensor) -> Pair:
        if given[0].shape[-1] > 1:
            return super()._inverse(q, given, known, theta)
        # one given margin: s expm1(v) + delta v = -log q with v = growth/theta. On the log-log
        # scale the left side is convex and increasing, so Newton from above is monotone; where
        # either term alone would reach the goal lies at most log 2 above.
        delta = theta - 1.0
        log_s = log_neg_log(given[0][..., 0], given[1][..., 0])
        log_goal = log_neg_log(*q)
        s, goal, excess = log_s.detach(), log_goal.detach(), delta.detach()
        bound = torch.where(excess > 0, goal - _safe_log(excess), math.inf)
        log_v = torch.minimum(log_softplus(goal - s), bound)
        for step in range(8):
            if step == 7:
                s, goal, excess = log_s, log_goal, delta
            v = torch.exp(log_v)
            first = s + log_v + log_expm1_ratio(v)
            rest = log1p_scaled(excess, log_v - first)
            share = torch.exp(-rest.detach())
            slope = share * torch.exp(-log_expm1_ratio(-v)) + (1.0 - share)
            log_v = log_v - (first + rest - goal) / slope
        log_l = (
            log_s + (log_v + torch.log(theta) + log_expm1_ratio(theta * torch.exp(log_v))) / theta
        )
        draw = pair_from_log_hazard(log_l)
        return unless_unknown(~known[..., 0], q, draw)

    def kendall_tau(self, params: Params) -> Tensor:
        """1 - 1/theta."""
        return (params["theta"] - 1.0) / params["theta"]

    def from_kendall_tau(self, tau: Tensor, M: int) -> dict[str, Tensor]:
        """1 / (1 - tau)."""
        return {"theta": 1.0 / (1.0 - tau)}

    def tail_dependence(self, params: Params) -> tuple[Tensor, Tensor]:
        """None below; 2 - 2^(1/theta) above."""
        theta = params["theta"]
        return torch.zeros_like(theta), 2.0 - torch.exp2(1.0 / theta)


def _safe_log(x: Tensor) -> Tensor:
    positive = x > 0
    return torch.where(positive, torch.log(torch.where(positive, x, 1.0)), LOG_ZERO)


def _lower_orders(n: Tensor, delta: Tensor, log_s: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The orders k < n of sum_k b_{n,k} s^k relative to the top one, divided by delta.

    Returns:
        log of their sum, (...), and their normalised logs, (..., size - 1), for k = 1..size - 1.
    """
    # d_{n,k} = b_{n,k}/delta for k < n; a row per n
    zero = torch.zeros_like(delta)
    row: list[Tensor] = []
    rows = [[zero] * (size - 1)]
    for m in range(1, size):
        row = [
            (row[k - 2] if k >= 2 else zero) + (m * delta + (m - k)) * row[k - 1]
            for k in range(1, m)
        ] + [(row[m - 2] if m >= 2 else zero) + m]
        rows.append(row + [zero] * (size - 1 - m))
    table = torch.stack([torch.stack(r, -1) for r in rows], -2)  # (..., size, size - 1)
    chosen = torch.arange(1, size + 1, device=n.device) == n.unsqueeze(-1)
    coefficients = torch.where(chosen.unsqueeze(-1), table, 0.0).sum(-2)
    k = torch.arange(1, size, dtype=delta.dtype, device=delta.device)
    lower = k < n.unsqueeze(-1)
    power = (k - n.unsqueeze(-1)) * log_s.unsqueeze(-1)
    logs = torch.where(lower, _safe_log(coefficients) + power, LOG_ZERO)
    total = torch.logsumexp(logs, -1)
    return total, logs - total.unsqueeze(-1)
