"""A masked-token transformer: the modern default for any set of modalities."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..config import FuseConfig
from ..methods.transformer import TransformerOptions
from .attention import Summary
from .encoders import Encoders
from .interface import FusionBatch, FusionModel, FusionOutput, Hyper, ModalitySpec
from .layers import Dropout, keep_some
from .task import binary


class TokenTransformer(FusionModel):
    """Self-attention over one token for each modality that is there, and one that gathers.

    A token is told apart by a learned vector of its modality. In training modalities are withheld
    at random, so that every pattern of absence is met.
    """

    Options: ClassVar[type[TransformerOptions]] = TransformerOptions
    absence: ClassVar[str] = "its token is read by no one"

    def __init__(self, specs: Sequence[ModalitySpec], config: FuseConfig, targets: int = 1) -> None:
        super().__init__(specs, config, targets)
        self.options = TransformerOptions.of(config)
        self.encoders = Encoders(self.specs, config.hidden, config.series_encoder)
        self.projection = nn.Linear(config.hidden, config.fusion_hidden)
        self.kind = nn.Parameter(0.02 * torch.randn(len(self.specs), config.fusion_hidden))
        self.summary = Summary(config.fusion_hidden, self.options.layers)
        self.dropout = Dropout()
        self.linear = nn.Linear(config.fusion_hidden, targets)

    def noise(self, training: bool) -> dict[str, tuple[int, ...]]:
        """Dropout of the embeddings and of what is gathered; modalities withheld."""
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
        z = self.encoders(dataclasses.replace(batch, available=kept))
        tokens = self.dropout(z, hyper.dropout, batch.noise.get("dropout.tokens"))
        gathered = self.summary(self.projection(tokens) + self.kind, kept)
        gathered = self.dropout(gathered, hyper.dropout, batch.noise.get("dropout.head"))
        logits: Tensor = self.linear(gathered)
        return FusionOutput(logits, z, {"task": binary(logits, batch.y, self.class_weights)}, {})
