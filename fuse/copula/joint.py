"""Marginals and copula as one joint density of the modalities, for any availability pattern.

    log p(w_S) = sum_{m in S} log f_m(w_m) + sum_d log c_S(u_1d, .., u_Md),   S the present ones

with u_m the Rosenblatt transform of w_m under f_m. This is a density with margins f_m because u
is uniform on the cube under f_m (docs/mathematics.md). Who learns from which term:

    marginal (log f_m of w cut from the graph)   mixtures
    copula   (log c, mixtures cut from the graph)   encoders, projection, copula parameters
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...errors import ConfigError, UnsupportedError
from ..readable import readable
from . import get_copula
from .components import component_draws, component_log_ratio
from .couplings import get_coupling
from .draws import conditional, conditional_mean, where_absent
from .family import Copula
from .marginals import MixtureMarginal
from .mixture import Mixture, log_prob, rosenblatt_inverse, sample

DRAWS = ("conditional", "conditional-median", "conditional-mean", "marginal")


class JointTerms(NamedTuple):
    """The terms of the objective by stay.

    Attributes:
        marginal: log f_m, 0 where absent, shape (B, M); nats.
        copula: Mean over coordinates of log c, 0 with fewer than two present, shape (B,).
        log_u: log of the copula arguments, shape (B, M, D), or (B, M, 1) for a coupling with one
            value per stay; finite but without meaning where absent.
        log_sf: The same, log(1 - u).
    """

    marginal: Tensor
    copula: Tensor
    log_u: Tensor
    log_sf: Tensor


class JointModel(nn.Module):
    """Gaussian mixtures for M modalities in a common D-dimensional space, coupled by a copula.

    Args:
        M: Modalities.
        D: Coordinates.
        K: Mixture components.
        family: Name of the copula family, or the family with options of its own.
        coupling: Name of the coupling, see `couplings`.
        params: `shared` dependence for all coordinates (the paper) or one `per-dim`.
        weights: Mixture weights from free `logits` or by an `mlp`.
        floor: Smallest standard deviation.

    Raises:
        ConfigError: Unknown names, or a combination without meaning.
    """

    def __init__(
        self,
        M: int,
        D: int,
        K: int,
        family: str | Copula,
        coupling: str = "rosenblatt",
        params: str = "shared",
        weights: str = "logits",
        floor: float = 1e-2,
    ) -> None:
        super().__init__()
        if params not in ("shared", "per-dim"):
            raise ConfigError(f"Copula parameters are `shared` or `per-dim`; found {params!r}.")
        self.copula = get_copula(family) if isinstance(family, str) else family
        self.coupling, self.kind = coupling, get_coupling(coupling, K)
        if self.kind.scalar and params == "per-dim":
            raise ConfigError(
                f"Coupling {coupling!r} has one copula value for the whole vector, so its "
                "parameters are `shared`; found `per-dim`."
            )
        self.M, self.D, self.K, self.floor = M, D, K, floor
        self.marginals = nn.ModuleList(MixtureMarginal(K, D, weights, floor) for _ in range(M))
        # One modality has nothing to couple; the term is 0 and the family has no parameter.
        raw = self.copula.initial(M) if M > 1 else torch.zeros(0)
        raw = raw.to(torch.get_default_dtype())
        self.raw = nn.Parameter(raw.repeat(D, 1) if params == "per-dim" else raw.clone())

    @property
    def noise_size(self) -> int:
        """Uniform numbers that a draw needs for each modality: a component's, then a point's."""
        return 1 + self.D

    def mixture(self) -> Mixture:
        """All marginals as one mixture with leading axis M."""
        parts = [marginal.mixture() for marginal in self._marginals()]
        return Mixture(*(torch.stack(part) for part in zip(*parts, strict=True)))

    def _marginals(self) -> list[MixtureMarginal]:
        return [m for m in self.marginals if isinstance(m, MixtureMarginal)]

    def _mixture_like(self, w: Tensor) -> Mixture:
        return Mixture(*(part.to(w.dtype) for part in self.mixture()))

    def copula_params(self) -> dict[str, Tensor]:
        """Natural parameters; leading axis D if they differ by coordinate."""
        return self.copula.natural(self.raw, self.M)

    def log_terms(self, w: Tensor, available: Tensor, detach: bool = True) -> JointTerms:
        """The marginal and the copula term of every stay.

        Args:
            w: Copula coordinates, shape (B, M, D); absent rows are not read.
            available: Bool, shape (B, M).
            detach: Cut `w` from the marginal term and the mixtures from the copula term. False
                gives every term its full gradient; maximising the marginal term over an encoder
                has no bound (docs/mathematics.md).
        """
        w = torch.where(available.unsqueeze(-1), w, 0.0)
        mix = self._mixture_like(w)
        marginal = log_prob(w.detach() if detach else w, mix)
        held = mix.detach() if detach else mix
        log_u, log_sf = self.kind.transform(w, held)
        if self.M == 1:
            copula = torch.zeros_like(marginal[..., 0])
        elif self.coupling == "component":
            total = component_log_ratio(w, available, held, self.copula, self.copula_params())
            copula = total / self.D
        else:
            copula = self.copula.log_density(
                log_u.mT, log_sf.mT, self.copula_params(), available.unsqueeze(-2)
            ).mean(-1)
        return JointTerms(torch.where(available, marginal, 0.0), copula, log_u, log_sf)

    def log_u(self, w: Tensor, available: Tensor) -> Tensor:
        """log u alone, as in `log_terms`, shape (B, M, D)."""
        w = torch.where(available.unsqueeze(-1), w, 0.0)
        return self.kind.transform(w, self._mixture_like(w))[0]

    def log_prob(self, w: Tensor, available: Tensor) -> Tensor:
        """Log density of the present modalities, shape (B,); 0 for a stay without any.

        Sum over coordinates, full gradient to everything. For the couplings `coordinate` and
        `joint` the value is not a density.
        """
        return self.total(self.log_terms(w, available, detach=False))

    def total(self, terms: JointTerms) -> Tensor:
        """Log density of the present modalities from its terms, summed over coordinates, (B,)."""
        values = 1 if self.kind.scalar else self.D
        return terms.marginal.sum(-1) + values * terms.copula

    def sample_missing(
        self, w: Tensor, available: Tensor, uniforms: Tensor, how: str = "conditional"
    ) -> Tensor:
        """Draw absent modalities; present ones are returned unchanged.

        Gradient reaches the marginals, the copula parameters and the present coordinates, by the
        implicit function theorem.

        Args:
            w: Copula coordinates, shape (B, M, D); absent rows are not read.
            available: Bool, shape (B, M). A stay without any modality is drawn from the joint.
            uniforms: In (0, 1), shape (n, B, M, `noise_size`); only their shape counts for the
                deterministic ways.
            how: `conditional` (given the present ones), `conditional-median` (every coordinate at
                its conditional median), `conditional-mean`, or `marginal` (ignores the present
                ones, as the paper does).

        Returns:
            Shape (n, B, M, D).

        Raises:
            ConfigError: Unknown `how`.
            UnsupportedError: A coupling that offers no such draw.
        """
        self._check_draw(how)
        shape = uniforms.shape[:-1]
        if readable(available):
            rows = torch.nonzero(~available.all(-1)).flatten()
            if len(rows) == 0:
                return w.expand(*shape, self.D)
            if len(rows) < len(available):
                drawn = self.sample_missing(w[rows], available[rows], uniforms[:, rows], how)
                return w.expand(*shape, self.D).index_copy(1, rows, drawn)
        w = torch.where(available.unsqueeze(-1), w, 0.0)
        mix = self._mixture_like(w)
        if how == "conditional-median":
            uniforms = torch.full_like(uniforms[:1], 0.5)
        params = self.copula_params() if self.M > 1 else {}
        if how == "marginal":
            # No equation is solved: one number picks the component, the others the point in it.
            drawn = where_absent(sample, (uniforms,), available, mix)
        elif self.coupling == "component" and self.M > 1:
            drawn = component_draws(w, available, uniforms, mix, self.copula, params)
        elif how == "conditional-mean" and self.M > 1:
            pair = self.kind.transform(w, mix)
            drawn = conditional_mean(pair, available, mix, self.kind, self.copula, params)
        else:
            uniforms = uniforms[..., : self.D]
            q = torch.log(uniforms), torch.log1p(-uniforms)
            if self.M == 1:  # nothing is given
                drawn = where_absent(rosenblatt_inverse, q, available, mix)
            else:
                pair = self.kind.transform(w, mix)
                drawn = conditional(pair, available, q, mix, self.kind, self.copula, params)
        return torch.where(available.unsqueeze(-1), w, drawn).expand(*shape, self.D)

    def _check_draw(self, how: str) -> None:
        if how not in DRAWS:
            raise ConfigError(f"Unknown draw {how!r}. Known: {', '.join(DRAWS)}.")
        if how == "marginal" or self.M == 1:
            return
        if self.kind.inverse is None:
            raise UnsupportedError(
                f"A vector does not follow from the single copula value of coupling "
                f"{self.coupling!r}: it offers `marginal` draws only, found {how!r}."
            )
        if self.coupling == "component" and how != "conditional":
            raise UnsupportedError(
                f"Coupling `component` offers `conditional` and `marginal` draws, found {how!r}."
            )

    @torch.no_grad()
    def refresh(self, w: Tensor, available: Tensor, steps: int = 1) -> None:
        """Let all marginals follow moved data by EM steps.

        Args:
            w: Copula coordinates of the training rows, shape (N, M, D).
            available: Bool, shape (N, M).
            steps: Number of EM steps.
        """
        for m, marginal in enumerate(self._marginals()):
            marginal.refresh(w[:, m], available[:, m], steps)

    @torch.no_grad()
    def describe(self) -> dict[str, object]:
        """Family, coupling, natural parameters, dependence and mixtures, ready for JSON."""
        params = self.copula_params() if self.M > 1 else {}
        mix = self.mixture()
        facts: dict[str, object] = {
            "family": self.copula.name,
            "coupling": self.coupling,
            "is_density": self.kind.density,
            "parameters": {name: value.tolist() for name, value in params.items()},
            "mixture_weights": mix.log_weights.exp().tolist(),
            "mixture_means": mix.means.tolist(),
            "mixture_stds": mix.stds.tolist(),
        }
        if self.M > 1:
            lower, upper = self.copula.tail_dependence(params)
            facts["kendall_tau"] = self.copula.kendall_tau(params).tolist()
            facts["tail_dependence"] = {"lower": lower.tolist(), "upper": upper.tolist()}
        return facts
