"""Elementary functions that keep value and gradient where the textbook form loses them.

A probability travels as the pair (log u, log(1 - u)). Every branch below is guarded by the
"double where": the branch that is not taken sees a harmless argument, else autograd would
multiply its infinite derivative by zero and return NaN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .normal import Entrywise, log1mexp

# Stands for log 0 where -inf would poison a gradient; exp() of it is 0 in float32 and float64.
LOG_ZERO = -1e30


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)) to full precision (torch's own is cut off above 20)."""
    return torch.logaddexp(x, torch.zeros_like(x))


def pair_from_logit(logit: Tensor) -> tuple[Tensor, Tensor]:
    """(log u, log(1 - u)) from logit u."""
    return -softplus(-logit), -softplus(logit)


def log1mexp_exp(y: Tensor) -> Tensor:
    """log(1 - exp(-exp(y))), that is log(1 - h) from y = log(-log h), for any real y."""
    tiny = y < -18.0
    # above 7 the result is 0 in either precision
    direct = log1mexp(torch.exp(torch.where(tiny, 0.0, y).clamp(max=7.0)))
    return torch.where(tiny, y - 0.5 * torch.exp(y.clamp(max=0.0)), direct)


def pair_from_log_hazard(y: Tensor) -> tuple[Tensor, Tensor]:
    """(log h, log(1 - h)) from y = log(-log h); y = inf is h = 0."""
    return -torch.exp(y), log1mexp_exp(y)


def log_neg_log(log_u: Tensor, log_sf: Tensor) -> Tensor:
    """log(-log u) from the pair, accurate for u next to 0 and next to 1."""
    near_one = log_sf < -17.0
    small = log_u < -math.log(2.0)
    middle = torch.where(near_one | small, -1.0, log_sf)
    from_sf = torch.log(-torch.log1p(-torch.exp(middle)))
    result = torch.where(small, torch.log(-torch.where(small, log_u, -1.0)), from_sf)
    return torch.where(near_one, log_sf + 0.5 * torch.exp(log_sf), result)


def minus_log(log_u: Tensor, log_sf: Tensor) -> Tensor:
    """-log u, read from log(1 - u) where u is next to 1."""
    near_one = log_sf < -17.0
    sf = torch.exp(torch.where(near_one, log_sf, 0.0))
    return torch.where(near_one, sf * (1.0 + 0.5 * sf), -log_u)


def log_softplus(x: Tensor) -> Tensor:
    """log(log(1 + exp(x)))."""
    tiny = x < -18.0
    direct = torch.log(softplus(torch.where(tiny, 0.0, x)))
    return torch.where(tiny, x - 0.5 * torch.exp(x.clamp(max=0.0)), direct)


def _polynomial(x: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    """Horner's scheme, lowest order first."""
    result = coefficients[-1] * x
    for c in reversed(coefficients[1:-1]):
        result = (result + c) * x
    return result + coefficients[0]


# log(sinh h / h) = h^2 (1/6 - h^2/180 + ...)
_LOG_SINHC = (1 / 6, -1 / 180, 1 / 2835, -1 / 37800, 1 / 467775, -691 / 3831077250, 2 / 127702575)
_ATANH = tuple(1.0 / (2 * k + 3) for k in range(9))
_EXPM1_SECOND = tuple(1.0 / math.factorial(k + 2) for k in range(11))
_EXPM1_SECOND_SLOPE = tuple((k + 1.0) / math.factorial(k + 3) for k in range(11))


# its derivative, 1/2 + y (1/12 - y^2/720 + ...)
_RATIO_SLOPE = (1 / 12, -1 / 720, 1 / 30240, -1 / 1209600, 1 / 47900160, -691 / 1307674368000)


class _LogExpm1Ratio(Entrywise):
    @staticmethod
    def forward(y: Tensor) -> Tensor:
        half = torch.clamp(0.5 * y, -0.25, 0.25)
        square = half.square()
        series = _polynomial(square, _LOG_SINHC).mul_(square).add_(half)
        size = y.abs().clamp_min(0.5)
        direct = torch.expm1(-size).neg_().div_(size).log_().add_(y.clamp_min(0.0))
        return torch.where(y.abs() < 0.5, series, direct)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        small = y.abs() < 0.5
        near = torch.where(small, y, 0.0)
        far = torch.where(small, 1.0, y)
        series = 0.5 + near * _polynomial(near.square(), _RATIO_SLOPE)
        return grad * torch.where(small, series, -1.0 / torch.expm1(-far) - 1.0 / far)


def log_expm1_ratio(y: Tensor) -> Tensor:
    """log((exp(y) - 1) / y) for any real y; y/2 + y^2/24 - ... about 0."""
    value: Tensor = _LogExpm1Ratio.apply(y)
    return value


class _Expm1Second(Entrywise):
    @staticmethod
    def forward(y: Tensor) -> Tensor:
        series = _polynomial(y.clamp(-0.3, 0.3), _EXPM1_SECOND)
        small = y.abs() < 0.3
        far = torch.where(small, 1.0, y)
        return torch.where(small, series, torch.expm1(far).sub_(far).div_(far.square()))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0], output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        y, value = ctx.saved_tensors
        small = y.abs() < 0.3
        far = torch.where(small, 1.0, y)
        series = _polynomial(torch.where(small, y, 0.0), _EXPM1_SECOND_SLOPE)
        direct = (torch.expm1(far) / far - 2.0 * value) / far
        return grad * torch.where(small, series, direct)


def expm1_second(y: Tensor) -> Tensor:
    """(exp(y) - 1 - y) / y^2, 1/2 at 0; y below about 80 (float32) or 700."""
    value: Tensor = _Expm1Second.apply(y)
    return value


def _log1p_reduced(y: Tensor) -> tuple[Tensor, Tensor]:
    """s = y / (2 + y) and (atanh(s)/s - 1)/s^2, the pieces of log(1 + y) = 2 atanh(s)."""
    s = y / (2.0 + y)
    return s, _polynomial(s.square(), _ATANH)


def log1p_second(y: Tensor) -> Tensor:
    """(y - log(1 + y)) / y^2 for y > -1, 1/2 at 0."""
    small = y.abs() < 0.25
    s, rest = _log1p_reduced(torch.where(small, y, 0.0))
    series = 0.5 * (1.0 - s).square() * (1.0 / (1.0 - s) - s * rest)
    far = torch.where(small, 1.0, y)
    return torch.where(small, series, (far - torch.log1p(far)) / far.square())


def log_log1p_over(theta: Tensor, log_x: Tensor) -> Tensor:
    """log(log(1 + theta x) / theta) from log x: smooth through theta = 0, where it is log x.

    Inverse of `log_x + log_expm1_ratio(theta * x)`. For 1 + theta x <= 0 the value is inf.
    """
    zero = theta == 0
    log_size = torch.log(torch.where(zero, 1.0, theta).abs())
    log_y = torch.where(zero, LOG_ZERO, log_size + log_x)
    small = log_y < math.log(0.25)
    x = torch.exp(torch.where(zero, log_x.clamp(max=80.0), torch.where(small, log_x, 0.0)))
    y = torch.where(small, theta * x, 0.0)
    s, rest = _log1p_reduced(y)
    near_zero = log_x - torch.log1p(0.5 * y) + torch.log1p(s.square() * rest)
    positive = log_softplus(torch.where(small, 0.0, log_y)) - log_size
    # theta < 0: -log(1 - |theta| x) / |theta|
    inside = ~small & (log_y < 0)
    negative = torch.log(-log1mexp(-torch.where(inside, log_y, -1.0))) - log_size
    negative = torch.where(log_y < 0, negative, math.inf)
    return torch.where(small, near_zero, torch.where(theta > 0, positive, negative))


def log1p_scaled(x: Tensor, log_scale: Tensor) -> Tensor:
    """log(1 + x exp(log_scale)) for x >= 0, with the derivative to x at x = 0 as well.

    That derivative, exp(log_scale), is cut at e^60 (float32: e^40) when x is exactly 0, so that
    sums of a batch of them stay finite.
    """
    zero = x == 0
    general = softplus(torch.log(torch.where(zero, 1.0, x)) + log_scale)
    cut = 40.0 if log_scale.dtype == torch.float32 else 60.0
    return torch.where(zero, x * torch.exp(log_scale.clamp(max=cut)), general)


def broadcast_shape(*shapes: Sequence[int]) -> tuple[int, ...]:
    """The common shape of these shapes."""
    return tuple(torch.broadcast_shapes(*shapes))  # type: ignore[no-untyped-call]


def broadcast(*tensors: Tensor) -> list[Tensor]:
    """Expand tensors to their common shape."""
    return list(torch.broadcast_tensors(*tensors))  # type: ignore[no-untyped-call]


def masked_logsumexp(x: Tensor, mask: Tensor | None) -> Tensor:
    """Logsumexp over the last axis of the entries where `mask` is true; LOG_ZERO if none."""
    if mask is not None:
        x = torch.where(mask, x, LOG_ZERO)
    return torch.logsumexp(x, -1)
