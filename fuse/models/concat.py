"""Concatenation: absent modalities are zeros, and availability bits say so."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..config import FuseConfig
from .encoders import Encoders
from .interface import FusionBatch, FusionModel, FusionOutput, Hyper, ModalitySpec
from .layers import Dropout
from .task import binary


class Concat(FusionModel):
    """Embeddings and availability bits side by side, one hidden layer, one linear map.

    The neighbour that any other fusion has to beat.
    """

    absence: ClassVar[str] = "zeros and availability bits"

    def __init__(self, specs: Sequence[ModalitySpec], config: FuseConfig, targets: int = 1) -> None:
        super().__init__(specs, config, targets)
        self.encoders = Encoders(self.specs, config.hidden, config.series_encoder)
        width = len(self.specs) * (config.hidden + 1)
        self.layer = nn.Linear(width, config.fusion_hidden)
        self.dropout = Dropout()
        self.linear = nn.Linear(config.fusion_hidden, targets)

    def noise(self, training: bool) -> dict[str, tuple[int, ...]]:
        """Dropout of the embeddings and of the hidden layer."""
        tokens = (len(self.specs), self.config.hidden)
        head = (self.config.fusion_hidden,)
        return {"dropout.tokens": tokens, "dropout.head": head} if training else {}

    def start(self, batches: Iterable[FusionBatch]) -> None:
        """Fit the normalisers."""
        self.encoders.start(batches)

    def forward(self, batch: FusionBatch, hyper: Hyper) -> FusionOutput:
        """Predict and judge a batch."""
        z = self.encoders(batch)
        tokens = self.dropout(z, hyper.dropout, batch.noise.get("dropout.tokens"))
        joined = torch.cat([tokens.flatten(1), batch.available.to(z.dtype)], -1)
        hidden = self.layer(joined).relu()
        hidden = self.dropout(hidden, hyper.dropout, batch.noise.get("dropout.head"))
        logits: Tensor = self.linear(hidden)
        return FusionOutput(logits, z, {"task": binary(logits, batch.y, self.class_weights)}, {})
