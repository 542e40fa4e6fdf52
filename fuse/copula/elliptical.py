"""What the elliptical families share: a correlation matrix, its patterns of presence, draws.

A pattern of present margins S is handled without gathering rows: the correlation matrix with
absent rows and columns replaced by those of the identity has the determinant of R_SS, and with
the absent scores set to 0 its quadratic form is that of R_SS. All 2^M patterns are factorised
once; each row then picks its own by number.

Matrices are float64 throughout: an R within 1e-4 of singular does not fit float32.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ...errors import ConfigError, UnsupportedError
from .family import Copula, Params, checked_margins
from .special import broadcast_shape

Pair = tuple[Tensor, Tensor]
LOG_HALF = -math.log(2.0)
LARGEST_PARTIAL = 1.0 - 1e-4
RIDGE = 1e-9


class Factor(NamedTuple):
    """Of a masked correlation matrix R = L L': the inverse of L, and log det L."""

    inverse: Tensor  # (..., M, M)
    log_det: Tensor  # (...)


class Regression(NamedTuple):
    """Absent scores given present ones: z_absent = slope z_present + innovation noise."""

    slope: Tensor  # (..., M, M), rows of absent margins, columns of present ones
    innovation: Tensor  # (..., M, M), lower triangular in the order of the absent margins
    factor: Factor  # of the present block


class Elliptical(Copula):
    """Base of the Gaussian and Student-t copulas; params {"correlation": (..., M, M), ...}.

    Unconstrained form: partial correlations p_ij = (1 - 1e-4) tanh(raw_ij), i > j, row by row, of
    margin i and j given the margins before j, and L_ij = p_ij sqrt(prod_{k<j} (1 - p_ik^2)), so
    every raw vector is a correlation matrix (Lewandowski et al. 2009). One part in 1e9 of the
    identity is mixed in, so that R can be factorised in any order of the margins.
    """

    def _correlation(self, raw: Tensor, M: int) -> Tensor:
        raw = raw.double()
        if M == 1:
            return torch.ones((*raw.shape[:-1], 1, 1), dtype=raw.dtype, device=raw.device)
        place = torch.zeros(M, M, dtype=torch.long)
        row, column = torch.tril_indices(M, M, -1)
        place[row, column] = torch.arange(M * (M - 1) // 2)
        below = torch.ones(M, M, dtype=torch.bool).tril(-1).to(raw.device)
        partial = LARGEST_PARTIAL * torch.tanh(raw[..., place.to(raw.device)])
        partial = torch.where(below, partial, 0.0)
        # sqrt(prod_{k<j} (1 - p_ik^2)): exclusive product along the row; 1 - p^2 >= 2e-4
        left = torch.cumsum(torch.log1p(-partial.square()), -1)
        left = torch.cat([torch.zeros_like(left[..., :1]), left[..., :-1]], -1)
        unit = torch.eye(M, dtype=raw.dtype, device=raw.device)
        lower = (partial + unit) * torch.exp(0.5 * left)
        correlation = (1.0 - RIDGE) * (lower @ lower.mT)
        return torch.where(unit > 0, 1.0, correlation)

    def _raw_correlation(self, correlation: Tensor) -> Tensor:
        correlation = correlation.double()
        M = correlation.shape[-1]
        unit = torch.eye(M, dtype=correlation.dtype, device=correlation.device)
        lower = torch.linalg.cholesky((correlation - RIDGE * unit) / (1.0 - RIDGE))
        # what is left of row i before column j: 1 - sum_{k<j} L_ik^2 = sum_{k>=j} L_ik^2
        square = lower.square()
        left = square.flip(-1).cumsum(-1).flip(-1)
        row, column = torch.tril_indices(M, M, -1).to(lower.device)
        partial = lower[..., row, column] / torch.sqrt(left[..., row, column])
        return torch.atanh(partial / LARGEST_PARTIAL)

    def _validate_correlation(self, params: Params, M: int) -> None:
        correlation = params["correlation"]
        if correlation.shape[-2:] != (M, M):
            raise ConfigError(
                f"correlation of the {self.name} copula with M = {M} must have shape "
                f"(..., {M}, {M}), found {tuple(correlation.shape)}"
            )
        ones = torch.ones_like(correlation.diagonal(dim1=-2, dim2=-1))
        fine = torch.allclose(correlation, correlation.mT) and torch.allclose(
            correlation.diagonal(dim1=-2, dim2=-1), ones
        )
        if not fine or not bool((torch.linalg.cholesky_ex(correlation.double()).info == 0).all()):
            raise ConfigError(
                f"correlation of the {self.name} copula must be symmetric, positive definite and "
                "have ones on its diagonal"
            )

    @abstractmethod
    def _scores(self, log_u: Tensor, log_sf: Tensor, params: Params) -> Tensor:
        """Quantiles of the margins (for Student's t their arcsinh), (..., M)."""

    @abstractmethod
    def _density(self, scores: Tensor, present: Tensor, factor: Factor, params: Params) -> Tensor:
        """Log density from scores that are 0 where absent."""

    @abstractmethod
    def _h(self, scores: Tensor, factor: Factor, params: Params) -> Pair:
        """h_j for j = 2..M."""

    @abstractmethod
    def _draw(
        self, scores: Tensor, q: Pair, present: Tensor, regression: Regression, params: Params
    ) -> Pair:
        """The pair of every margin; only absent ones are used."""

    def log_density(
        self, log_u: Tensor, log_sf: Tensor, params: Params, available: Tensor | None = None
    ) -> Tensor:
        """See `Copula.log_density`."""
        M = log_u.shape[-1]
        correlation = params["correlation"].double()
        if available is None:
            present = torch.ones(M, dtype=torch.bool, device=log_u.device)
            factor = _factorise(correlation)
        else:
            present = available
            masked = _masked(correlation.unsqueeze(-3), _patterns(M, log_u.device))
            factor = _select_factor(_factorise(masked), available)
        scores = self._masked_scores(log_u, log_sf, present, params)
        density = self._density(scores, present, factor, params)
        return torch.where(present.sum(-1) >= 2, density, 0.0).to(log_u.dtype)

    def log_cdf(self, log_u: Tensor, log_sf: Tensor, params: Params) -> Tensor:
        """log C of a pair, by quadrature over the correlation (`bivariate_cdf`)."""
        M = log_u.shape[-1]
        if M != 2:
            raise UnsupportedError(
                f"the distribution function of the {self.name} copula is offered for M = 2, found "
                f"M = {M}; sample it instead, or take an Archimedean family"
            )
        return self._pair_log_cdf(log_u, log_sf, params).to(log_u.dtype)

    @abstractmethod
    def _pair_log_cdf(self, log_u: Tensor, log_sf: Tensor, params: Params) -> Tensor:
        """log C for M = 2."""

    def conditional(self, log_u: Tensor, log_sf: Tensor, params: Params) -> Pair:
        """See `Copula.conditional`."""
        factor = _factorise(params["correlation"].double())
        h = self._h(self._scores(log_u, log_sf, params), factor, params)
        return h[0].to(log_u.dtype), h[1].to(log_u.dtype)

    def conditional_inverse(
        self, log_q: Tensor, log1m_q: Tensor, log_u: Tensor, log_sf: Tensor, params: Params
    ) -> Pair:
        """See `Copula.conditional_inverse`."""
        j = log_u.shape[-1] + 1
        correlation = params["correlation"][..., :j, :j].double()
        present = torch.arange(j, device=log_u.device) < j - 1
        regression = _regress(correlation, present)
        shape = broadcast_shape(log_q.shape, log_u.shape[:-1])
        target = [
            torch.cat(
                [
                    x.expand((*shape, j - 1)),
                    torch.full_like(x[..., :1], LOG_HALF).expand((*shape, 1)),
                ],
                -1,
            )
            for x in (log_u, log_sf)
        ]
        q = [t.expand(shape).unsqueeze(-1).expand((*shape, j)) for t in (log_q, log1m_q)]
        scores = self._masked_scores(target[0], target[1], present, params)
        draw = self._draw(scores, (q[0], q[1]), present, regression, params)
        return draw[0][..., -1].to(log_u.dtype), draw[1][..., -1].to(log_u.dtype)

    def impute(
        self,
        log_u: Tensor,
        log_sf: Tensor,
        available: Tensor,
        log_q: Tensor,
        log1m_q: Tensor,
        params: Params,
    ) -> Pair:
        """See `Copula.impute`; all absent margins at once."""
        M = log_u.shape[-1]
        patterns = _patterns(M, log_u.device)
        every = _regress(params["correlation"].double().unsqueeze(-3), patterns)
        factor = _select_factor(every.factor, available)
        regression = Regression(
            _select(every.slope, available), _select(every.innovation, available), factor
        )
        scores = self._masked_scores(log_u, log_sf, available, params)
        draw = self._draw(scores, (log_q, log1m_q), available, regression, params)
        return (
            torch.where(available, log_u, draw[0].to(log_u.dtype)),
            torch.where(available, log_sf, draw[1].to(log_u.dtype)),
        )

    def marginal(self, params: Params, keep: Sequence[int]) -> dict[str, Tensor]:
        """The kept rows and columns of the correlation; all else as it is."""
        index = torch.tensor(checked_margins(keep), device=params["correlation"].device)
        correlation = params["correlation"].index_select(-1, index).index_select(-2, index)
        return {**params, "correlation": correlation}

    def kendall_tau(self, params: Params) -> Tensor:
        """(2/pi) arcsin R, (..., M, M)."""
        return _off_diagonal(params["correlation"], lambda r: 2.0 / math.pi * torch.asin(r))

    def _correlation_from_tau(self, tau: Tensor, M: int) -> Tensor:
        """sin(pi tau/2) of a matrix (..., M, M), or of one tau (...) for all pairs."""
        if tau.shape[-2:] != (M, M):
            tau = tau[..., None, None].expand((*tau.shape, M, M))
        return _off_diagonal(tau, lambda t: torch.sin(0.5 * math.pi * t))

    def _masked_scores(
        self, log_u: Tensor, log_sf: Tensor, present: Tensor, params: Params
    ) -> Tensor:
        log_u = torch.where(present, log_u, LOG_HALF)
        log_sf = torch.where(present, log_sf, LOG_HALF)
        return torch.where(present, self._scores(log_u, log_sf, params), 0.0)


def _off_diagonal(matrix: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply a function beside the diagonal, 1 on it."""
    unit = torch.eye(matrix.shape[-1], dtype=torch.bool, device=matrix.device)
    return torch.where(unit, 1.0, function(torch.where(unit, 0.0, matrix)))


def _patterns(M: int, device: torch.device) -> Tensor:
    """All patterns of presence, (2^M, M); row number = sum of 2^i over the present i."""
    number = torch.arange(2**M, device=device).unsqueeze(-1)
    return (number >> torch.arange(M, device=device)) % 2 == 1


def _chosen(available: Tensor, dtype: torch.dtype) -> Tensor:
    """One-hot number of each row's pattern, (..., 2^M).

    Multiplying by it selects from a table, broadcasts the leading axes of both and works under
    vmap, which indexing would not.
    """
    M = available.shape[-1]
    number = (available * 2 ** torch.arange(M, device=available.device)).sum(-1, keepdim=True)
    return (number == torch.arange(2**M, device=available.device)).to(dtype)


def _select(table: Tensor, available: Tensor) -> Tensor:
    """Each row's matrix (..., M, M) from a table (..., 2^M, M, M)."""
    M = available.shape[-1]
    flat = table.reshape((*table.shape[:-2], M * M))
    picked = (_chosen(available, table.dtype).unsqueeze(-2) @ flat).squeeze(-2)
    return picked.reshape((*picked.shape[:-1], M, M))


def _select_factor(every: Factor, available: Tensor) -> Factor:
    """Each row's factor from those of all patterns."""
    log_det = (_chosen(available, every.log_det.dtype) * every.log_det).sum(-1)
    return Factor(_select(every.inverse, available), log_det)


def _masked(correlation: Tensor, present: Tensor) -> Tensor:
    """Correlation with rows and columns of absent margins replaced by the identity's."""
    unit = torch.eye(present.shape[-1], dtype=correlation.dtype, device=correlation.device)
    both = present.unsqueeze(-1) & present.unsqueeze(-2)
    return torch.where(both, correlation, unit)


def _factorise(correlation: Tensor) -> Factor:
    lower = torch.linalg.cholesky(correlation)
    unit = torch.eye(lower.shape[-1], dtype=lower.dtype, device=lower.device)
    inverse = torch.linalg.solve_triangular(lower, unit.expand_as(lower), upper=False)
    return Factor(inverse, torch.log(lower.diagonal(dim1=-2, dim2=-1)).sum(-1))


def _regress(correlation: Tensor, present: Tensor) -> Regression:
    """Regression for patterns `present`, (..., M), constant.

    Read off the Cholesky factor with the present margins first: subtracting what they explain from
    the variance of the absent ones would lose a small remainder.
    """
    order = torch.argsort((~present).long(), stable=True)
    swap = torch.nn.functional.one_hot(order, order.shape[-1]).to(correlation.dtype)
    lower = torch.linalg.cholesky(swap @ correlation @ swap.mT)
    unit = torch.eye(lower.shape[-1], dtype=lower.dtype, device=lower.device)
    inverse = torch.linalg.solve_triangular(lower, unit.expand_as(lower), upper=False)
    lower, inverse = (swap.mT @ t @ swap for t in (lower, inverse))  # back in their own order
    row, column = present.unsqueeze(-1), present.unsqueeze(-2)
    inverse = torch.where(row & column, inverse, unit)
    log_pivots = torch.log(lower.diagonal(dim1=-2, dim2=-1))
    return Regression(
        slope=torch.where(~row & column, lower, 0.0) @ torch.where(row & column, inverse, 0.0),
        innovation=torch.where(~row & ~column, lower, 0.0),
        factor=Factor(inverse, torch.where(present, log_pivots, 0.0).sum(-1)),
    )
