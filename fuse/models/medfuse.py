"""MedFuse: the available embeddings as a short sequence (Hayat et al., 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..config import FuseConfig
from ..methods.medfuse import MedFuseOptions
from .encoders import Encoders
from .interface import FusionBatch, FusionModel, FusionOutput, Hyper, ModalitySpec
from .layers import LSTM, Dropout
from .task import binary


class MedFuse(FusionModel):
    """An LSTM over the embeddings that are there, in the order of the modalities.

    The published three-modal code reads two tokens whatever there is; here every available one
    is read, unless `two_tokens` asks for that.
    """

    Options: ClassVar[type[MedFuseOptions]] = MedFuseOptions
    reference: ClassVar[str] = "Hayat, Geras and Shamout, MLHC 2022"
    absence: ClassVar[str] = "a shorter sequence"

    def __init__(self, specs: Sequence[ModalitySpec], config: FuseConfig, targets: int = 1) -> None:
        super().__init__(specs, config, targets)
        self.encoders = Encoders(self.specs, config.hidden, config.series_encoder)
        self.dropout = Dropout()
        self.options = MedFuseOptions.of(config)
        self.lstm = LSTM(config.hidden, config.fusion_hidden, self.options.layers)
        self.linear = nn.Linear(config.fusion_hidden, targets)
        if self.options.type_embedding:
            self.kind = nn.Parameter(0.02 * torch.randn(len(self.specs), config.hidden))

    def noise(self, training: bool) -> dict[str, tuple[int, ...]]:
        """Dropout of the embeddings and of the last state."""
        tokens = (len(self.specs), self.config.hidden)
        head = (self.config.fusion_hidden,)
        return {"dropout.tokens": tokens, "dropout.head": head} if training else {}

    def forward(self, batch: FusionBatch, hyper: Hyper) -> FusionOutput:
        """Predict and judge a batch."""
        z = self.encoders(batch)
        tokens = self.dropout(z, hyper.dropout, batch.noise.get("dropout.tokens"))
        if self.options.type_embedding:
            tokens = tokens + self.kind
        read = batch.available
        if self.options.two_tokens:
            read = read & (torch.arange(read.shape[1], device=read.device) < 2)
        last: Tensor = self.lstm(tokens, read)[1]
        last = self.dropout(last, hyper.dropout, batch.noise.get("dropout.head"))
        logits: Tensor = self.linear(last)
        return FusionOutput(logits, z, {"task": binary(logits, batch.y, self.class_weights)}, {})
