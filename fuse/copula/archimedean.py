"""What the Archimedean families share: exchangeable, one number theta, closed under margins.

C(u) = psi(sum phi(u_i)) with psi = phi^-1. The density of n margins is
(-1)^n psi^(n)(t) prod(-phi'(u_i)), the conditional distribution of one margin given m others
psi^(m)(t + phi(u)) / psi^(m)(t), t the sum over the given ones (Joe 2014, section 3.2). Both
depend on the given margins through t and their number alone, so an absent margin adds nothing
to t and rows with different patterns go through the same arithmetic.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ...errors import ConfigError
from ..readable import readable
from .family import Copula, Params, checked_margins, need
from .special import broadcast, broadcast_shape, pair_from_logit, softplus

Pair = tuple[Tensor, Tensor]
Conditional = Callable[[Pair], Pair]
LOG_HALF = -math.log(2.0)
EDGE = 15.0
SECANTS = 14
NEAR = 1e-4


class Archimedean(Copula):
    """Base of the exchangeable one-parameter families; params {"theta": (...)}."""

    def raw_size(self, M: int) -> int:
        """One number, whatever M."""
        return 1

    def log_density(
        self, log_u: Tensor, log_sf: Tensor, params: Params, available: Tensor | None = None
    ) -> Tensor:
        """See `Copula.log_density`; an absent margin has phi(u) = 0."""
        theta = params["theta"].to(log_u.dtype)
        if available is None:
            available = torch.ones(log_u.shape[-1], dtype=torch.bool, device=log_u.device)
        log_u, log_sf = _mask(log_u, log_sf, available)
        if log_u.shape[-1] < 2:
            return torch.zeros_like(log_u[..., 0] + theta)
        density = self._log_density(log_u, log_sf, available, theta)
        return torch.where(available.sum(-1) >= 2, density, 0.0)

    def conditional(self, log_u: Tensor, log_sf: Tensor, params: Params) -> Pair:
        """See `Copula.conditional`."""
        M = log_u.shape[-1]
        theta = params["theta"].to(log_u.dtype).unsqueeze(-1)
        earlier = torch.ones(M - 1, M - 1, dtype=torch.bool, device=log_u.device).tril()
        given = log_u[..., :-1].unsqueeze(-2), log_sf[..., :-1].unsqueeze(-2)  # (..., 1, M - 1)
        target = log_u[..., 1:], log_sf[..., 1:]
        return self._conditional_on(_mask(*given, earlier), earlier, theta)(target)

    def conditional_inverse(
        self, log_q: Tensor, log1m_q: Tensor, log_u: Tensor, log_sf: Tensor, params: Params
    ) -> Pair:
        """See `Copula.conditional_inverse`."""
        theta = params["theta"].to(log_u.dtype)
        present = torch.ones(log_u.shape[-1], dtype=torch.bool, device=log_u.device)
        return self._inverse((log_q, log1m_q), (log_u, log_sf), present, theta)

    def impute(
        self,
        log_u: Tensor,
        log_sf: Tensor,
        available: Tensor,
        log_q: Tensor,
        log1m_q: Tensor,
        params: Params,
    ) -> Pair:
        """See `Copula.impute`; one step per margin, all rows at once.

        A margin that all rows have is not solved for, one that no row has is not conditioned on.
        """
        M = log_u.shape[-1]
        every, some = _shared(available)
        theta = params["theta"].to(log_u.dtype)
        if M == 1:
            return torch.where(available, log_u, log_q), torch.where(available, log_sf, log1m_q)
        clean = _mask(log_u, log_sf, available)
        lower, upper = list(clean[0].unbind(-1)), list(clean[1].unbind(-1))
        for j in range(M):
            if every[j]:
                continue
            others = [i for i in range(M) if i != j and (some[i] or i < j)]
            if not others:
                lower[j], upper[j] = log_q[..., j], log1m_q[..., j]
                continue
            known = torch.stack(
                [available[..., i] | torch.full_like(available[..., i], i < j) for i in others], -1
            )
            given = _stack([lower[i] for i in others]), _stack([upper[i] for i in others])
            q = log_q[..., j], log1m_q[..., j]
            draw = self._inverse(q, _mask(*given, known), known, theta)
            present = available[..., j]
            lower[j] = torch.where(present, lower[j], draw[0])
            upper[j] = torch.where(present, upper[j], draw[1])
        return _stack(lower), _stack(upper)

    def marginal(self, params: Params, keep: Sequence[int]) -> dict[str, Tensor]:
        """The same theta: any sub-set of margins has the copula of the same generator."""
        checked_margins(keep)
        return dict(params)

    def validate(self, params: Params, M: int) -> None:
        """See `Copula.validate`."""
        need(params, ["theta"], self.name)
        lowest, highest, meaning = self._domain(M)
        theta = params["theta"]
        inside = (theta > lowest) if not self._closed_below else (theta >= lowest)
        if not bool((inside & (theta < highest)).all()):
            raise ConfigError(
                f"theta of the {self.name} copula with M = {M} must satisfy {meaning}, found "
                f"{theta.min().item():g} to {theta.max().item():g}"
            )

    _closed_below = False

    @abstractmethod
    def _domain(self, M: int) -> tuple[float, float, str]:
        """Lowest and highest theta, and the condition in words."""

    @abstractmethod
    def _log_density(
        self, log_u: Tensor, log_sf: Tensor, available: Tensor, theta: Tensor
    ) -> Tensor:
        """Log density over the available margins; rows with fewer than two are not used."""

    @abstractmethod
    def _conditional_on(self, given: Pair, known: Tensor, theta: Tensor) -> Conditional:
        """The function u -> P(U <= u | the known ones of the given margins); u where none is."""

    def _inverse(self, q: Pair, given: Pair, known: Tensor, theta: Tensor) -> Pair:
        """Solve P(U <= u | given) = q for u.

        A search, then Newton steps on the logit scale. Only the last one is differentiable: its
        derivatives are those of the implicit function (1 / slope to q, -dh / slope to all else).
        """
        wanted = q[0] - q[1]
        goal, fixed_theta = wanted.detach(), theta.detach()
        fixed_given = given[0].detach(), given[1].detach()
        fixed = self._conditional_on(fixed_given, known, fixed_theta)
        shape = broadcast_shape(goal.shape, given[0].shape[:-1], theta.shape, known.shape[:-1])
        logit = torch.sinh(_search(fixed, goal.expand(shape)))
        for step in range(2):
            target = pair_from_logit(logit)
            h = fixed(target)
            slope = self._logit_slope(target, h, fixed_given, known, fixed_theta)
            if step == 1:
                h, goal = self._conditional_on(given, known, theta)(target), wanted
            logit = logit - (h[0] - h[1] - goal) / slope
        return pair_from_logit(logit)

    def _logit_slope(
        self, target: Pair, h: Pair, given: Pair, known: Tensor, theta: Tensor
    ) -> Tensor:
        """d logit h / d logit u = c(u | given) u (1 - u) / (h (1 - h))."""
        shape = (*h[0].shape, 1)
        own = [
            torch.cat([x.expand(shape[:-1] + x.shape[-1:]), t.expand(shape[:-1]).unsqueeze(-1)], -1)
            for x, t in zip(given, target, strict=True)
        ]
        present = torch.cat(
            [known.expand(shape[:-1] + known.shape[-1:]), torch.ones_like(own[0][..., -1:]) > 0], -1
        )
        params = {"theta": theta}
        joint = self.log_density(own[0], own[1], params, present)
        margin = self.log_density(given[0], given[1], params, known)
        # the true slope is far inside e^-30..e^30; rounding need not be, beyond 100 sigma
        return torch.exp((joint - margin + target[0] + target[1] - h[0] - h[1]).clamp(-30.0, 30.0))


def _search(conditional: Conditional, goal: Tensor) -> Tensor:
    """arcsinh(logit u) where logit h(u) is the goal, well enough for Newton to end.

    On that scale [-15, 15] spans u from e^-1.6e6 to 1 - e^-1.6e6, and h is nearly straight: a
    false position (Anderson and Bjorck 1973) settles nearly all; the others are bisected.
    """

    def value(place: Tensor) -> Tensor:
        h = conditional(pair_from_logit(torch.sinh(place)))
        return h[0] - h[1]

    high = torch.full_like(goal, EDGE)
    low, aim = -high, torch.asinh(goal)
    place = aim.clamp(-EDGE, EDGE)
    found = value(place)
    if not readable(found):
        return _bisect(value, goal)
    at_low, at_high = low - aim, high - aim  # of a straight line; only their sign is sure
    before: Tensor | None = None
    settled = torch.zeros_like(goal, dtype=torch.bool)
    for _ in range(SECANTS):
        off = torch.asinh(found) - aim
        above = off > 0
        # An end that stays weighs less, or it would stay for ever.
        less = 1.0 - off / torch.where(above, at_high, at_low)
        less = torch.where(less > 0, less, 0.5)
        other = torch.where(above, at_low, at_high)
        other = other if before is None else torch.where(above == before, other * less, other)
        low, high = torch.where(above, low, place), torch.where(above, place, high)
        at_low, at_high = torch.where(above, other, off), torch.where(above, off, other)
        new = low - at_low * (high - low) / (at_high - at_low)
        # A settled place rests: how many steps the others need must not change its last digit.
        close = (off.abs() <= NEAR) & ((new - place).abs() <= NEAR)
        place, before = torch.where(settled, place, new), above
        settled = settled | close
        if settled.all():
            return place
        found = value(place)
    return torch.where(settled, place, _bisect(value, goal))


def _bisect(value: Callable[[Tensor], Tensor], goal: Tensor) -> Tensor:
    high = torch.full_like(goal, EDGE)
    low = -high
    for _ in range(26 if goal.dtype == torch.float64 else 18):
        middle = 0.5 * (low + high)
        above = value(middle) > goal
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return 0.5 * (low + high)


def _shared(available: Tensor) -> tuple[list[bool], list[bool]]:
    """Which margins every row has, and which some row has; unknown under torch.func."""
    M = available.shape[-1]
    if not readable(available):
        return [False] * M, [True] * M
    rows = available.reshape(-1, M)
    return rows.all(0).tolist(), rows.any(0).tolist()


def _mask(log_u: Tensor, log_sf: Tensor, available: Tensor) -> Pair:
    """Put u = 1/2 where a margin is absent, so that what stands there cannot matter."""
    return torch.where(available, log_u, LOG_HALF), torch.where(available, log_sf, LOG_HALF)


def unless_unknown(nothing: Tensor, unchanged: Pair, pair: Pair) -> Pair:
    """`pair`, or `unchanged` where no margin is known to condition on."""
    return torch.where(nothing, unchanged[0], pair[0]), torch.where(nothing, unchanged[1], pair[1])


def _stack(margins: list[Tensor]) -> Tensor:
    return torch.stack(broadcast(*margins), -1)


def bounded_softplus(raw: Tensor, span: float) -> Tensor:
    """softplus(raw) for small values, saturating smoothly at `span`."""
    return span * torch.tanh(softplus(raw) / span)


def inverse_bounded_softplus(value: Tensor, span: float) -> Tensor:
    """Inverse of `bounded_softplus`, for 0 < value < span."""
    x = span * torch.atanh(value / span)
    return x + torch.log(-torch.expm1(-x))
