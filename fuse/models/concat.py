"""Concatenation: something stands in for absent modalities, and availability bits say so."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..config import FuseConfig
from ..methods.concat import ConcatOptions
from .blank import Blanks
from .encoders import Encoders
from .interface import FusionBatch, FusionModel, FusionOutput, Hyper, ModalitySpec
from .layers import Dropout, keep_some
from .task import binary


class Concat(FusionModel):
    """Embeddings and availability bits side by side, one hidden layer, one linear map.

    The neighbour that any other fusion has to beat.
    """

    Options: ClassVar[type[ConcatOptions]] = ConcatOptions
    absence: ClassVar[str] = (
        "zeros, the mean, a learned vector or an empty input; availability bits"
    )

    mean: Tensor

    def __init__(self, specs: Sequence[ModalitySpec], config: FuseConfig, targets: int = 1) -> None:
        super().__init__(specs, config, targets)
        self.encoders = Encoders(self.specs, config.hidden, config.series_encoder)
        self.options = ConcatOptions.of(config)
        M = len(self.specs)
        width = M * (config.hidden + self.options.bits)
        self.layer = nn.Linear(width, config.fusion_hidden)
        self.dropout = Dropout()
        self.linear = nn.Linear(config.fusion_hidden, targets)
        if self.options.missing == "learned":
            self.learned = nn.Parameter(0.02 * torch.randn(M, config.hidden))
        if self.options.missing == "blank":
            self.blanks = Blanks(self.specs)
        if self.options.missing == "mean":
            self.register_buffer("mean", torch.zeros(M, config.hidden))

    def noise(self, training: bool) -> dict[str, tuple[int, ...]]:
        """Dropout of the embeddings and of the hidden layer; modalities withheld."""
        if not training:
            return {}
        M = len(self.specs)
        shapes: dict[str, tuple[int, ...]] = {"dropout.tokens": (M, self.config.hidden)}
        shapes |= {"dropout.head": (self.config.fusion_hidden,)}
        return shapes | ({"withheld": (M,)} if self.options.modality_dropout else {})

    def forward(self, batch: FusionBatch, hyper: Hyper) -> FusionOutput:
        """Predict and judge a batch."""
        kept = keep_some(
            batch.available, self.options.modality_dropout, batch.noise.get("withheld")
        )
        z, tokens = self.completed(dataclasses.replace(batch, available=kept))
        tokens = self.dropout(tokens, hyper.dropout, batch.noise.get("dropout.tokens"))
        joined = tokens.flatten(1)
        if self.options.bits:
            joined = torch.cat([joined, kept.to(joined.dtype)], -1)
        hidden = self.layer(joined).relu()
        hidden = self.dropout(hidden, hyper.dropout, batch.noise.get("dropout.head"))
        logits: Tensor = self.linear(hidden)
        return FusionOutput(logits, z, {"task": binary(logits, batch.y, self.class_weights)}, {})

    def completed(self, batch: FusionBatch) -> tuple[Tensor, Tensor]:
        """Embeddings ``(B, M, D)``, and those with what stands in for the absent ones."""
        there = batch.available.unsqueeze(-1)
        if self.options.missing == "blank":
            tokens = self.encoders(self.blanks(batch))
            return torch.where(there, tokens, 0.0), tokens
        z = self.encoders(batch)
        if self.options.missing == "zero":
            return z, z
        stand_in = self.learned if self.options.missing == "learned" else self.mean
        return z, torch.where(there, z, stand_in.to(z.dtype))

    @torch.no_grad()
    def refresh(self, epoch: int, batches: Iterable[FusionBatch]) -> dict[str, float]:
        """Renew the mean embeddings of the training stays."""
        if self.options.missing == "mean":
            batches = list(batches)
            total = torch.stack([self.encoders(batch).double().sum(0) for batch in batches]).sum(0)
            count = torch.stack([batch.available.sum(0) for batch in batches]).sum(0)
            self.mean.copy_(total / count.clamp(min=1).unsqueeze(-1))
        return {}
