"""CM2: copula-aligned embeddings of any number of modalities, imputed and fused by an LSTM."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...errors import ConfigError
from ..combinations import SIMILARITIES
from ..config import FuseConfig
from ..copula.goodness import held_out, pair_counts
from ..copula.joint import JointModel, JointTerms
from ..copula.marginals import MixtureMarginal
from ..copula.monitors import directions, ks_bound, ks_distance, spread_and_rank
from ..copula.whitening import CopulaSpace
from ..methods.cm2 import CM2Options
from ..published import Published
from ..random import key
from .alignment import EM_STEPS, copula_losses, fitted_tau, start_mixture, track
from .blank import Blanks
from .canonical import canonical_projection
from .encoders import Encoders
from .heads import make_head, mean_probability
from .imputation import RANDOM, Imputation
from .interface import (
    FusionBatch,
    FusionModel,
    FusionOutput,
    Hyper,
    ModalitySpec,
    Objective,
    RowLoss,
)
from .layers import Dropout, unit_scale
from .mixture_size import by_modality
from .monitor import Monitor
from .posterior import Posterior, divergence
from .published import PublishedJoint, use_raw_space
from .similarity import similarity
from .task import binary

_log = logging.getLogger("cm2.fuse")

PAPER = (
    "The objective `paper` rewards encoders for embeddings that are easy to describe: it has no "
    "lower bound, and they collapse if --lambda-cop is large. Watch spread and effective_rank, or "
    "leave --objective out."
)


class CM2(FusionModel):
    """The model of the paper on exact densities.

    Embeddings are mapped to a small whitened copula space. Each modality's marginal there is a
    Gaussian mixture, started from the training rows after the warm-up; a copula couples the
    modalities that a stay has. The copula's mean log density per coordinate draws the encoders
    together; absent modalities are imputed; a 2-layer LSTM reads the tokens.

    Copula space and joint density compute in float64: they are small, and their tails are not.

    Raises:
        ConfigError: The copula space is wider than the embeddings.
    """

    Options: ClassVar[type[CM2Options]] = CM2Options
    reference: ClassVar[str] = "Cross-Modal Alignment via Variational Copula Modelling, ICML 2025"
    absence: ClassVar[str] = "--impute; availability bits"
    learns_alone: ClassVar[tuple[str, ...]] = ("joint.marginals.",)
    dependence: ClassVar[tuple[str, ...]] = ("joint.raw",)
    surveyed: ClassVar[bool] = True
    padding: ClassVar[Mapping[str, float]] = {
        ".logits": -math.inf,
        ".means": 0.0,
        ".raw_stds": 1.0,
        ".outer": 0.0,
    }

    started: Tensor
    highest: Tensor

    def __init__(self, specs: Sequence[ModalitySpec], config: FuseConfig, targets: int = 1) -> None:
        super().__init__(specs, config, targets)
        M, D = len(self.specs), config.hidden
        width = config.copula_dim or D
        self.encoders = Encoders(self.specs, D, config.series_encoder)
        self.space = CopulaSpace(M, D, width, seed=key(config.seed, "projection") >> 1).double()
        self.joint = _joint(M, width, config).double()
        self.posterior = Posterior(M, width).double() if config.objective == "elbo" else None
        if config.published.raw_space:
            use_raw_space(self.space, D)
        self.imputation = Imputation(config.impute, M, D)
        if config.impute == "blank":
            self.blanks = Blanks(self.specs)
        self.dropout = Dropout()
        self.head = make_head(config, M, targets)
        self.register_buffer("started", torch.full((), float(config.published.constant_start)))
        self.register_buffer("highest", torch.zeros(2, M))
        self.draws_for_all = config.objective == "elbo"
        self.compares_stays = ("align",) if config.align == "infonce" else ()
        self.idle = _idle(config)
        self.monitor = Monitor(config, [spec.name for spec in self.specs])

    def noise(self, training: bool) -> dict[str, tuple[int, ...]]:
        """Dropout of tokens and head; uniforms for draws of absent modalities and latents."""
        M, config = len(self.specs), self.config
        shapes: dict[str, tuple[int, ...]] = {}
        if training:
            shapes = {"dropout.tokens": (M, config.hidden), "dropout.head": (self.head.hidden,)}
        draws = 1 if training else config.draws
        if config.impute in RANDOM:
            shapes["draw"] = (draws, M, self.joint.noise_size)
        if self.posterior is not None:
            shapes["latent"] = (draws, M, self.joint.D)
        return shapes

    def start(self, batches: Iterable[FusionBatch]) -> None:
        """Fit the normalisers, and see that every mixture will have enough rows.

        Raises:
            ConfigError: A modality has fewer training rows than its mixture has components.
        """
        if self.config.objective == "paper":
            _log.warning(PAPER)
        batches = list(batches)
        super().start(batches)
        available = torch.cat([batch.available for batch in batches])
        for spec, n in zip(self.specs, available.sum(0).tolist(), strict=True):
            if n < max(2, self.config.K):
                raise ConfigError(
                    f"Only {n} training stays have {spec.name!r}: too few for a mixture of "
                    f"{self.config.K} components. Lower --K, or leave the modality out."
                )
        if len(self.specs) > 1 and not (available.sum(1) >= 2).any():
            _log.warning("No training stay has two modalities: the copula has nothing to align.")

    def embed(self, batch: FusionBatch) -> Tensor:
        """Embeddings of unit scale, ``(B, M, D)``; zero where absent."""
        return unit_scale(self.encoders(batch))

    def blank(self, batch: FusionBatch) -> Tensor:
        """Embeddings, with those of empty inputs in place of absent ones, ``(B, M, D)``."""
        return self.embed(self.blanks(batch))

    def coordinates(self, z: Tensor, available: Tensor) -> Tensor:
        """Copula coordinates of embeddings, ``(B, M, D_c)``.

        The gradient is that of a whitening which follows the batch; but under the objective
        `paper`, as printed, that of an affine map whose statistics are constants.
        """
        held = self.config.objective == "paper" or self.config.published.raw_space
        w: Tensor = self.space(z.double(), None if held else available)
        return w

    def forward(self, batch: FusionBatch, hyper: Hyper) -> FusionOutput:
        """Predict and judge a batch."""
        config, available = self.config, batch.available
        blank = self.blank(batch) if config.impute == "blank" else self.embed(batch)
        z = torch.where(available.unsqueeze(-1), blank, 0.0)
        latent, w = z, self.coordinates(z, available)
        if self.posterior is not None and "latent" in batch.noise:
            drawn = self.posterior.sample(w, batch.noise["latent"].to(w).transpose(0, 1))
            w, available = drawn.flatten(0, 1), available.repeat(len(drawn), 1)
            latent = torch.where(available.unsqueeze(-1), self.space.decode(w).to(z), 0.0)
        tokens, read, full = self.imputation(
            latent,
            w,
            available,
            self.space,
            self.joint,
            self.started,
            _draws(batch, w),
            blank.repeat(len(w) // len(z), 1, 1),
        )  # (S, B, M, D)
        losses, terms = self._losses(z, w, full, batch)
        completed = tokens.flatten(0, 1).unflatten(0, (-1, len(z)))
        tokens = self.dropout(completed, hyper.dropout, batch.noise.get("dropout.tokens"))
        S, B = tokens.shape[:2]
        read, bits = self._reading(read[:B], batch.available)
        logits = self.head(
            tokens.flatten(0, 1),
            read.repeat(S, 1),
            bits.repeat(S, 1),
            hyper.dropout,
            batch.noise.get("dropout.head"),
        )
        logits = mean_probability(logits.unflatten(0, (S, B)))
        losses = {"task": binary(logits, batch.y, self.class_weights), **losses}
        if config.align in SIMILARITIES:
            losses["align"] = self._similarity(z, tokens[0], batch.available)
        extras = {"w": w, "log_u": terms.log_u, "log_sf": terms.log_sf, "tokens": completed}
        return FusionOutput(logits, z, losses, extras)

    def _losses(
        self, z: Tensor, w: Tensor, full: Tensor, batch: FusionBatch
    ) -> tuple[dict[str, RowLoss], JointTerms]:
        """Likelihood terms of the coordinates, or of the completed ones as published."""
        config, available = self.config, batch.available
        if config.published.imputed_likelihood:
            w, available = full[0], torch.ones_like(available)
        elif len(w) > len(available):  # several draws of the latents
            available = available.repeat(len(w) // len(available), 1)
        losses, terms = copula_losses(
            self.joint,
            w,
            available,
            self.started,
            align=config.align == "copula",
            over=config.align_pairs,
            full=config.objective != "penalised",
        )
        if self.posterior is not None:
            losses = {
                "kl": divergence(self.posterior, self.joint, terms, batch.available, self.started)
            }
        return losses, terms

    def _reading(self, read: Tensor, available: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens that the fusion reads, and what it is told of availability, ``(B, M)`` bool."""
        if self.config.published.imputed_unread:
            read = read & available
        if self.config.published.two_tokens:
            read = read & (torch.arange(read.shape[1], device=read.device) < 2)
        return read, available & self.config.availability_bits

    def _similarity(self, z: Tensor, completed: Tensor, available: Tensor) -> RowLoss:
        config = self.config
        if config.published.imputed_likelihood:
            z, available = completed, torch.ones_like(available)
        return similarity(config.align, z, available, config.align_temperature, config.align_pairs)

    def objectives(self, hyper: Hyper) -> tuple[Objective, ...]:
        """Weigh the losses. Who is moved by what (docs/mathematics.md, section 7).

        task        encoders, head; through draws also mixtures and copula parameters
        copula      copula parameters; encoders and projection if `align` is `copula`
        marginal    mixtures
        align       encoders
        kl          encoders, projection, noise, mixtures, copula parameters
        likelihood  encoders, projection, mixtures, copula parameters
        """
        weights = {"task": hyper.task}
        if self.config.objective == "penalised":
            weights |= {"copula": hyper.lambda_cop, "marginal": torch.ones_like(hyper.lambda_cop)}
        else:
            name = "kl" if self.config.objective == "elbo" else "likelihood"
            weights[name] = hyper.lambda_cop
        if self.config.align in SIMILARITIES:
            weights["align"] = hyper.lambda_align
        return (Objective(weights),)

    def track(self, batch: FusionBatch, output: FusionOutput) -> None:
        """Let the copula space follow the embeddings."""
        if not self.config.published.raw_space:
            track(self.space, output.z.detach().double(), batch.available)

    def survey(self, batch: FusionBatch) -> Tensor:
        """The embeddings."""
        return self.embed(batch)

    @torch.no_grad()
    def renew(self, epoch: int, survey: Tensor, available: Tensor) -> dict[str, float]:
        """Whiten anew; start the mixtures after the warm-up, then let them follow by EM.

        Returns:
            `ks` (distance of u to uniform) and `ks_bound` (what chance alone explains), both of
            the worst coordinate; `effective_rank` and `spread` (smallest of the modalities');
            `kendall_tau` (mean over pairs and coordinates); `copula_NAME` (each natural parameter,
            mean over coordinates; a correlation by pair).
        """
        z = survey.double()
        if self.started == 0 and epoch >= self.config.warmup and self.config.projection == "cca":
            assert self.space.projection is not None  # the configuration sees to it
            self.space.projection.copy_(canonical_projection(z, available, self.joint.D))
        if not self.config.published.raw_space:
            self.space.update(z, available)
        w = self.space(z)
        if self.posterior is not None:
            w = self.posterior.sample(w, self._noise(epoch, w))
        if self.started > 0 or epoch >= self.config.warmup:
            self._follow(w, available)
        extent, rank = spread_and_rank(z, available)
        self.highest.copy_(torch.maximum(self.highest, torch.stack([extent, rank])))
        self.monitor.collapse(extent, rank, self.highest)
        figures = {"effective_rank": float(rank.min()), "spread": float(extent.min())}
        if self.started > 0:
            distance = ks_distance(self.joint.log_u(w, available), available)  # (M, D_c)
            bound = ks_bound(available.sum(0), distance.numel()).unsqueeze(-1)
            m, d = divmod(int((distance - bound).argmax()), distance.shape[-1])
            figures["ks"], figures["ks_bound"] = float(distance[m, d]), float(bound[m, 0])
            figures["kendall_tau"] = self._kendall_tau()
            figures |= self._dependence()
            self.monitor.margins(figures)
        return figures

    def _noise(self, epoch: int, w: Tensor) -> Tensor:
        """Uniform numbers for the latents of a whole pass, ``(N, M, D_c)``."""
        generator = torch.Generator().manual_seed(key(self.config.seed, "latent", epoch) >> 1)
        tiny = torch.finfo(w.dtype).tiny
        return torch.rand(w.shape, generator=generator, dtype=w.dtype).clamp_min(tiny).to(w.device)

    def _follow(self, w: Tensor, available: Tensor) -> None:
        if self.started > 0:
            self.joint.refresh(w, available, EM_STEPS)
        else:
            if not self.config.published.raw_space:
                self.monitor.width(directions(w, available), self.joint.D)
            for m, (spec, marginal) in enumerate(
                zip(self.specs, self.joint.marginals, strict=True)
            ):
                assert isinstance(marginal, MixtureMarginal)
                seed = key(self.config.seed, "mixture", spec.name)
                rows = w[:, m][available[:, m]]
                marginal.start(*start_mixture(rows, self.config.K, marginal.floor, seed))
        self.started.fill_(1.0)

    def _kendall_tau(self) -> float:
        if len(self.specs) == 1:
            return 0.0
        tau = self.joint.copula.kendall_tau(self.joint.copula_params())
        M = len(self.specs)
        if tau.shape[-2:] == (M, M):
            tau = tau[..., ~torch.eye(M, dtype=torch.bool)]
        return float(tau.mean())

    def _dependence(self) -> dict[str, float]:
        """Natural parameters of the copula for the history: means over coordinates, by pair."""
        if len(self.specs) == 1:
            return {}
        names = [spec.name for spec in self.specs]
        figures = {}
        for name, value in self.joint.copula_params().items():
            if name != "correlation":
                figures[f"copula_{name}"] = float(value.mean())
                continue
            for a, b in combinations(range(len(names)), 2):
                figures[f"copula_{name}_{names[a]}_{names[b]}"] = float(value[..., a, b].mean())
        return figures

    def _arguments(self, batches: Iterable[FusionBatch]) -> tuple[JointTerms, Tensor, Tensor]:
        """Terms of the joint density of some rows, what they have, and their coordinates."""
        batches = list(batches)
        w = torch.cat([self.space(self.embed(batch).double()) for batch in batches])
        if self.posterior is not None:
            w = self.posterior.sample(w, self._noise(0, w))
        available = torch.cat([batch.available for batch in batches])
        return self.joint.log_terms(w, available), available, w

    @torch.no_grad()
    def describe(
        self, batches: Iterable[FusionBatch], training: Iterable[FusionBatch] = ()
    ) -> dict[str, Any]:
        """Dependence, mixtures, histograms of u for every pair, and goodness of fit.

        `validation_ks` is the distance of u to uniform by coordinate, `validation_ks_bound` what
        chance alone explains. `held_out` is the log density of each family on validation rows,
        fitted to training rows, `held_out_by_K` that of mixtures of several sizes by modality;
        `validation_kendall_tau` is that of the best fit to validation.
        """
        terms, available, w = self._arguments(batches)
        names = [spec.name for spec in self.specs]
        distance = ks_distance(terms.log_u, available)
        training = list(training)
        seen = self._arguments(training) if training and len(names) > 1 else None
        unseen = (terms.log_u, terms.log_sf, available)
        return {
            **self.joint.describe(),
            "modalities": names,
            "u_histogram": pair_counts(names, terms.log_u.exp(), available),
            "validation_ks": dict(zip(names, distance.tolist(), strict=True)),
            "validation_ks_bound": dict(
                zip(names, ks_bound(available.sum(0), distance.numel()).tolist(), strict=True)
            ),
            "held_out": seen and held_out((seen[0].log_u, seen[0].log_sf, seen[1]), unseen),
            "held_out_by_K": seen
            and by_modality(
                names,
                (seen[2], seen[1]),
                (w, available),
                self.config.K,
                self.joint.floor,
                self.config.seed,
            ),
            "validation_kendall_tau": fitted_tau(self.joint, terms, available),
        }


def _joint(M: int, width: int, config: FuseConfig) -> JointModel:
    if config.published != Published():
        return PublishedJoint(M, width, config)
    return JointModel(
        M,
        width,
        config.K,
        config.copula,
        coupling=config.coupling,
        params=config.copula_params,
        weights=config.mixture_weights,
    )


def _idle(config: FuseConfig) -> tuple[str, ...]:
    """Parameters that nothing moves: see `FusionModel.idle`."""
    unaligned = ("space.projection",) if config.align == "none" else ()
    # One weight is always 1; components that start equal stay equal, so no weight matters.
    weightless = ("*logits",) if config.K == 1 or config.published.constant_start else ()
    return unaligned + weightless


def _draws(batch: FusionBatch, w: Tensor) -> Tensor | None:
    """Uniform numbers for the draws, ``(B, S, M, ·)``, or ``(S * B, 1, M, ·)`` for S latents."""
    uniforms = batch.noise.get("draw")
    if uniforms is None or len(w) == len(uniforms):
        return uniforms
    return uniforms.transpose(0, 1).flatten(0, 1).unsqueeze(1)
