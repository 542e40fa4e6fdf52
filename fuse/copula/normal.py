"""The normal distribution in log space, with values and gradients that hold in either tail.

torch.special.log_ndtr is not vectorised on the CPU (about 20 times slower than erfc) and its
float32 gradient is wrong beyond some hundred standard deviations; both matter here, where every
embedding coordinate passes through it once per component.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

LOG_SQRT_2PI = 0.5 * math.log(2.0 * math.pi)
SQRT_HALF = math.sqrt(0.5)

# Asymptotic expansions in t = 1 / a**2 for x = -a, a large:
# log Phi(x) = -a**2 / 2 - log(a sqrt(2 pi)) + sum_i _LOG_MILLS[i] t**(i + 1)
# phi(x) / Phi(x) = a (1 + sum_i _HAZARD[i] t**(i + 1))
_LOG_MILLS = (-1.0, 5 / 2, -37 / 3, 353 / 4, -4081 / 5)
_HAZARD = (1.0, -2.0, 10.0, -74.0, 706.0)


def _edge(dtype: torch.dtype) -> tuple[float, int]:
    """Where the expansions take over (erfc does not yet underflow) and how many terms suffice."""
    return (10.0, 3) if dtype == torch.float32 else (30.0, 5)


def _expansion(a: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    t = a.square().reciprocal_()
    total = t * coefficients[-1]
    for c in reversed(coefficients[:-1]):
        total.add_(c).mul_(t)
    return total


# Both functions write in place: fresh memory costs more here than the arithmetic. A mask that is
# almost constant makes torch.where nearly free.
def log_ndtr_value(x: Tensor) -> Tensor:
    """`log_ndtr` where no gradient is asked for: half the time on small tensors."""
    edge, terms = _edge(x.dtype)
    near = (x * -SQRT_HALF).erfc_().mul_(0.5).clamp_min_(torch.finfo(x.dtype).tiny).log_()
    a = (-x).clamp_min_(edge)
    far = _expansion(a, _LOG_MILLS[:terms]).sub_(a.square().mul_(0.5))
    far.sub_(a.log_()).sub_(LOG_SQRT_2PI)
    return torch.where(x < -edge, far, near)


def _hazard(x: Tensor, log_ndtr: Tensor) -> Tensor:
    """phi(x) / Phi(x), the derivative of log Phi; by expansion where the logs would cancel."""
    edge, terms = _edge(x.dtype)
    near = x.square().mul_(0.5).add_(log_ndtr).add_(LOG_SQRT_2PI).neg_().exp_()
    a = (-x).clamp_min_(edge)
    far = _expansion(a, _HAZARD[:terms]).add_(1.0).mul_(a)
    return torch.where(x < -edge, far, near)


class Entrywise(torch.autograd.Function):
    """A function of tensors, entry by entry: mapped over a batch it is itself.

    The rule that torch would generate maps `backward` too, which costs more than small tensors do.
    """

    @classmethod
    def vmap(cls, info: Any, in_dims: tuple[int | None, ...], *tensors: Tensor) -> tuple[Any, int]:
        """Put the mapped axis first, aligned by broadcasting; `forward` may look at values."""
        rank = max(t.ndim - (d is not None) for t, d in zip(tensors, in_dims, strict=True))
        moved = []
        for t, d in zip(tensors, in_dims, strict=True):
            if d is not None:
                t = t.movedim(d, 0)
                t = t.reshape(t.shape[:1] + (1,) * (rank + 1 - t.ndim) + t.shape[1:])
            moved.append(t)
        return cls.apply(*moved), 0


class _LogNdtr(Entrywise):
    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return log_ndtr_value(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0], output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        x, value = ctx.saved_tensors
        return grad * _hazard(x, value)


def log_ndtr(x: Tensor) -> Tensor:
    """Log of the standard normal distribution function, log Phi(x).

    Relative accuracy for x < 0, absolute accuracy (one rounding unit of 1) for x > 0, where the
    value itself goes to 0; take the other tail there. The gradient is exact to rounding for
    every x.

    Args:
        x: Standard units, any shape, float32 or float64.
    """
    value: Tensor = _LogNdtr.apply(x)
    return value


class _Log1mexp(Entrywise):
    @staticmethod
    def forward(a: Tensor) -> Tensor:
        a = a.clamp_min(0.0)
        near = torch.expm1(-a).neg_().log_()
        far = torch.exp(-a).neg_().log1p_()
        return torch.where(a < math.log(2.0), near, far)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (a,) = ctx.saved_tensors
        return torch.where(a > 0, grad / torch.expm1(a), 0.0)


def log1mexp(a: Tensor) -> Tensor:
    """log(1 - exp(-a)) for a > 0, without cancellation at either end (Maechler 2012).

    Args:
        a: Positive; 0 gives -inf with a gradient of 0 rather than NaN.
    """
    value: Tensor = _Log1mexp.apply(a)
    return value


def _tail_quantile(log_p: Tensor) -> Tensor:
    """The normal quantile far out: a start from the tail's own form, then Newton on log Phi."""
    square = -2.0 * log_p - 2.0 * LOG_SQRT_2PI
    x: Tensor = (square - torch.log(square)).sqrt_().neg_()
    for _ in range(2):  # log Phi is almost a parabola here: the second step is rounding
        value = log_ndtr_value(x)
        x.sub_((value - log_p) / _hazard(x, value))
    return x


class _NdtriExp(Entrywise):
    @staticmethod
    def forward(log_p: Tensor) -> Tensor:
        deep = -80.0 if log_p.dtype == torch.float32 else -600.0
        x: Tensor = torch.special.ndtri(torch.exp(log_p.clamp_min(deep)))
        far = log_p < deep
        if far.any():
            x = torch.where(far, _tail_quantile(log_p.clamp_max(deep)), x)
        return x

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0], output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        log_p, x = ctx.saved_tensors
        return grad / _hazard(x, log_p)


def ndtri_exp(log_p: Tensor) -> Tensor:
    """The normal quantile of a probability given by its log, Phi^-1(exp(log_p)).

    Args:
        log_p: At most about log(1/2) for full relative accuracy; use the other tail above.
    """
    value: Tensor = _NdtriExp.apply(log_p)
    return value


def normal_quantile(log_u: Tensor, log_sf: Tensor) -> Tensor:
    """Phi^-1(u) from the pair (log u, log(1 - u)); reads, and differentiates, the smaller one."""
    lower = (log_u < log_sf).to(log_u.dtype)
    # Products with 0 and 1: torch.where with a random mask is several times slower on the CPU.
    # Not torch.minimum, whose gradient is wrong at u = 1/2.
    return (2.0 * lower - 1.0) * ndtri_exp(lower * log_u + (1.0 - lower) * log_sf)


def complete(log_small: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """The pair (log u, log(1 - u)) from its smaller member.

    Args:
        log_small: log u, or log(1 - u) where `upper`; finite, at most about log(1/2).
        upper: Which of the two `log_small` is.
    """
    # Strictly negative even where it rounds to 0, so that its logarithm stays finite.
    other = torch.log1p(-torch.exp(log_small)).clamp_max(-torch.finfo(log_small.dtype).tiny)
    one = upper.to(log_small.dtype)
    zero = 1.0 - one
    return zero * log_small + one * other, one * log_small + zero * other
