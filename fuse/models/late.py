"""Late fusion: the mean of what each modality says by itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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


class Late(FusionModel):
    """Mean probability of the modalities that are there; each learns by itself."""

    Options: ClassVar[type[NoHead]] = NoHead
    absence: ClassVar[str] = "left out of the mean"
    models_interaction: ClassVar[bool] = False

    def __init__(self, specs: Sequence[ModalitySpec], config: FuseConfig, targets: int = 1) -> None:
        super().__init__(specs, config, targets)
        self.encoders = Encoders(self.specs, config.hidden, config.series_encoder)
        self.dropout = Dropout()
        self.branches = Branches(self.specs, config.hidden, targets)

    def noise(self, training: bool) -> dict[str, tuple[int, ...]]:
        """Dropout of the embeddings."""
        tokens = (len(self.specs), self.config.hidden)
        return {"dropout.tokens": tokens} if training else {}

    def start(self, batches: Iterable[FusionBatch]) -> None:
        """Fit the normalisers."""
        self.encoders.start(batches)

    def forward(self, batch: FusionBatch, hyper: Hyper) -> FusionOutput:
        """Predict and judge a batch."""
        z = self.encoders(batch)
        tokens = self.dropout(z, hyper.dropout, batch.noise.get("dropout.tokens"))
        alone: Tensor = self.branches(tokens)  # (M, B, C)
        absent = ~batch.available.T.unsqueeze(-1)
        # A sum of probabilities in logarithms: the logit of a mean of confident ones stays finite.
        event = nn.functional.logsigmoid(alone).masked_fill(absent, -torch.inf).logsumexp(0)
        none = nn.functional.logsigmoid(-alone).masked_fill(absent, -torch.inf).logsumexp(0)
        logits = event - none
        losses = {"task": binary(logits, batch.y, self.class_weights)}
        losses |= self.branches.losses(alone, batch, self.class_weights)
        return FusionOutput(logits, z, losses, {})

    def objectives(self, hyper: Hyper) -> tuple[Objective, ...]:
        """Every branch's loss; the mean itself is not trained."""
        return (Objective(dict.fromkeys(self.branches.names, hyper.task)),)
