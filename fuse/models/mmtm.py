"""MMTM: modalities re-weigh each other's channels inside the encoders (Joze et al., 2020)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..config import FuseConfig
from .branches import Branches
from .encoders import Encoders
from .interface import FusionBatch, FusionModel, FusionOutput, Hyper, ModalitySpec, Objective
from .layers import Dropout, masked_mean
from .task import binary

RATIO = 4
BLOCK = "block."


class MMTM(FusionModel):
    """Squeeze and excitation across modalities, between the two halves of the encoders.

    The means of all states are squeezed into one description, and a gate for each modality made
    from it scales its channels. Gates do not vary over an image, so a pooled film is as good as
    its feature map. As published each branch learns from a loss and a step of its own, then all
    from the joint one; the public code steps the image's network by the loss of the series, here
    a branch moves its encoder, its classifier and the block.

    An absent modality is squeezed as zeros, gates nothing and judges nothing.
    """

    reference: ClassVar[str] = "Joze et al., CVPR 2020"
    absence: ClassVar[str] = "zeros in the description, no gate, no loss"

    def __init__(self, specs: Sequence[ModalitySpec], config: FuseConfig, targets: int = 1) -> None:
        super().__init__(specs, config, targets)
        self.encoders = Encoders(self.specs, config.hidden, config.series_encoder)
        widths = self.encoders.between()
        squeezed = max(1, 2 * sum(widths) // RATIO)
        self.block = nn.ModuleDict(
            {
                "squeeze": nn.Linear(sum(widths), squeezed),
                "gates": nn.ModuleList(nn.Linear(squeezed, width) for width in widths),
            }
        )
        self.dropout = Dropout()
        self.branches = Branches(self.specs, config.hidden, targets)
        self.linear = nn.Linear(len(self.specs) * config.hidden, targets)

    def noise(self, training: bool) -> dict[str, tuple[int, ...]]:
        """Dropout of the embeddings."""
        tokens = (len(self.specs), self.config.hidden)
        return {"dropout.tokens": tokens} if training else {}

    def start(self, batches: Iterable[FusionBatch]) -> None:
        """Fit the normalisers."""
        self.encoders.start(batches)

    def gated(self, states: list[Tensor], real: list[Tensor]) -> list[Tensor]:
        """Scale the channels of every modality.

        Args:
            states: By modality, ``(B, L, W_m)``.
            real: By modality, ``(B, L)`` bool.
        """
        means = [
            masked_mean(torch.where(mask.unsqueeze(-1), values, 0.0), mask)
            for values, mask in zip(states, real, strict=True)
        ]
        gates = self.block["gates"]
        assert isinstance(gates, nn.ModuleList)
        squeezed = self.block["squeeze"](torch.cat(means, -1)).relu()
        return [
            values * gate(squeezed).sigmoid().unsqueeze(1)
            for values, gate in zip(states, gates, strict=True)
        ]

    def forward(self, batch: FusionBatch, hyper: Hyper) -> FusionOutput:
        """Predict and judge a batch."""
        states, real = self.encoders.states(batch)
        z = self.encoders.gather(self.gated(states, real), real, batch.available)
        tokens = self.dropout(z, hyper.dropout, batch.noise.get("dropout.tokens"))
        logits: Tensor = self.linear(tokens.flatten(1))
        losses = {"task": binary(logits, batch.y, self.class_weights)}
        losses |= self.branches.losses(self.branches(tokens), batch, self.class_weights)
        return FusionOutput(logits, z, losses, {})

    def objectives(self, hyper: Hyper) -> tuple[Objective, ...]:
        """A step for each branch, then one for the joint classifier and everything below it."""
        own = tuple(
            Objective({name: hyper.task}, (f"encoders.parts.{m}.", f"branches.parts.{m}.", BLOCK))
            for m, name in enumerate(self.branches.names)
        )
        return (*own, Objective({"task": hyper.task}, ("encoders.", BLOCK, "linear.")))
