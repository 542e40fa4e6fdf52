"""The independence copula."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .family import Copula, Params, checked_margins, need
from .special import broadcast_shape

Pair = tuple[Tensor, Tensor]


class Independence(Copula):
    """C(u) = u_1 .. u_M: no parameter, log density 0; the row every ablation needs."""

    name = "independence"

    def raw_size(self, M: int) -> int:
        """None."""
        return 0

    def natural(self, raw: Tensor, M: int) -> dict[str, Tensor]:
        """No parameter."""
        return {}

    def unconstrained(self, params: Params, M: int) -> Tensor:
        """No number."""
        return torch.zeros(0, dtype=torch.float64)

    def validate(self, params: Params, M: int) -> None:
        """See `Copula.validate`."""
        need(params, [], self.name)

    def log_density(
        self, log_u: Tensor, log_sf: Tensor, params: Params, available: Tensor | None = None
    ) -> Tensor:
        """Zero."""
        shape = broadcast_shape(log_u.shape, log_u.shape if available is None else available.shape)
        return torch.zeros(shape[:-1], dtype=log_u.dtype, device=log_u.device)

    def log_cdf(self, log_u: Tensor, log_sf: Tensor, params: Params) -> Tensor:
        """Sum of log u."""
        return log_u.sum(-1)

    def conditional(self, log_u: Tensor, log_sf: Tensor, params: Params) -> Pair:
        """h_j = u_j."""
        return log_u[..., 1:], log_sf[..., 1:]

    def conditional_inverse(
        self, log_q: Tensor, log1m_q: Tensor, log_u: Tensor, log_sf: Tensor, params: Params
    ) -> Pair:
        """u_j = q."""
        shape = broadcast_shape(log_q.shape, log_u.shape[:-1])
        return log_q.expand(shape), log1m_q.expand(shape)

    def impute(
        self,
        log_u: Tensor,
        log_sf: Tensor,
        available: Tensor,
        log_q: Tensor,
        log1m_q: Tensor,
        params: Params,
    ) -> Pair:
        """Absent margins are their q."""
        return torch.where(available, log_u, log_q), torch.where(available, log_sf, log1m_q)

    def marginal(self, params: Params, keep: Sequence[int]) -> dict[str, Tensor]:
        """No parameter."""
        checked_margins(keep)
        return {}

    def kendall_tau(self, params: Params) -> Tensor:
        """Zero."""
        return torch.zeros((), dtype=torch.float64)

    def from_kendall_tau(self, tau: Tensor, M: int) -> dict[str, Tensor]:
        """No parameter, whatever tau."""
        return {}

    def tail_dependence(self, params: Params) -> tuple[Tensor, Tensor]:
        """Zero on either side."""
        zero = torch.zeros((), dtype=torch.float64)
        return zero, zero.clone()
