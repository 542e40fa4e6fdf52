"""The Student-t copula."""

from __future__ import annotations

import torch
from torch import Tensor

from ...errors import ConfigError
from .archimedean import bounded_softplus, inverse_bounded_softplus
from .bivariate import student_log_cdf
from .elliptical import Elliptical, Factor, Pair, Regression
from .family import Params, need
from .special import LOG_ZERO, broadcast_shape, softplus
from .student import (
    arcsinh_scaled,
    log_abs_sinh,
    scaled_sinh,
    student_pair,
    student_quantile,
)

SMALLEST_NU, LARGEST_NU = 2.0, 100.0


class Student(Elliptical):
    """Student-t copula: the dependence of a multivariate t vector; tail dependence at both ends.

    Domain: R positive definite, nu > 0. R = I is not independence. With x = T_nu^-1(u), R = L L'
    and w = L^-1 x the density is f_{nu,n}(x; R)/prod f_nu(x_i) (Demarta and McNeil 2005).

    Args:
        nu: Degrees of freedom, held fixed by `natural`; None makes them a parameter in (2, 100).
            Either way every method takes whatever params["nu"] says.

    Computes in float64 on the CPU, where the t quantile is.
    """

    name = "student"

    def __init__(self, nu: float | None = 5.0) -> None:
        if nu is not None and not nu > 0:
            raise ConfigError(f"nu of the student copula must be positive or None, found {nu}")
        self.nu = nu

    def raw_size(self, M: int) -> int:
        """One number per pair, and one for nu if it is learned."""
        return M * (M - 1) // 2 + (self.nu is None)

    def natural(self, raw: Tensor, M: int) -> dict[str, Tensor]:
        """Correlation (..., M, M) and nu (...), float64."""
        pairs = M * (M - 1) // 2
        correlation = self._correlation(raw[..., :pairs], M)
        if self.nu is not None:
            return {
                "correlation": correlation,
                "nu": torch.full_like(correlation[..., 0, 0], self.nu),
            }
        span = LARGEST_NU - SMALLEST_NU
        return {
            "correlation": correlation,
            "nu": SMALLEST_NU + bounded_softplus(raw[..., pairs].double(), span),
        }

    def unconstrained(self, params: Params, M: int) -> Tensor:
        """See `Copula.unconstrained`; a fixed nu is not part of it."""
        raw = self._raw_correlation(params["correlation"])
        if self.nu is not None:
            return raw
        span = LARGEST_NU - SMALLEST_NU
        nu = inverse_bounded_softplus(params["nu"].double() - SMALLEST_NU, span).unsqueeze(-1)
        shape = broadcast_shape(raw.shape[:-1], nu.shape[:-1])
        return torch.cat([raw.expand((*shape, raw.shape[-1])), nu.expand((*shape, 1))], -1)

    def validate(self, params: Params, M: int) -> None:
        """See `Copula.validate`."""
        need(params, ["correlation", "nu"], self.name)
        self._validate_correlation(params, M)
        nu = params["nu"]
        if not bool(((nu > 0) & nu.isfinite()).all()):
            raise ConfigError(
                f"nu of the student copula must be positive and finite, found {nu.min().item():g} "
                f"to {nu.max().item():g}"
            )

    def from_kendall_tau(self, tau: Tensor, M: int) -> dict[str, Tensor]:
        """sin(pi tau/2), from a matrix (..., M, M) or one tau (...); nu as fixed, else 5."""
        correlation = self._correlation_from_tau(tau, M)
        nu = torch.full_like(correlation[..., 0, 0], 5.0 if self.nu is None else self.nu)
        return {"correlation": correlation, "nu": nu}

    def tail_dependence(self, params: Params) -> tuple[Tensor, Tensor]:
        """2 T_{nu+1}(-sqrt((nu + 1)(1 - rho)/(1 + rho))) at either end, 1 on the diagonal."""
        rho, nu = params["correlation"].double(), params["nu"].double()[..., None, None]
        unit = torch.eye(rho.shape[-1], dtype=torch.bool, device=rho.device)
        off = torch.where(unit, 0.0, rho)
        x = -torch.sqrt((nu + 1.0) * (1.0 - off) / (1.0 + off))
        value = 2.0 * torch.exp(student_pair(torch.asinh(x), nu + 1.0)[0])
        value = torch.where(unit, 1.0, value).to(params["correlation"].dtype)
        return value, value.clone()

    def _scores(self, log_u: Tensor, log_sf: Tensor, params: Params) -> Tensor:
        return student_quantile(log_u, log_sf, params["nu"].unsqueeze(-1))

    def _density(self, scores: Tensor, present: Tensor, factor: Factor, params: Params) -> Tensor:
        nu = params["nu"].double()
        n = present.sum(-1).double()
        log_nu = torch.log(nu)
        log_square, _, _ = _whiten(scores, factor.inverse)
        joint = softplus(torch.logsumexp(log_square, -1) - log_nu)
        single = softplus(2.0 * log_abs_sinh(scores) - log_nu.unsqueeze(-1))
        single = torch.where(present, single, 0.0).sum(-1)
        constant = _log_gamma_ratio(nu, n) - n * _log_gamma_ratio(nu, torch.ones_like(n))
        return constant - factor.log_det - 0.5 * (nu + n) * joint + 0.5 * (nu + 1.0) * single

    def _h(self, scores: Tensor, factor: Factor, params: Params) -> Pair:
        nu = params["nu"].double().unsqueeze(-1)
        M = scores.shape[-1]
        log_square, white, scale = _whiten(scores, factor.inverse)
        before = torch.ones(M, M, dtype=torch.bool, device=scores.device).tril(-1)
        earlier = torch.logsumexp(torch.where(before, log_square.unsqueeze(-2), LOG_ZERO), -1)
        log_nu = torch.log(nu)
        log_spread = log_nu + softplus(earlier - log_nu)  # log(nu + |w_<j|^2)
        df = nu + torch.arange(M, device=scores.device, dtype=nu.dtype)
        y = arcsinh_scaled(white, scale + 0.5 * (torch.log(df) - log_spread))
        return student_pair(y[..., 1:], df[..., 1:])

    def _draw(
        self, scores: Tensor, q: Pair, present: Tensor, regression: Regression, params: Params
    ) -> Pair:
        nu = params["nu"].double().unsqueeze(-1)
        absent = ~present
        # how many margins each absent one is conditioned on
        rank = torch.cumsum(absent.long(), -1) - absent.long()
        df = nu + (present.sum(-1, keepdim=True) + torch.where(absent, rank, 0)).double()
        noise = student_quantile(q[0], q[1], df)
        noise = torch.where(absent, noise, 0.0)
        log_square, _, _ = _whiten(scores, regression.factor.inverse)
        # nu + |w|^2 of all margins conditioned on grows by a factor with each draw
        log_nu = torch.log(nu)
        start = log_nu + softplus(torch.logsumexp(log_square, -1, keepdim=True) - log_nu)
        growth = torch.where(absent, softplus(2.0 * log_abs_sinh(noise) - torch.log(df)), 0.0)
        log_spread = start + torch.cumsum(growth, -1) - growth
        widen = 0.5 * (log_spread - torch.log(df))
        scale = torch.maximum(
            scores.abs().amax(-1, keepdim=True),
            (noise.abs() + widen.clamp(min=0.0)).amax(-1, keepdim=True),
        ).detach()
        known = scaled_sinh(scores, -scale).unsqueeze(-2)
        drawn = scaled_sinh(noise, widen - scale).unsqueeze(-2)
        x = (regression.slope * known).sum(-1) + (regression.innovation * drawn).sum(-1)
        return student_pair(arcsinh_scaled(x, scale), nu)

    def _pair_log_cdf(self, log_u: Tensor, log_sf: Tensor, params: Params) -> Tensor:
        return student_log_cdf(
            log_u.double(), log_sf.double(), params["correlation"][..., 0, 1], params["nu"]
        )


def _whiten(scores: Tensor, inverse: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """w = L^-1 sinh(scores), as log w^2 and as w exp(-scale) with its scale, each (..., M).

    Row j is scaled by the largest score it can contain, so that neither the large ones overflow
    nor rows of small ones underflow.
    """
    M = scores.shape[-1]
    up_to = torch.ones(M, M, dtype=torch.bool, device=scores.device).tril()
    size = torch.where(up_to, scores.abs().unsqueeze(-2), 0.0)
    scale = size.amax(-1).detach()
    contained = torch.where(up_to, scores.unsqueeze(-2), 0.0)
    white = (inverse * scaled_sinh(contained, -scale.unsqueeze(-1))).sum(-1)
    zero = white == 0
    log_size = torch.log(torch.where(zero, 1.0, white).abs())
    log_square = torch.where(zero, LOG_ZERO, 2.0 * (log_size + scale))
    return log_square, white, scale


def _log_gamma_ratio(nu: Tensor, n: Tensor) -> Tensor:
    """log Gamma((nu + n)/2) - log Gamma(nu/2) - (n/2) log(nu/2), without cancellation.

    Stirling's series from nu = 32 on; below, lgamma itself is accurate.
    """
    large = nu > 32.0
    a = torch.where(large, 0.5 * nu, 16.0)
    b = a + 0.5 * n
    stirling = (b - 0.5) * torch.log1p(0.5 * n / a) - 0.5 * n + _stirling(b) - _stirling(a)
    small = torch.where(large, 1.0, nu)
    direct = torch.lgamma(0.5 * (small + n)) - torch.lgamma(0.5 * small)
    return torch.where(large, stirling, direct - 0.5 * n * torch.log(0.5 * small))


def _stirling(x: Tensor) -> Tensor:
    """log Gamma(x) - (x - 1/2) log x + x - log(2 pi)/2, x >= 16."""
    y = x.reciprocal().square()
    return (
        1 / 12
        + y * (-1 / 360 + y * (1 / 1260 + y * (-1 / 1680 + y * (1 / 1188 - y * (691 / 360360)))))
    ) / x
