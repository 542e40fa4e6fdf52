"""Unified: one linear classifier over all embeddings (Hayat et al., 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..config import FuseConfig
from ..methods.base import NoHead
from .branches import Branches
from .encoders import Encoders
from .interface import FusionBatch, FusionModel, FusionOutput, Hyper, ModalitySpec, Objective
from .layers import Dropout
from .task import binary


class Unified(FusionModel):
    """One linear map of all embeddings side by side; absent ones are zero."""

    Options: ClassVar[type[NoHead]] = NoHead
    reference: ClassVar[str] = "Hayat et al., 2021 (arXiv 2111.02710)"
    absence: ClassVar[str] = "zeros"
    models_interaction: ClassVar[bool] = False

    def __init__(self, specs: Sequence[ModalitySpec], config: FuseConfig, targets: int = 1) -> None:
        super().__init__(specs, config, targets)
        self.encoders = Encoders(self.specs, config.hidden, config.series_encoder)
        self.dropout = Dropout()
        self.linear = nn.Linear(len(self.specs) * config.hidden, targets)

    def noise(self, training: bool) -> dict[str, tuple[int, ...]]:
        """Dropout of the embeddings."""
        tokens = (len(self.specs), self.config.hidden)
        return {"dropout.tokens": tokens} if training else {}

    def embed(self, batch: FusionBatch, hyper: Hyper) -> tuple[Tensor, Tensor]:
        """Embeddings ``(B, M, D)`` before and after dropout."""
        z: Tensor = self.encoders(batch)
        return z, self.dropout(z, hyper.dropout, batch.noise.get("dropout.tokens"))

    def forward(self, batch: FusionBatch, hyper: Hyper) -> FusionOutput:
        """Predict and judge a batch."""
        z, tokens = self.embed(batch, hyper)
        logits: Tensor = self.linear(tokens.flatten(1))
        return FusionOutput(logits, z, {"task": binary(logits, batch.y, self.class_weights)}, {})


class UnifiedDynamic(Unified):
    """Unified with a classifier for each modality, which answers for a stay that has no other.

    The publication trains on paired and unpaired stays in turns; its schedule was never
    published. This is our reading: every loss on every stay it is defined for, all weights 1.
    """

    def __init__(self, specs: Sequence[ModalitySpec], config: FuseConfig, targets: int = 1) -> None:
        super().__init__(specs, config, targets)
        self.branches = Branches(self.specs, config.hidden, targets)

    def forward(self, batch: FusionBatch, hyper: Hyper) -> FusionOutput:
        """Predict and judge a batch."""
        z, tokens = self.embed(batch, hyper)
        joint: Tensor = self.linear(tokens.flatten(1))
        alone: Tensor = self.branches(tokens)  # (M, B, C)
        only = torch.where(batch.available.T.unsqueeze(-1), alone, 0.0).sum(0)
        several = (batch.available.sum(1) >= 2).unsqueeze(-1)
        logits = torch.where(several, joint, only)
        losses = {"task": binary(logits, batch.y, self.class_weights)}
        losses["task.joint"] = binary(joint, batch.y, self.class_weights)
        losses |= self.branches.losses(alone, batch, self.class_weights)
        return FusionOutput(logits, z, losses, {})

    def objectives(self, hyper: Hyper) -> tuple[Objective, ...]:
        """The joint classifier's loss and every branch's."""
        return (Objective(dict.fromkeys(["task.joint", *self.branches.names], hyper.task)),)
