"""ShaSpec: one shared encoder and one of its own for every modality (Wang et al., 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..config import FuseConfig
from ..methods.shaspec import ShaSpecOptions
from .encoders import Encoders
from .interface import (
    FusionBatch,
    FusionModel,
    FusionOutput,
    Hyper,
    ModalitySpec,
    Objective,
    RowLoss,
)
from .layers import Dropout
from .task import binary


class ShaSpec(FusionModel):
    """Shared and specific features of every modality, fused as a residual of the shared ones.

    Shared features are drawn together by their distance; the modality is told from the specific
    ones. The publication's encoders are networks over images; here they are perceptrons over the
    embedding that every method of cm2 starts from.

    An absent modality is given the shared features of those that are there.
    """

    Options: ClassVar[type[ShaSpecOptions]] = ShaSpecOptions
    reference: ClassVar[str] = "Wang et al., CVPR 2023"
    absence: ClassVar[str] = "the shared features of the others"

    def __init__(self, specs: Sequence[ModalitySpec], config: FuseConfig, targets: int = 1) -> None:
        super().__init__(specs, config, targets)
        self.options = ShaSpecOptions.of(config)
        D, M = config.hidden, len(self.specs)
        self.encoders = Encoders(self.specs, D, config.series_encoder)
        self.dropout = Dropout()
        self.shared = perceptron(D)
        self.specific = nn.ModuleList(perceptron(D) for _ in self.specs)
        self.residual = nn.Linear(2 * D, D)
        self.kind = nn.Linear(D, M)
        self.layer = nn.Linear(M * D, config.fusion_hidden)
        self.linear = nn.Linear(config.fusion_hidden, targets)

    def noise(self, training: bool) -> dict[str, tuple[int, ...]]:
        """Dropout of the embeddings and of the hidden layer."""
        tokens = (len(self.specs), self.config.hidden)
        head = (self.config.fusion_hidden,)
        return {"dropout.tokens": tokens, "dropout.head": head} if training else {}

    def forward(self, batch: FusionBatch, hyper: Hyper) -> FusionOutput:
        """Predict and judge a batch."""
        tokens = self.dropout(
            self.encoders(batch), hyper.dropout, batch.noise.get("dropout.tokens")
        )
        there = batch.available.unsqueeze(-1)
        shared = torch.where(there, self.shared(tokens), 0.0)  # (B, M, D)
        specific = torch.stack([part(tokens[:, m]) for m, part in enumerate(self.specific)], 1)
        fused = shared + self.residual(torch.cat([shared, specific], -1))
        stand_in = self.stand_in(shared, batch.available).unsqueeze(1)
        hidden = self.layer(torch.where(there, fused, stand_in).flatten(1)).relu()
        hidden = self.dropout(hidden, hyper.dropout, batch.noise.get("dropout.head"))
        logits: Tensor = self.linear(hidden)
        losses = {
            "task": binary(logits, batch.y, self.class_weights),
            "align": distance(shared, batch.available),
            "classify": told_apart(self.kind(specific), batch.available),
        }
        return FusionOutput(logits, shared, losses, {})

    def stand_in(self, shared: Tensor, available: Tensor) -> Tensor:
        """Shared features for what is absent, ``(B, D)``.

        Args:
            shared: ``(B, M, D)``, zero where absent.
            available: ``(B, M)`` bool.
        """
        if self.options.stand_in == "first":
            first = available & (available.cumsum(1) == 1)
            return torch.where(first.unsqueeze(-1), shared, 0.0).sum(1)
        return shared.sum(1) / available.sum(1, keepdim=True).clamp(min=1)

    def objectives(self, hyper: Hyper) -> tuple[Objective, ...]:
        """All losses at once."""
        one = torch.ones_like(hyper.task)
        weights = {
            "task": hyper.task,
            "align": self.options.weight_align * one,
            "classify": self.options.weight_classify * one,
        }
        return (Objective(weights),)


def perceptron(size: int) -> nn.Sequential:
    """Two linear maps with a GELU between them, all of one width."""
    return nn.Sequential(nn.Linear(size, size), nn.GELU(), nn.Linear(size, size))


def distance(shared: Tensor, available: Tensor) -> RowLoss:
    """Mean absolute difference of shared features over the pairs that are there.

    Args:
        shared: ``(B, M, D)``.
        available: ``(B, M)`` bool.
    """
    pairs = list(combinations(range(shared.shape[1]), 2))
    left, right = [a for a, _ in pairs], [b for _, b in pairs]
    there = available[:, left] & available[:, right]
    value = (shared[:, left] - shared[:, right]).abs().mean(-1)
    mean = torch.where(there, value, 0.0).sum(1) / there.sum(1).clamp(min=1)
    return RowLoss(mean, there.any(1))


def told_apart(scores: Tensor, available: Tensor) -> RowLoss:
    """Cross-entropy of the modality itself, averaged over those that are there.

    Args:
        scores: Of modality m to be each of M, ``(B, M, M)``.
        available: ``(B, M)`` bool.
    """
    own = -scores.log_softmax(-1).diagonal(dim1=-2, dim2=-1)
    mean = torch.where(available, own, 0.0).sum(1) / available.sum(1).clamp(min=1)
    return RowLoss(mean, available.any(1))
