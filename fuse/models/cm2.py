"""CM2: copula-aligned embeddings of any number of modalities, imputed and fused by an LSTM."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...errors import ConfigError
from ..config import FuseConfig
from ..copula.joint import JointModel
from ..copula.marginals import MixtureMarginal
from ..copula.monitors import effective_rank, ks_bound, ks_distance, spread
from ..copula.whitening import CopulaSpace
from ..random import key
from .alignment import EM_STEPS, copula_losses, fitted_tau, start_mixture, track
from .encoders import Encoders
from .heads import LSTMHead, mean_probability
from .imputation import RANDOM, Imputation
from .interface import FusionBatch, FusionModel, FusionOutput, Hyper, ModalitySpec, Objective
from .layers import Dropout, unit_scale
from .task import binary

_log = logging.getLogger("cm2.fuse")

BINS = 10
KS_LIMIT, SPREAD_LIMIT = 0.1, 1e-3


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

    learns_alone: ClassVar[tuple[str, ...]] = ("joint.marginals.",)
    dependence: ClassVar[tuple[str, ...]] = ("joint.raw",)

    started: Tensor

    def __init__(self, specs: Sequence[ModalitySpec], config: FuseConfig, targets: int = 1) -> None:
        super().__init__(specs, config, targets)
        M, D = len(self.specs), config.hidden
        width = config.copula_dim or D
        self.encoders = Encoders(self.specs, D)
        self.space = CopulaSpace(M, D, width, seed=key(config.seed, "projection") >> 1).double()
        self.joint = JointModel(
            M,
            width,
            config.K,
            config.copula,
            coupling=config.coupling,
            params=config.copula_params,
            weights=config.mixture_weights,
        ).double()
        self.imputation = Imputation(config.impute, M, D)
        self.dropout = Dropout()
        self.head = LSTMHead(D, M, config.fusion_hidden, targets)
        self.register_buffer("started", torch.zeros(()))
        self._said: set[str] = set()

    def noise(self, training: bool) -> dict[str, tuple[int, ...]]:
        """Dropout of tokens and head; uniforms for the draws of absent modalities."""
        M, config = len(self.specs), self.config
        shapes: dict[str, tuple[int, ...]] = {}
        if training:
            shapes = {"dropout.tokens": (M, config.hidden), "dropout.head": (config.fusion_hidden,)}
        if config.impute in RANDOM:
            shapes["draw"] = (1 if training else config.draws, M, self.joint.noise_size)
        return shapes

    def start(self, batches: Iterable[FusionBatch]) -> None:
        """Fit the normalisers, and see that every mixture will have enough rows.

        Raises:
            ConfigError: A modality has fewer training rows than its mixture has components.
        """
        batches = list(batches)
        self.encoders.start(batches)
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

    def forward(self, batch: FusionBatch, hyper: Hyper) -> FusionOutput:
        """Predict and judge a batch."""
        z = self.embed(batch)
        w = self.space(z.double(), batch.available)
        align = self.config.align == "copula"
        losses, terms = copula_losses(self.joint, w, batch.available, self.started, align)
        tokens, read = self.imputation(
            z, w, batch.available, self.space, self.joint, self.started, batch.noise.get("draw")
        )  # (S, B, M, D)
        tokens = self.dropout(tokens, hyper.dropout, batch.noise.get("dropout.tokens"))
        S, B = tokens.shape[:2]
        logits = self.head(
            tokens.flatten(0, 1),
            read.repeat(S, 1),
            batch.available.repeat(S, 1),
            hyper.dropout,
            batch.noise.get("dropout.head"),
        )
        logits = mean_probability(logits.unflatten(0, (S, B)))
        extras = {"w": w, "log_u": terms.log_u, "log_sf": terms.log_sf}
        return FusionOutput(logits, z, {"task": binary(logits, batch.y), **losses}, extras)

    def objectives(self, hyper: Hyper) -> tuple[Objective, ...]:
        """Task, weighted copula term, and the mixtures' own likelihood."""
        one = torch.ones_like(hyper.lambda_cop)
        return (Objective({"task": one, "copula": hyper.lambda_cop, "marginal": one}),)

    def track(self, batch: FusionBatch, output: FusionOutput) -> None:
        """Let the copula space follow the embeddings."""
        track(self.space, output.z.detach().double(), batch.available)

    @torch.no_grad()
    def refresh(self, epoch: int, batches: Iterable[FusionBatch]) -> dict[str, float]:
        """Whiten anew; start the mixtures after the warm-up, then let them follow by EM.

        Returns:
            `ks` (distance of u to uniform) and `ks_bound` (what chance alone explains), both of
            the worst coordinate; `effective_rank` and `spread` (smallest of the modalities');
            `kendall_tau` (mean over pairs and coordinates).
        """
        batches = list(batches)
        z = torch.cat([self.embed(batch) for batch in batches]).double()
        available = torch.cat([batch.available for batch in batches])
        self.space.update(z, available)
        w = self.space(z)
        if self.started > 0 or epoch >= self.config.warmup:
            self._follow(w, available)
        figures = {
            "effective_rank": float(effective_rank(z, available).min()),
            "spread": float(spread(z, available).min()),
        }
        if self.started > 0:
            distance = ks_distance(self.joint.log_terms(w, available).log_u, available)  # (M, D_c)
            bound = ks_bound(available.sum(0), distance.numel()).unsqueeze(-1)
            m, d = divmod(int((distance - bound).argmax()), distance.shape[-1])
            figures["ks"], figures["ks_bound"] = float(distance[m, d]), float(bound[m, 0])
            figures["kendall_tau"] = self._kendall_tau()
        self._warn(figures)
        return figures

    def _follow(self, w: Tensor, available: Tensor) -> None:
        if self.started > 0:
            self.joint.refresh(w, available, EM_STEPS)
        else:
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

    def _warn(self, figures: dict[str, float]) -> None:
        if figures["spread"] < SPREAD_LIMIT:
            self._say(
                f"The embeddings of a modality are collapsing (spread {figures['spread']:.2g}). "
                "Lower --lambda-cop or --lr."
            )
        if figures.get("ks", 0.0) > max(KS_LIMIT, figures.get("ks_bound", 0.0)):
            self._say(
                f"A margin is {figures['ks']:.2f} away from uniform, so the copula term is "
                "not to be trusted. Raise --K or lower --lr."
            )

    def _say(self, text: str) -> None:
        remedy = text.rpartition(". ")[2]
        if remedy not in self._said:
            self._said.add(remedy)
            _log.warning(text)

    @torch.no_grad()
    def describe(self, batches: Iterable[FusionBatch]) -> dict[str, Any]:
        """Dependence, mixtures, histograms of u for every pair, and the best fitting tau."""
        batches = list(batches)
        w = torch.cat([self.space(self.embed(batch).double()) for batch in batches])
        available = torch.cat([batch.available for batch in batches])
        terms = self.joint.log_terms(w, available)
        u = terms.log_u.exp()
        names = [spec.name for spec in self.specs]
        histograms = {}
        for a, b in combinations(range(len(names)), 2):
            both = available[:, a] & available[:, b]
            pair = torch.stack([u[both][:, a].flatten(), u[both][:, b].flatten()], 1)
            cells = (pair * BINS).long().clamp(0, BINS - 1)
            counts = torch.bincount(cells[:, 0] * BINS + cells[:, 1], minlength=BINS**2)
            histograms[f"{names[a]},{names[b]}"] = counts.reshape(BINS, BINS).tolist()
        return {
            **self.joint.describe(),
            "modalities": names,
            "u_histogram": histograms,
            "validation_ks": dict(
                zip(names, ks_distance(terms.log_u, available).tolist(), strict=True)
            ),
            "validation_kendall_tau": fitted_tau(self.joint, terms, available),
        }
