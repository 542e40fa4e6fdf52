"""What every copula family offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from ...errors import ConfigError

Params = Mapping[str, Tensor]


class Copula(ABC):
    """A family of M-variate copulas, stateless: parameters are passed in, randomness too.

    Conventions shared by all families and methods:

    * A probability u is the pair (log_u, log_sf) = (log u, log(1 - u)), each (..., M), both finite
      and negative; u itself never appears, so nothing is clamped and no tail is lost.
    * The two members are functions of one u. Values read whichever is accurate, so the gradient
      that belongs to u is the sum through both: d/du = (d/dlog_u)/u - (d/dlog_sf)/(1 - u). Neither
      partial derivative has a meaning of its own. Feeding both from one differentiable u, z or x
      gives the right total.
    * Leading axes of every parameter broadcast against those of log_u without M: a scalar theta is
      shared, theta of shape (D,) differs by coordinate for log_u of shape (B, D, M).
    * Results have the dtype of log_u, float32 or float64.
    * Nothing branches on values, so all methods but `validate` run under torch.func.vmap and grad.
      Parameters outside the domain give NaN; `validate` tells why.
    """

    name: ClassVar[str]

    @abstractmethod
    def raw_size(self, M: int) -> int:
        """How many unconstrained numbers describe one M-variate member of the family."""

    @abstractmethod
    def natural(self, raw: Tensor, M: int) -> dict[str, Tensor]:
        """Parameters from unconstrained numbers (..., P), bounded away from degeneracy."""

    @abstractmethod
    def unconstrained(self, params: Params, M: int) -> Tensor:
        """Unconstrained numbers (..., P) that `natural` maps to `params`."""

    @abstractmethod
    def validate(self, params: Params, M: int) -> None:
        """Check names, shapes and domain.

        Raises:
            ConfigError: A parameter is missing or outside the domain of the M-variate family.
        """

    @abstractmethod
    def log_density(
        self, log_u: Tensor, log_sf: Tensor, params: Params, available: Tensor | None = None
    ) -> Tensor:
        """Log density in nats, (..., M) -> (...).

        Args:
            log_u: log u.
            log_sf: log(1 - u).
            params: Parameters of the M-variate copula.
            available: Bool, broadcastable to (..., M). Absent margins are integrated out and what
                stands in their place is not read; with fewer than two present the result is 0.
        """

    @abstractmethod
    def log_cdf(self, log_u: Tensor, log_sf: Tensor, params: Params) -> Tensor:
        """log C(u_1, .., u_M), (..., M) -> (...).

        Raises:
            UnsupportedError: An elliptical family with M > 2, which has no closed form.
        """

    @abstractmethod
    def conditional(self, log_u: Tensor, log_sf: Tensor, params: Params) -> tuple[Tensor, Tensor]:
        """h_j = P(U_j <= u_j | U_1 = u_1, .., U_{j-1} = u_{j-1}) for j = 2..M.

        Returns:
            log h and log(1 - h), each (..., M - 1).
        """

    @abstractmethod
    def conditional_inverse(
        self, log_q: Tensor, log1m_q: Tensor, log_u: Tensor, log_sf: Tensor, params: Params
    ) -> tuple[Tensor, Tensor]:
        """The u_j with h_j(u_j | given) = q; differentiable in q, the given margins and params.

        Args:
            log_q: log q, (...).
            log1m_q: log(1 - q), (...).
            log_u: Given margins 1..j-1, (..., j - 1).
            log_sf: The same, log(1 - u).
            params: Parameters of a copula with at least j margins.

        Returns:
            The pair of margin j, (...).
        """

    def sample(self, uniforms: Tensor, params: Params) -> tuple[Tensor, Tensor]:
        """Draw by the inverse Rosenblatt transform.

        Args:
            uniforms: Independent uniforms, (..., M), in (0, 1); leading axes as those of params
                or broader.
            params: Parameters of the M-variate copula.

        Returns:
            The pair, each (..., M).
        """
        half = torch.full_like(uniforms, 0.5).log()
        nothing = torch.zeros(uniforms.shape[-1], dtype=torch.bool, device=uniforms.device)
        log_q, log1m_q = torch.log(uniforms), torch.log1p(-uniforms)
        return self.impute(half, half, nothing, log_q, log1m_q, params)

    @abstractmethod
    def impute(
        self,
        log_u: Tensor,
        log_sf: Tensor,
        available: Tensor,
        log_q: Tensor,
        log1m_q: Tensor,
        params: Params,
    ) -> tuple[Tensor, Tensor]:
        """Draw the absent margins given the present ones, whatever the mix of patterns.

        Each absent margin, in order, is the conditional quantile at its q given the present
        margins and the absent ones before it.

        Args:
            log_u: log u, (..., M); absent entries are not read.
            log_sf: log(1 - u), (..., M).
            available: Bool, broadcastable to (..., M).
            log_q: log of independent uniforms, (..., M); present entries are not used.
            log1m_q: log(1 - q), (..., M).
            params: Parameters of the M-variate copula.

        Returns:
            The pair, each (..., M), with present margins unchanged.
        """

    @abstractmethod
    def marginal(self, params: Params, keep: Sequence[int]) -> dict[str, Tensor]:
        """Parameters of the copula of the margins `keep`, in that order."""

    @abstractmethod
    def kendall_tau(self, params: Params) -> Tensor:
        """Kendall's tau: (...) for exchangeable families, (..., M, M) for elliptical ones."""

    @abstractmethod
    def from_kendall_tau(self, tau: Tensor, M: int) -> dict[str, Tensor]:
        """Parameters that have this tau; inverse of `kendall_tau`."""

    @abstractmethod
    def tail_dependence(self, params: Params) -> tuple[Tensor, Tensor]:
        """Lower and upper coefficient of tail dependence of each pair, shaped as the tau."""

    def initial(self, M: int, tau: float = 0.1) -> Tensor:
        """Unconstrained start values (P,), float64, at which every pair has this tau.

        Raises:
            ConfigError: The family, capped as `natural` says, does not reach this tau.
        """
        start = torch.tensor(tau, dtype=torch.float64)
        raw = self.unconstrained(self.from_kendall_tau(start, M), M)
        if not torch.isfinite(raw).all():
            raise ConfigError(
                f"the {self.name} copula of {M} margins does not reach Kendall's tau {tau:g}; "
                "start nearer to independence"
            )
        return raw


def need(params: Params, names: Sequence[str], family: str) -> None:
    """Check that exactly these parameters are given.

    Raises:
        ConfigError: Names differ.
    """
    if set(params) != set(names):
        raise ConfigError(
            f"the {family} copula takes the parameters {sorted(names)}, found {sorted(params)}"
        )


def checked_margins(keep: Sequence[int]) -> list[int]:
    """Margins to keep, as a list.

    Raises:
        ConfigError: Empty, negative or repeated.
    """
    chosen = [int(j) for j in keep]
    if not chosen or min(chosen) < 0 or len(set(chosen)) != len(chosen):
        raise ConfigError(f"margins to keep must be different indices >= 0, found {chosen}")
    return chosen
