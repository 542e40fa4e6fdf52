"""What the published code computes in stage two where that differs from the mathematics.

Written from a description of its behaviour, without its code. Each switch of `fuse.published` that
concerns the joint density is here; the others are one line each in `cm2.py` and the training loop.
Where the published code ends with an error (Clayton, Student-t, three modalities but for Gumbel),
so does this.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from ...errors import ConfigError
from ..config import FuseConfig
from ..copula.family import Copula
from ..copula.frank import Frank
from ..copula.gaussian import Gaussian
from ..copula.gumbel import Gumbel
from ..copula.joint import JointModel, JointTerms
from ..copula.mixture import Mixture, log_cdf, log_prob
from ..copula.normal import log1mexp, normal_quantile
from ..copula.special import log_neg_log, masked_logsumexp
from ..copula.whitening import CopulaSpace

STD = math.log1p(math.exp(-4.0))
"""Standard deviation of every component at the constant start, for embeddings of length 1."""


class PublishedGumbel(Gumbel):
    """Gumbel's distribution function where a density belongs.

    It grows with theta at every point, so maximising it raises theta whatever the data are.
    """

    def _log_density(
        self, log_u: Tensor, log_sf: Tensor, available: Tensor, theta: Tensor
    ) -> Tensor:
        log_l = log_neg_log(log_u, log_sf)
        log_s = masked_logsumexp(theta.unsqueeze(-1) * log_l, available) / theta
        return -torch.exp(log_s)


class PublishedFrank(Frank):
    """A denominator of four positive terms; it integrates to 0.059 at theta = 1, not to 1."""

    def _log_density(
        self, log_u: Tensor, log_sf: Tensor, available: Tensor, theta: Tensor
    ) -> Tensor:
        u, v = log_u.exp().unbind(-1)
        exponents = torch.stack([torch.ones_like(u), u, v, u + v], -1)
        below = torch.logsumexp(-theta.unsqueeze(-1) * exponents, -1)
        # theta (1 - exp(-theta)) is even in sign: positive on both sides of 0
        above = torch.log(theta * -torch.expm1(-theta)) - theta * (u + v)
        return above - 2 * below


def _family(name: str, M: int) -> Copula:
    if name == "gumbel":
        return PublishedGumbel()
    if name not in ("frank", "gaussian"):
        raise ConfigError(
            f"The published code ends with an error for copula = {name!r}; it computes gumbel, "
            "frank and gaussian. Choose one, or give --set published.formulas=false."
        )
    if M > 2:
        raise ConfigError(
            f"The published code ends with an error for copula = {name!r} and {M} modalities; it "
            "computes gumbel there. Choose it, or give --set published.formulas=false."
        )
    return PublishedFrank() if name == "frank" else Gaussian()


def _standardised(x: Tensor, mix: Mixture) -> tuple[Tensor, Tensor]:
    """Frank's and Gaussian's arguments: exp(-z^2 / 2) of log F standardised over the batch.

    Neither uniform nor monotone in F, and a stay's value depends on the other stays.
    """
    log_f = log_cdf(x, mix)
    spread = log_f.var(0, correction=0, keepdim=True).sqrt()
    z = (log_f - log_f.mean(0, keepdim=True)) / spread.clamp_min(1e-12)
    minus_log_u = (0.5 * z.square()).clamp_min(1e-12).unsqueeze(-1)
    return -minus_log_u, log1mexp(minus_log_u)


class PublishedJoint(JointModel):
    """The joint density with those defects that are switched on.

    Args:
        M: Modalities.
        D: Coordinates of the copula space.
        config: Names the family, the coupling, and the switches.

    Raises:
        ConfigError: A combination for which the published code ends with an error.
    """

    def __init__(self, M: int, D: int, config: FuseConfig) -> None:
        self.switches = config.published
        family = _family(config.copula, M) if self.switches.formulas else config.copula
        super().__init__(
            M,
            D,
            config.K,
            family,
            coupling=config.coupling,
            params=config.copula_params,
            weights=config.mixture_weights,
            floor=1e-6 if self.switches.raw_space else 1e-2,
        )
        standardised = self.switches.formulas and config.copula != "gumbel"
        if standardised and self.coupling == "joint":
            self.kind = dataclasses.replace(self.kind, transform=_standardised)
        if self.switches.constant_start:
            std = STD if self.switches.raw_space else 1.0
            equal = Mixture(
                torch.full((self.K,), -math.log(self.K)),
                torch.zeros(self.K, D),
                torch.full((self.K, D), std),
            )
            for marginal in self._marginals():
                marginal.assign(equal)

    @property
    def noise_size(self) -> int:
        """Uniform numbers that a draw needs for each modality."""
        return self.K * self.D if self.switches.averaged_draws else super().noise_size

    def mixture(self) -> Mixture:
        """See `JointModel.mixture`; equal components share even their rounding.

        Their gradients are equal in exact arithmetic. Adam would blow rounding up to full steps.
        """
        mix = super().mixture()
        if not self.switches.constant_start:
            return mix
        log_weights, means, stds = mix
        return Mixture(
            log_weights.mean(-1, keepdim=True).expand_as(log_weights),
            means.mean(-2, keepdim=True).expand_as(means),
            stds.mean(-2, keepdim=True).expand_as(stds),
        )

    def log_terms(self, w: Tensor, available: Tensor, detach: bool = True) -> JointTerms:
        """See `JointModel.log_terms`; with `diagonal_components` the copula is inside of them."""
        terms = super().log_terms(w, available, detach)
        if not self.switches.diagonal_components or self.M == 1:
            return terms
        w = torch.where(available.unsqueeze(-1), w, 0.0)
        mix = self._mixture_like(w)
        mix = mix.detach() if detach else mix
        parts = [self._component(w, available, mix, k) for k in range(self.K)]
        alone = torch.where(available, log_prob(w, mix), 0.0).sum(-1)
        copula = torch.logsumexp(torch.stack(parts), 0) - alone
        return terms._replace(copula=copula / (1 if self.kind.scalar else self.D))

    def _component(self, w: Tensor, available: Tensor, mix: Mixture, k: int) -> Tensor:
        """Log weight and density of component k of all modalities together, ``(B,)``."""
        nothing = torch.zeros_like(mix.log_weights[:, :1])
        one = Mixture(nothing, mix.means[:, k : k + 1], mix.stds[:, k : k + 1])
        log_u, log_sf = self.kind.transform(w, one)
        log_c = self.copula.log_density(
            log_u.mT, log_sf.mT, self.copula_params(), available.unsqueeze(-2)
        )
        alone = log_prob(w, one) + mix.log_weights[:, k]
        return torch.where(available, alone, 0.0).sum(-1) + log_c.sum(-1)

    def sample_missing(
        self, w: Tensor, available: Tensor, uniforms: Tensor, how: str = "conditional"
    ) -> Tensor:
        """See `JointModel.sample_missing`; without gradient under `detached_draws`."""
        if self.switches.averaged_draws:
            drawn = self._average(w, available, uniforms)
        else:
            drawn = super().sample_missing(w, available, uniforms, how)
        return drawn.detach() if self.switches.detached_draws else drawn

    def _average(self, w: Tensor, available: Tensor, uniforms: Tensor) -> Tensor:
        """The weighted mean of one draw of every component, (n, B, M, D)."""
        mix = self._mixture_like(w)
        uniforms = uniforms.reshape(*uniforms.shape[:-1], self.K, self.D)
        normal = normal_quantile(torch.log(uniforms), torch.log1p(-uniforms))
        draws = mix.means + mix.stds * normal  # (n, B, M, K, D)
        drawn = (mix.log_weights.exp().unsqueeze(-1) * draws).sum(-2)
        return torch.where(available.unsqueeze(-1), w, drawn)

    def refresh(self, w: Tensor, available: Tensor, steps: int = 1) -> None:
        """Equal components are left to the gradient, which keeps them equal."""
        if not self.switches.constant_start:
            super().refresh(w, available, steps)


def use_raw_space(space: CopulaSpace, D: int) -> None:
    """Make the copula coordinates the embedding itself, scaled to length 1.

    Args:
        space: A space as wide as the embedding; its statistics are fixed.
        D: Width of the embedding.
    """
    space.whitening.transform.copy_(torch.eye(D) / math.sqrt(D))
    space.whitening.decoder.copy_(torch.eye(D) * math.sqrt(D))
