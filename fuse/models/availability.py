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
    """The share of events among the training stays with the same pattern of availability.

    No value of any modality is read. A film is ordered for the sicker patients; a model that beats
    this one has read the film.
    """

    Options: ClassVar[type[AvailabilityOptions]] = AvailabilityOptions
    needs: ClassVar[str] = "which modalities there are; fitted as a whole"
    absence: ClassVar[str] = "is all it reads"
    vmappable: ClassVar[bool] = False
    uses_all_modalities: ClassVar[bool] = False
    models_interaction: ClassVar[bool] = False

    def __init__(self, specs: Sequence[ModalitySpec], config: FuseConfig, targets: int = 1) -> None:
        super().__init__(specs, config, targets)
        self.options = AvailabilityOptions.of(config)
        self.odds = nn.Parameter(torch.zeros(2 ** len(self.specs), targets))

    @torch.no_grad()
    def fit(self, batches: Iterable[FusionBatch]) -> None:
        """Count events by pattern; a pattern that no stay has takes the rate of all."""
        batches = list(batches)
        pattern = torch.cat([batch.pattern_id for batch in batches])
        y = torch.cat([batch.y for batch in batches]).double()
        known = ~y.isnan()
        weights = self.class_weights.double()
        counts = [
            torch.zeros(self.odds.shape, dtype=torch.double, device=y.device).index_add_(
                0, pattern, torch.where(known & (y == label), weights[label], 0.0)
            )
            for label in (0, 1)
        ]
        without, events = counts
        rate = events.sum(0) / (events.sum(0) + without.sum(0))
        prior = self.options.prior
        self.odds.copy_(torch.log(events + prior * rate) - torch.log(without + prior * (1 - rate)))

    def choose(self, candidate: int) -> dict[str, float]:
        """There is one solution."""
        return {}

    def forward(self, batch: FusionBatch, hyper: Hyper) -> FusionOutput:
        """Predict and judge a batch."""
        logits: Tensor = self.odds[batch.pattern_id]
        z = torch.zeros_like(batch.available, dtype=logits.dtype).unsqueeze(-1)  # (B, M, 1)
        return FusionOutput(logits, z, {"task": binary(logits, batch.y, self.class_weights)}, {})


__all__ = ["Availability"]
