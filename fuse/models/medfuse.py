"""MedFuse: the available embeddings as a short sequence (Hayat et al., 2022)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from torch import Tensor, nn

from ..config import FuseConfig
from .encoders import Encoders
from .interface import FusionBatch, FusionModel, FusionOutput, Hyper, ModalitySpec
from .layers import LSTM, Dropout
from .task import binary


class MedFuse(FusionModel):
    """A 1-layer LSTM over the embeddings that are there, in the order of the modalities.

    The published three-modal code reads two tokens whatever there is; here every available one
    is read.
    """

    reference: ClassVar[str] = "Hayat, Geras and Shamout, MLHC 2022"
    absence: ClassVar[str] = "a shorter sequence"

    def __init__(self, specs: Sequence[ModalitySpec], config: FuseConfig, targets: int = 1) -> None:
        super().__init__(specs, config, targets)
        self.encoders = Encoders(self.specs, config.hidden, config.series_encoder)
        self.dropout = Dropout()
        self.lstm = LSTM(config.hidden, config.fusion_hidden, layers=1)
        self.linear = nn.Linear(config.fusion_hidden, targets)

    def noise(self, training: bool) -> dict[str, tuple[int, ...]]:
        """Dropout of the embeddings and of the last state."""
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
        last: Tensor = self.lstm(tokens, batch.available)[1]
        last = self.dropout(last, hyper.dropout, batch.noise.get("dropout.head"))
        logits: Tensor = self.linear(last)
        return FusionOutput(logits, z, {"task": binary(logits, batch.y, self.class_weights)}, {})
