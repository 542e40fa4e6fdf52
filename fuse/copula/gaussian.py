"""The Gaussian copula."""

from __future__ import annotations

import torch
from torch import Tensor

from .bivariate import gaussian_log_cdf
from .elliptical import Elliptical, Factor, Pair, Regression
from .family import Params, need
from .normal import complete, log_ndtr, normal_quantile


class Gaussian(Elliptical):
    """Gaussian copula: the dependence of a normal vector with correlation matrix R.

    Domain: R positive definite. No tail dependence. With z = Phi^-1(u) and R = L L' the log density
    is -log det L - (|L^-1 z|^2 - |z|^2)/2. The paper's matrix form calls R a covariance and has a
    factor (2 pi)^M too much.
    """

    name = "gaussian"

    def raw_size(self, M: int) -> int:
        """One number per pair."""
        return M * (M - 1) // 2

    def natural(self, raw: Tensor, M: int) -> dict[str, Tensor]:
        """Correlation (..., M, M), float64, partial correlations within 1 - 1e-4."""
        return {"correlation": self._correlation(raw, M)}

    def unconstrained(self, params: Params, M: int) -> Tensor:
        """See `Copula.unconstrained`."""
        return self._raw_correlation(params["correlation"])

    def validate(self, params: Params, M: int) -> None:
        """See `Copula.validate`."""
        need(params, ["correlation"], self.name)
        self._validate_correlation(params, M)

    def from_kendall_tau(self, tau: Tensor, M: int) -> dict[str, Tensor]:
        """sin(pi tau/2), from a matrix (..., M, M) or one tau (...) for all pairs."""
        return {"correlation": self._correlation_from_tau(tau, M)}

    def tail_dependence(self, params: Params) -> tuple[Tensor, Tensor]:
        """None; 1 of a margin with itself."""
        unit = torch.eye(params["correlation"].shape[-1], dtype=params["correlation"].dtype)
        unit = unit.to(params["correlation"].device).expand_as(params["correlation"]).clone()
        return unit, unit.clone()

    def _scores(self, log_u: Tensor, log_sf: Tensor, params: Params) -> Tensor:
        return normal_quantile(log_u, log_sf)

    def _density(self, scores: Tensor, present: Tensor, factor: Factor, params: Params) -> Tensor:
        unit = torch.eye(scores.shape[-1], dtype=factor.inverse.dtype, device=scores.device)
        change = _apply((factor.inverse - unit).to(scores.dtype), scores)  # w - z
        quadratic = (change * (change + 2.0 * scores)).sum(-1)  # |w|^2 - |z|^2
        return -factor.log_det.to(scores.dtype) - 0.5 * quadratic

    def _h(self, scores: Tensor, factor: Factor, params: Params) -> Pair:
        return _pair(_apply(factor.inverse.to(scores.dtype), scores)[..., 1:])

    def _draw(
        self, scores: Tensor, q: Pair, present: Tensor, regression: Regression, params: Params
    ) -> Pair:
        noise = torch.where(present, 0.0, normal_quantile(*q))
        slope, innovation = (t.to(scores.dtype) for t in regression[:2])
        return _pair(_apply(slope, scores) + _apply(innovation, noise))

    def _pair_log_cdf(self, log_u: Tensor, log_sf: Tensor, params: Params) -> Tensor:
        return gaussian_log_cdf(log_u.double(), log_sf.double(), params["correlation"][..., 0, 1])


def _apply(matrix: Tensor, vector: Tensor) -> Tensor:
    """Matrix times vector with broadcast leading axes, without expanding the matrix.

    By columns: a sum over a last axis of two or three is slower than its terms.
    """
    columns = zip(matrix.unbind(-1), vector.unbind(-1), strict=True)
    first, *others = (column * x.unsqueeze(-1) for column, x in columns)
    return sum(others, start=first)


def _pair(z: Tensor) -> Pair:
    upper = z > 0
    return complete(log_ndtr(torch.where(upper, -z, z)), upper)
