"""Student's t distribution in log space, through scipy, differentiable in argument and nu.

torch has neither the distribution function nor its inverse. A t variable is written as
x = sinh(y): its tails are powers, so at the far end of u, or for small nu, x itself overflows while
y stays moderate. Everything here computes in float64 on the CPU, whatever device and dtype ask.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import special
from torch import Tensor

from .normal import Entrywise, complete, log1mexp
from .special import broadcast

Array = NDArray[np.float64]

DEEP = -600.0  # log probability below which scipy's stdtr and stdtrit are left
FAR = -300.0  # arcsinh x below which x is no longer formed


def _log_t2(y: Array, nu: Array) -> Array:
    """log(1 + sinh(y)^2/nu)."""
    size = np.abs(y)
    with np.errstate(over="ignore", divide="ignore"):
        small = np.log1p(np.sinh(np.minimum(size, 20.0)) ** 2 / nu)
        large = np.logaddexp(0.0, 2.0 * size - math.log(4.0) - np.log(nu))
    return np.where(size < 20.0, small, large)


def _log_tail(y: Array, nu: Array) -> Array:
    """log P(T < sinh y) for y <= 0."""
    x = np.sinh(np.maximum(y, FAR))
    with np.errstate(divide="ignore", under="ignore"):
        direct: Array = np.log(special.stdtr(nu, x))
    deep = ~(direct > DEEP) | (y < FAR)
    if deep.any():
        direct[deep] = _deep_log_tail(y[deep], nu[deep])
    return direct


def _deep_log_tail(y: Array, nu: Array) -> Array:
    """The same below scipy's reach: half the regularised incomplete beta function I_z(nu/2, 1/2).

    z = nu/(nu + x^2), by its continued fraction (DLMF 8.17.22, modified Lentz), in log space.
    """
    a, b = 0.5 * nu, 0.5
    log_z = -_log_t2(y, nu)
    size = -y
    log_square = 2.0 * (size + np.log(-np.expm1(-2.0 * size)) - math.log(2.0))
    log_rest = log_square - np.log(nu) + log_z  # log(1 - z)
    z = np.exp(log_z)
    c = np.ones_like(z)
    d = 1.0 / (1.0 - (a + b) * z / (a + 1.0))
    fraction = d
    for m in range(1, 60):
        even = m * (b - m) * z / ((a + 2 * m - 1.0) * (a + 2 * m))
        d, c = 1.0 / (1.0 + even * d), 1.0 + even / c
        fraction = fraction * d * c
        odd = -(a + m) * (a + b + m) * z / ((a + 2 * m) * (a + 2 * m + 1.0))
        d, c = 1.0 / (1.0 + odd * d), 1.0 + odd / c
        fraction = fraction * d * c
    result: Array = a * log_z + b * log_rest - np.log(nu) - special.betaln(a, b) + np.log(fraction)
    return result


def _log_cdf(y: Array, nu: Array) -> Array:
    lower = _log_tail(-np.abs(y), nu)
    return np.where(y <= 0, lower, np.log1p(-np.exp(lower)))


def _log_slope(y: Array, nu: Array) -> Array:
    """log of the density of y: log f_nu(sinh y) + log cosh y."""
    size = np.abs(y)
    constant: Array = special.gammaln(0.5 * nu + 0.5) - special.gammaln(0.5 * nu)
    log_cosh = size + np.log1p(np.exp(-2.0 * size)) - math.log(2.0)
    return constant - 0.5 * np.log(nu * math.pi) - 0.5 * (nu + 1.0) * _log_t2(y, nu) + log_cosh


def _tail_quantile(log_p: Array, nu: Array) -> Array:
    """y <= 0 with log P(T < sinh y) = log_p, for log_p <= log(1/2)."""
    with np.errstate(over="ignore", under="ignore"):
        x = special.stdtrit(nu, np.exp(np.maximum(log_p, DEEP)))
        # where scipy gives up, start at the power tail; Newton on a concave function converges
        constant = special.gammaln(0.5 * nu + 0.5) - special.gammaln(0.5 * nu)
        constant = constant + (0.5 * nu - 1.0) * np.log(nu) - 0.5 * math.log(math.pi)
        power = (log_p - constant) / nu - math.log(2.0)
    lost = (log_p < DEEP) | ~(np.abs(x) < 1e100)
    y = np.where(lost, np.minimum(power, -1.0), np.arcsinh(np.where(lost, 0.0, x)))
    # stdtrit is exact to rounding in the middle and has been seen to miss digits further out
    far = lost | (log_p < -30.0)
    if far.any():
        z, p, n = y[far], log_p[far], nu[far]
        for _ in range(40 if lost.any() else 3):
            value = _log_tail(z, n)
            z = np.minimum(z - (value - p) * np.exp(value - _log_slope(z, n)), 0.0)
        y[far] = z
    result: Array = np.minimum(y, 0.0)
    return result


def _nu_slope(y: Array, nu: Array) -> Array:
    """d/dnu log P(T < sinh y), by differences of fourth order."""
    step = 2e-3 * nu
    outer = _log_cdf(y, nu + 2.0 * step) - _log_cdf(y, nu - 2.0 * step)
    inner = _log_cdf(y, nu + step) - _log_cdf(y, nu - step)
    return (8.0 * inner - outer) / (12.0 * step)


def _through_numpy(function: Callable[[Array, Array], Array], x: Tensor, nu: Tensor) -> Tensor:
    x, nu = broadcast(x, nu)
    arrays = [np.atleast_1d(t.detach().to("cpu", torch.float64).numpy()) for t in (x, nu)]
    result = function(arrays[0], np.ascontiguousarray(arrays[1]))
    return torch.from_numpy(np.asarray(result)).reshape(x.shape).to(x.device)


class _NuSlope(Entrywise):
    @staticmethod
    def forward(y: Tensor, nu: Tensor) -> Tensor:
        return _through_numpy(_nu_slope, y, nu)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None]:
        return None, None


def _log_slope_tensor(y: Tensor, nu: Tensor) -> Tensor:
    """`_log_slope` on tensors."""
    size = y.abs()
    constant = torch.lgamma(0.5 * nu + 0.5) - torch.lgamma(0.5 * nu)
    near = torch.log1p(torch.sinh(size.clamp(max=20.0)).square() / nu)
    far = torch.logaddexp(torch.zeros_like(size), 2.0 * size - math.log(4.0) - torch.log(nu))
    log_cosh = size + torch.log1p(torch.exp(-2.0 * size)) - math.log(2.0)
    t2 = torch.where(size < 20.0, near, far)
    return constant - 0.5 * torch.log(nu * math.pi) - 0.5 * (nu + 1.0) * t2 + log_cosh


class _LogTail(Entrywise):
    """log P(T < sinh y) for y <= 0."""

    @staticmethod
    def forward(y: Tensor, nu: Tensor) -> Tensor:
        return _through_numpy(_log_tail, y, nu)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs, output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        y, nu, value = ctx.saved_tensors
        to_y = to_nu = None
        if ctx.needs_input_grad[0]:
            to_y = _sum_to(grad * torch.exp(_log_slope_tensor(y, nu) - value), y)
        if ctx.needs_input_grad[1]:
            to_nu = _sum_to(grad * _NuSlope.apply(y, nu), nu)
        return to_y, to_nu


class _TailQuantile(Entrywise):
    """y <= 0 from log p <= log(1/2)."""

    @staticmethod
    def forward(log_p: Tensor, nu: Tensor) -> Tensor:
        return _through_numpy(_tail_quantile, log_p, nu)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs, output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        log_p, nu, y = ctx.saved_tensors
        per_log = torch.exp(log_p - _log_slope_tensor(y, nu))
        to_p = to_nu = None
        if ctx.needs_input_grad[0]:
            to_p = _sum_to(grad * per_log, log_p)
        if ctx.needs_input_grad[1]:
            slope = _NuSlope.apply(y, nu)
            to_nu = _sum_to(-grad * per_log * slope, nu)
        return to_p, to_nu


def _sum_to(grad: Tensor, like: Tensor) -> Tensor:
    return grad.sum_to_size(like.shape)


def student_quantile(log_u: Tensor, log_sf: Tensor, nu: Tensor) -> Tensor:
    """Arcsinh of the t quantile, from the pair; reads, and differentiates, the smaller member.

    Args:
        log_u: log u.
        log_sf: log(1 - u).
        nu: Degrees of freedom > 0, broadcastable.

    Returns:
        y with P(T_nu < sinh y) = u, float64.
    """
    lower = log_u < log_sf
    small, nu = broadcast(torch.where(lower, log_u, log_sf).double(), nu.double())
    y: Tensor = _TailQuantile.apply(small, nu)
    return torch.where(lower, y, -y)


def student_pair(y: Tensor, nu: Tensor) -> tuple[Tensor, Tensor]:
    """(log P(T < sinh y), log P(T > sinh y)) with nu degrees of freedom, float64."""
    y, nu = broadcast(y.double(), nu.double())
    upper = y > 0
    small: Tensor = _LogTail.apply(torch.where(upper, -y, y), nu)
    return complete(small, upper)


def log_abs_sinh(y: Tensor) -> Tensor:
    """log|sinh y|, -1e30 at 0 with gradient 0."""
    zero = y == 0
    size = torch.where(zero, 1.0, y).abs()
    return torch.where(zero, -1e30, size + log1mexp(2.0 * size) - math.log(2.0))


def scaled_sinh(y: Tensor, shift: Tensor) -> Tensor:
    """sinh(y) exp(shift) for shift + |y| of moderate size."""
    near = y.abs() < 1.0
    small = torch.sinh(torch.where(near, y, 0.0)) * torch.exp(shift)
    large = 0.5 * (torch.exp(y + shift) - torch.exp(shift - y))
    return torch.where(near, small, large)


def arcsinh_scaled(x: Tensor, shift: Tensor) -> Tensor:
    """arcsinh(x exp(shift)) without forming the product where it would overflow."""
    far = shift > 50.0
    near = torch.asinh(x * torch.exp(torch.where(far, 0.0, shift)))
    used = far & (x != 0)
    size = torch.where(used, x, 1.0).abs()
    large = torch.sign(x) * (torch.log(size) + math.log(2.0) + shift)
    return torch.where(far, torch.where(used, large, 0.0), near)
