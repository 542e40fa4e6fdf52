"""The Frank copula."""

from __future__ import annotations

import functools
import math

import numpy as np
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
from .normal import complete, log1mexp
from .special import (
    LOG_ZERO,
    log1mexp_exp,
    log_expm1_ratio,
    log_log1p_over,
    log_neg_log,
    log_softplus,
    pair_from_log_hazard,
    pair_from_logit,
    softplus,
)

SMALLEST, LARGEST = 1e-3, 35.0  # tau 1e-4 .. 0.89
NEXT_TO_ZERO = 1e-30
LOG_2 = math.log(2.0)


class Frank(Archimedean):
    """Frank: C(u) = -log(1 - p prod((1 - e^(-theta u_i))/p))/theta, p = 1 - e^-theta.

    Domain: any theta for M = 2 (0 is independence, negative is negative dependence), theta >= 0
    for M >= 3. No tail dependence; radially symmetric for M = 2. The paper's printed density
    (appendix C.2) has the wrong sign.
    """

    name = "frank"
    _closed_below = True

    def natural(self, raw: Tensor, M: int) -> dict[str, Tensor]:
        """Theta in (-35, 35) for M <= 2 and in (1e-3, 35) above, from raw (..., 1)."""
        if M <= 2:
            return {"theta": LARGEST * torch.tanh(raw[..., 0] / LARGEST)}
        return {"theta": SMALLEST + bounded_softplus(raw[..., 0], LARGEST - SMALLEST)}

    def unconstrained(self, params: Params, M: int) -> Tensor:
        """See `Copula.unconstrained`."""
        theta = params["theta"]
        if M <= 2:
            return (LARGEST * torch.atanh(theta / LARGEST)).unsqueeze(-1)
        return inverse_bounded_softplus(theta - SMALLEST, LARGEST - SMALLEST).unsqueeze(-1)

    def _domain(self, M: int) -> tuple[float, float, str]:
        if M <= 2:
            return -math.inf, math.inf, "-inf < theta < inf"
        return 0.0, math.inf, "theta >= 0"

    def _log_density(
        self, log_u: Tensor, log_sf: Tensor, available: Tensor, theta: Tensor
    ) -> Tensor:
        if log_u.shape[-1] == 2:
            return _pair_log_density(log_u, log_sf, theta)
        n = available.sum(-1)
        theta = _positive(theta)
        log_x, log1m_x = _given_x((log_u, log_sf), available, theta)
        u_sum = torch.where(available, torch.exp(log_u), 0.0).sum(-1)
        powers = torch.exp(_orders(log_u.shape[-1], log_x) * log_x.unsqueeze(-1))
        polynomial = (_eulerian(log_u.shape[-1], n - 1, log_x) * powers).sum(-1)
        count = n.to(theta.dtype)
        return (
            -(count - 1.0) * log_expm1_ratio(-theta)
            - theta * u_sum
            + torch.log(polynomial)
            - count * log1m_x
        )

    def log_cdf(self, log_u: Tensor, log_sf: Tensor, params: Params) -> Tensor:
        """log C = log(-log(1 - x)/theta)."""
        theta = params["theta"].to(log_u.dtype)
        M = log_u.shape[-1]
        positive_theta = torch.where(theta > 0, theta, 1.0) if M == 2 else _positive(theta)
        every = torch.ones_like(log_u) > 0
        log_x, log1m_x = _given_x((log_u, log_sf), every, positive_theta)
        positive = log_neg_log(log1m_x, log_x) - torch.log(positive_theta)
        if M > 2:
            return positive
        # -log(1 + |theta| y)/(-|theta|), all terms positive
        other = torch.where(theta > 0, -1.0, theta)
        each = log_u + log_expm1_ratio(-other.unsqueeze(-1) * torch.exp(log_u))
        log_y = each.sum(-1) - log_expm1_ratio(-other)
        return torch.where(theta > 0, positive, log_log1p_over(-other, log_y))

    def _conditional_on(self, given: Pair, known: Tensor, theta: Tensor) -> Conditional:
        if given[0].shape[-1] == 1:
            return _conditional_on_one(given, known, theta)
        size = given[0].shape[-1] + 1
        n = known.sum(-1)
        theta = _positive(theta)
        log_x, log1m_x = _given_x(given, known, theta)
        log_count = torch.log(n.clamp(min=1).to(theta.dtype))

        def few(target: Pair) -> Pair:
            # h = q ((1 - x)/(1 - q x))^n for n <= 2; -log h is a sum of non-negative terms
            _, log1m_q, log_first = _shares(*target, theta)
            log_other = log_count + log_softplus(log_x + log1m_q - log1m_x)
            log_g = torch.logaddexp(log_first, log_other)
            return unless_unknown(n == 0, target, pair_from_log_hazard(log_g))

        if size <= 3:
            return few
        orders = _orders(size, log_x)
        coefficients = _eulerian(size, n - 1, log_x)
        terms = coefficients * torch.exp(orders * log_x.unsqueeze(-1))
        # sum_k a_k x^k (1 - q^k)/(1 - q) = x sum_i q^i sum_{k > i} a_k x^(k - 1), and a_1 > 0
        lowered = coefficients[..., 1:] * torch.exp(orders[:-1] * log_x.unsqueeze(-1))
        above = torch.ones_like(orders[1:] * orders[:-1, None]).triu().mT  # k > i
        higher = lowered @ above
        changes = n >= 3

        def h(target: Pair) -> Pair:
            # h = q A(q x)/A(x) ((1 - x)/(1 - q x))^n, A the Eulerian polynomial of order n - 1;
            # -log h is the sum of the three non-negative terms below
            log_q, log1m_q, log_first = _shares(*target, theta)
            q_powers = torch.exp(orders * log_q.unsqueeze(-1))
            difference = torch.where(changes, (q_powers[..., :-1] * higher).sum(-1), 1.0)
            log_r = log1m_q + log_x + torch.log(difference) - torch.log((terms * q_powers).sum(-1))
            log_r = torch.where(changes, log_r, 0.0)
            log_second = torch.where(changes, log_softplus(log_r), LOG_ZERO)
            log_third = log_count + log_softplus(log_x + log1m_q - log1m_x)
            log_g = torch.logsumexp(torch.stack([log_first, log_second, log_third], -1), -1)
            return unless_unknown(n == 0, target, pair_from_log_hazard(log_g))

        return h

    def _inverse(self, q: Pair, given: Pair, known: Tensor, theta: Tensor) -> Pair:
        if given[0].shape[-1] > 2:
            return super()._inverse(q, given, known, theta)
        if given[0].shape[-1] == 2:
            return _inverse_given_two(q, given, known, theta)
        # closed form for one given margin; a negative theta reflects it
        acting = torch.where(known[..., 0], theta, 0.0)
        size = torch.where(acting < 0, -acting, acting)
        u_given = torch.exp(torch.where(acting < 0, given[1][..., 0], given[0][..., 0]))
        a = q[1] - size * u_given
        below = torch.logaddexp(a, q[0] - size)
        log_u = log_log1p_over(size, log_expm1_ratio(-size) + q[0] - below)
        # 1 - u by the same formula from the other end, scaled by e^theta
        above = torch.logaddexp(a, q[0])
        log_sf = log_log1p_over(size, log_expm1_ratio(size) + a - above)
        # the larger of the two is only as good as its absolute error: take it from the smaller
        upper = log_u > log_sf
        return complete(torch.where(upper, log_sf, log_u), upper)

    def kendall_tau(self, params: Params) -> Tensor:
        """1 + 4 (D_1(theta) - 1)/theta with the first Debye function D_1 (Genest 1987)."""
        theta = params["theta"]
        size = torch.where(theta < 0, -theta, theta)
        # tau = 4/theta integral_0^1 k(theta s) ds, k(t) = t/2 coth(t/2) - 1, even
        nodes, weights = _unit_nodes()
        s = torch.as_tensor(nodes, dtype=theta.dtype, device=theta.device)
        w = torch.as_tensor(weights, dtype=theta.dtype, device=theta.device)
        far = size > 4.0
        near = 4.0 * (
            torch.where(far, 0.0, size).unsqueeze(-1)
            * s
            * _debye_kernel(torch.where(far, 0.0, size).unsqueeze(-1) * s)
            * s
            * w
        ).sum(-1)
        # integral_0^theta t/(e^t - 1) dt = pi^2/6 - the tail's series
        x = torch.where(far, size, 4.0)
        k = torch.arange(1, 12, dtype=theta.dtype, device=theta.device)
        tail = (torch.exp(-k * x.unsqueeze(-1)) * (x.unsqueeze(-1) / k + 1.0 / k.square())).sum(-1)
        debye = (math.pi**2 / 6.0 - tail) / x
        tau = torch.where(far, 1.0 + 4.0 * (debye - 1.0) / x, near)
        return torch.where(theta < 0, -tau, tau)

    def from_kendall_tau(self, tau: Tensor, M: int) -> dict[str, Tensor]:
        """Inverse of `kendall_tau` by bisection; the gradient is that of the implicit function."""
        goal = tau.detach()
        low = torch.full_like(goal, -16.0)
        high = -low
        for _ in range(60):
            middle = 0.5 * (low + high)
            above = self.kendall_tau({"theta": torch.sinh(middle)}) > goal
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        theta = torch.sinh(0.5 * (low + high))
        step = 1e-4 * (1.0 + theta.abs())
        slope = (
            self.kendall_tau({"theta": theta + step}) - self.kendall_tau({"theta": theta - step})
        ) / (2.0 * step)
        return {"theta": theta + (tau - goal) / slope}

    def tail_dependence(self, params: Params) -> tuple[Tensor, Tensor]:
        """None."""
        return torch.zeros_like(params["theta"]), torch.zeros_like(params["theta"])


def _pair_log_density(log_u: Tensor, log_sf: Tensor, theta: Tensor) -> Tensor:
    """Log density of two margins for any real theta.

    theta p e^(-theta (u + v)) / D^2 with D = e^(-theta u)(1 - e^(-theta (1 - u)))
    + e^(-theta v)(1 - e^(-theta u)), terms of one sign, each smooth at theta = 0 after division.
    """
    u, v = torch.exp(log_u).unbind(-1)
    sf = torch.exp(log_sf[..., 0])
    first = log_sf[..., 0] - theta * u + log_expm1_ratio(-theta * sf)
    second = log_u[..., 0] - theta * v + log_expm1_ratio(-theta * u)
    return log_expm1_ratio(-theta) - theta * (u + v) - 2.0 * torch.logaddexp(first, second)


def _conditional_on_one(given: Pair, known: Tensor, theta: Tensor) -> Conditional:
    """The conditional distribution given one margin, for any real theta, by its logit."""
    acting = torch.where(known[..., 0], theta, 0.0)  # nothing known: independence
    u_given = torch.exp(given[0][..., 0])

    def h(target: Pair) -> Pair:
        u, sf = torch.exp(target[0]), torch.exp(target[1])
        logit = target[0] - target[1] + acting * (u - u_given)
        logit = logit + log_expm1_ratio(-acting * u) - log_expm1_ratio(-acting * sf)
        return pair_from_logit(logit)

    return h


def _inverse_given_two(q: Pair, given: Pair, known: Tensor, theta: Tensor) -> Pair:
    """Closed form where at most two margins are given: h = s ((1 - x)/(1 - s x))^n for the share s.

    Linear in s for n = 1, a quadratic in its root y for n = 2; 1 - s from positive terms alone.
    """
    n = known.sum(-1)
    theta = _positive(theta)
    log_x, log1m_x = _given_x(given, known, theta)
    log_h, log1m_h = q
    # n = 1: s = h/((1 - x) + x h)
    log_whole = torch.logaddexp(log1m_x, log_x + log_h)
    one = log_h - log_whole, log1m_x + log1m_h - log_whole
    # n = 2: y = 2 r/((1 - x) + w), r^2 = h, w^2 = (1 - x)^2 + 4 x h
    log_r = 0.5 * log_h
    log_4xh = 2.0 * LOG_2 + log_x + log_h
    log_w = 0.5 * torch.logaddexp(2.0 * log1m_x, log_4xh)
    log_sum = torch.logaddexp(log1m_x, log_w)
    log_y = LOG_2 + log_r - log_sum
    # 1 - y = 2 (1 - h)(1 - x)(1 + a)/((1 + r)(w + 1 + x)((1 - x) + w))
    log_a = torch.logaddexp(log1m_x, log_4xh) - torch.logaddexp(log_w, LOG_2 + log_x + log_r)
    log1m_y = LOG_2 + log1m_h + log1m_x + softplus(log_a) - log_sum
    log1m_y = log1m_y - torch.log1p(torch.exp(log_r))
    log1m_y = log1m_y - torch.log1p(torch.exp(log_w) + torch.exp(log_x))
    two = 2.0 * log_y, log1m_y + torch.log1p(torch.exp(log_y))
    log_s, log1m_s = (torch.where(n == 2, b, a) for a, b in zip(one, two, strict=True))
    log_rest = torch.logaddexp(log1m_s, log_s - theta)  # 1 - p s
    log_u = log_log1p_over(theta, log_expm1_ratio(-theta) + log_s - log_rest)
    log_sf = log_log1p_over(theta, log_expm1_ratio(theta) + log1m_s)
    upper = log_u > log_sf
    return unless_unknown(n == 0, q, complete(torch.where(upper, log_sf, log_u), upper))


def _given_x(given: Pair, known: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
    """log x and log(1 - x) of the given margins."""
    _, _, log_minus_log_q = _shares(*given, theta.unsqueeze(-1))
    return _log_x(log_minus_log_q, known, theta)


def _positive(theta: Tensor) -> Tensor:
    """Theta with 0 replaced by the next best thing, and NaN below."""
    theta = torch.where(theta == 0, NEXT_TO_ZERO, theta)
    return torch.where(theta > 0, theta, math.nan)


def _shares(log_u: Tensor, log_sf: Tensor, theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """log q, log(1 - q) and log(-log q) for q = (1 - e^(-theta u))/p, theta > 0."""
    log_theta, log_p = torch.log(theta), log1mexp(theta)
    log1m_q = log1mexp_exp(log_theta + log_sf) - log_p - theta * torch.exp(log_u)
    large = log1m_q < math.log(0.5)
    log_q = torch.where(
        large,
        log1mexp(-torch.where(large, log1m_q, -1.0)),
        log1mexp_exp(log_theta + log_u) - log_p,
    )
    return log_q, log1m_q, log_neg_log(log_q, log1m_q)


def _log_x(log_minus_log_q: Tensor, known: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
    """log x and log(1 - x) for x = p prod q_i, from a sum of positive terms."""
    own = log_neg_log(log1mexp(theta), -theta)
    terms = torch.where(known, log_minus_log_q, LOG_ZERO)
    log_t = torch.logaddexp(own, torch.logsumexp(terms, -1))
    return -torch.exp(log_t), log1mexp_exp(log_t)


def _orders(size: int, like: Tensor) -> Tensor:
    return torch.arange(size, dtype=like.dtype, device=like.device)


def _eulerian(size: int, order: Tensor, like: Tensor) -> Tensor:
    """Coefficients (..., size) of A_n in Li_{-n}(x) = x A_n(x)/(1 - x)^(n + 1), A_0 = A_1 = 1."""
    table = np.zeros((size, size))
    table[0, 0] = 1.0
    for n in range(1, size):
        for k in range(n):
            table[n, k] = (k + 1) * table[n - 1, k] + ((n - k) * table[n - 1, k - 1] if k else 0)
    rows = torch.as_tensor(table, dtype=like.dtype, device=like.device)
    return rows[order.clamp(min=0)]


@functools.cache
def _unit_nodes() -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre nodes and weights on [0, 1]; the search for a theta asks for them often."""
    nodes, weights = np.polynomial.legendre.leggauss(20)
    return 0.5 * (nodes + 1.0), 0.5 * weights


def _debye_kernel(t: Tensor) -> Tensor:
    """(t/2 coth(t/2) - 1)/t^2, 1/12 at 0."""
    small = t < 0.5
    y = torch.where(small, t, 0.0).square()
    series = 1 / 12 + y * (
        -1 / 720
        + y
        * (
            1 / 30240
            + y * (-1 / 1209600 + y * (1 / 47900160 + y * (-691 / 1307674368000 + y / 74724249600)))
        )
    )
    far = torch.where(small, 1.0, t)
    return torch.where(small, series, (0.5 * far / torch.tanh(0.5 * far) - 1.0) / far.square())
