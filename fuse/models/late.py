"""Late fusion: each modality says something by itself, and then these words become one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from ..config import FuseConfig
from ..methods.late import LateOptions
from .branches import Branches
from .encoders import Encoders
from .interface import FusionBatch, FusionModel, FusionOutput, Hyper, ModalitySpec, Objective
from .layers import Dropout
from .stacking import Stacking
from .task import binary


class Late(FusionModel):
    """Mean probability of the modalities that are there, or stacking; each learns by itself.

    Stacking is fitted to the validation stays once the epoch is chosen by the mean; until then the
    prediction is the mean.
    """

    Options: ClassVar[type[LateOptions]] = LateOptions
    absence: ClassVar[str] = "left out of the mean; stacking has weights for each pattern"
    models_interaction: ClassVar[bool] = False

    def __init__(self, specs: Sequence[ModalitySpec], config: FuseConfig, targets: int = 1) -> None:
        super().__init__(specs, config, targets)
        self.encoders = Encoders(self.specs, config.hidden, config.series_encoder)
        self.dropout = Dropout()
        self.branches = Branches(self.specs, config.hidden, targets)
        options = LateOptions.of(config)
        self.stacking: Stacking | None = None
        if options.combine == "stacking":
            self.stacking = Stacking(len(self.specs), targets, options.events)

    def noise(self, training: bool) -> dict[str, tuple[int, ...]]:
        """Dropout of the embeddings."""
        tokens = (len(self.specs), self.config.hidden)
        return {"dropout.tokens": tokens} if training else {}

    def forward(self, batch: FusionBatch, hyper: Hyper) -> FusionOutput:
        """Predict and judge a batch."""
        z = self.encoders(batch)
        tokens = self.dropout(z, hyper.dropout, batch.noise.get("dropout.tokens"))
        alone: Tensor = self.branches(tokens)  # (M, B, C)
        logits = self._mean(alone, batch)
        if self.stacking is not None:
            stacked = self.stacking(alone, batch.available, batch.pattern_id)
            logits = torch.where(self.stacking.fitted, stacked, logits)
        losses = {"task": binary(logits, batch.y, self.class_weights)}
        losses |= self.branches.losses(alone, batch, self.class_weights)
        return FusionOutput(logits, z, losses, {"alone": alone})

    @staticmethod
    def _mean(alone: Tensor, batch: FusionBatch) -> Tensor:
        absent = ~batch.available.T.unsqueeze(-1)
        # A sum of probabilities in logarithms: the logit of a mean of confident ones stays finite.
        event = nn.functional.logsigmoid(alone).masked_fill(absent, -torch.inf).logsumexp(0)
        none = nn.functional.logsigmoid(-alone).masked_fill(absent, -torch.inf).logsumexp(0)
        return event - none

    def fit_to_validation(
        self,
        outputs: Sequence[FusionOutput],
        available: Tensor,
        y: Tensor,
        patients: np.ndarray,
    ) -> Tensor | None:
        """Fit the stacking; logits of stays by weights fitted without their patients."""
        if self.stacking is None:
            return None
        alone = torch.cat([output.extras["alone"] for output in outputs], 1)
        return self.stacking.cross_fit(alone, available, y, patients)

    def describe(
        self, batches: Iterable[FusionBatch], training: Iterable[FusionBatch] = ()
    ) -> dict[str, Any] | None:
        """Tell the weights of the stacking by pattern."""
        if self.stacking is None:
            return None
        return {"modalities": [s.name for s in self.specs], "stacking": self.stacking.record}

    def objectives(self, hyper: Hyper) -> tuple[Objective, ...]:
        """Every branch's loss; the mean itself is not trained."""
        return (Objective(dict.fromkeys(self.branches.names, hyper.task)),)
