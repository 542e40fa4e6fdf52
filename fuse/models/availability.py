"""What the mere fact of a measurement says."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..config import FuseConfig
from ..methods.availability import AvailabilityOptions
from .interface import FusionBatch, FusionModel, FusionOutput, Hyper, ModalitySpec
from .task import binary


class Availability(FusionModel):
    """One linear map of the availability bits: no value of any modality is read.

    A film is ordered for the sicker patients; a model that beats this one has read the film.
    """

    Options: ClassVar[type[AvailabilityOptions]] = AvailabilityOptions
    needs: ClassVar[str] = "which modalities there are"
    absence: ClassVar[str] = "is all it reads"
    uses_all_modalities: ClassVar[bool] = False
    models_interaction: ClassVar[bool] = False

    def __init__(self, specs: Sequence[ModalitySpec], config: FuseConfig, targets: int = 1) -> None:
        super().__init__(specs, config, targets)
        self.linear = nn.Linear(len(self.specs), targets)

    def noise(self, training: bool) -> dict[str, tuple[int, ...]]:
        """None."""
        return {}

    def start(self, batches: Iterable[FusionBatch]) -> None:
        """Nothing to fit."""

    def forward(self, batch: FusionBatch, hyper: Hyper) -> FusionOutput:
        """Predict and judge a batch."""
        weight = self.linear.weight
        logits: Tensor = self.linear(batch.available.to(weight.dtype))
        z = torch.zeros_like(batch.available, dtype=weight.dtype).unsqueeze(-1)  # (B, M, 1)
        return FusionOutput(logits, z, {"task": binary(logits, batch.y, self.class_weights)}, {})
