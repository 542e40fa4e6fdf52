"""MMTM: modalities re-weigh each other's channels inside the encoders (Joze et al., 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..config import FuseConfig
from ..methods.mmtm import MMTMOptions
from .blank import Blanks
from .branches import Branches
from .encoders import Encoders, anchor_of
from .interface import FusionBatch, FusionModel, FusionOutput, Hyper, ModalitySpec, Objective
from .layers import Dropout, masked_mean
from .task import binary

RATIO = 4
BLOCK = "block."


class Block(nn.Module):
    """One description of some modalities, and a gate for each made from it.

    Args:
        widths: Widths of their states.
        options: See `MMTMOptions`.
    """

    def __init__(self, widths: Sequence[int], options: MMTMOptions) -> None:
        super().__init__()
        squeezed = max(1, 2 * sum(widths) // RATIO)
        self.options = options
        self.squeeze = nn.Linear(sum(widths), squeezed)
        self.gates = nn.ModuleList(nn.Linear(squeezed, width) for width in widths)

    def forward(self, states: list[Tensor], real: list[Tensor]) -> list[Tensor]:
        """Scale the channels of every modality.

        Args:
            states: By modality, ``(B, L, W_m)``.
            real: By modality, ``(B, L)`` bool.
        """
        means = [
            masked_mean(torch.where(mask.unsqueeze(-1), values, 0.0), mask)
            for values, mask in zip(states, real, strict=True)
        ]
        squeezed = self.squeeze(torch.cat(means, -1))
        if self.options.squeeze_act == "relu":
            squeezed = squeezed.relu()
        return [
            values * (self.options.gate_scale * gate(squeezed).sigmoid()).unsqueeze(1)
            for values, gate in zip(states, self.gates, strict=True)
        ]


class MMTM(FusionModel):
    """Squeeze and excitation across modalities, between the two halves of the encoders.

    The means of all states are squeezed into one description, and a gate for each modality made
    from it scales its channels. Gates do not vary over an image, so a pooled film is as good as
    its feature map. As published each branch learns from a loss and a step of its own, then all
    from the joint one; the public code steps the image's network by the loss of the series, here
    a branch moves its encoder, its classifier and the block.

    An absent modality is squeezed as zeros, is not gated and judges nothing; with `missing =
    blank` an empty input is squeezed and gated in its place, and judges nothing either.
    """

    Options: ClassVar[type[MMTMOptions]] = MMTMOptions
    reference: ClassVar[str] = "Joze et al., CVPR 2020"
    absence: ClassVar[str] = "zeros in the description, no gate, no loss; or an empty input"

    def __init__(self, specs: Sequence[ModalitySpec], config: FuseConfig, targets: int = 1) -> None:
        super().__init__(specs, config, targets)
        self.encoders = Encoders(self.specs, config.hidden, config.series_encoder)
        widths = self.encoders.between()
        self.options = MMTMOptions.of(config)
        self.anchor = anchor_of(self.specs)
        self.others = [m for m in range(len(widths)) if m != self.anchor]
        everything = tuple(range(len(widths)))
        pairs = [(self.anchor, m) for m in self.others]
        self.groups = [everything] if self.options.pairing == "joint" else pairs
        self.block = nn.ModuleList(
            Block([widths[m] for m in group], self.options) for group in self.groups
        )
        self.blanks = Blanks(self.specs) if self.options.missing == "blank" else nn.Identity()
        self.dropout = Dropout()
        self.branches = Branches(self.specs, config.hidden, targets)
        if self.options.predict == "joint":
            self.linear = nn.Linear(len(self.specs) * config.hidden, targets)

    def noise(self, training: bool) -> dict[str, tuple[int, ...]]:
        """Dropout of the embeddings."""
        tokens = (len(self.specs), self.config.hidden)
        return {"dropout.tokens": tokens} if training else {}

    def gated(self, states: list[Tensor], real: list[Tensor]) -> list[Tensor]:
        """Let every block act, one after the other.

        Args:
            states: By modality, ``(B, L, W_m)``.
            real: By modality, ``(B, L)`` bool.
        """
        states = list(states)
        for group, block in zip(self.groups, self.block, strict=True):
            scaled = block([states[m] for m in group], [real[m] for m in group])
            for m, values in zip(group, scaled, strict=True):
                states[m] = values
        return states

    def forward(self, batch: FusionBatch, hyper: Hyper) -> FusionOutput:
        """Predict and judge a batch."""
        read: FusionBatch = self.blanks(batch)
        states, real = self.encoders.states(read)
        z = self.encoders.gather(self.gated(states, real), real, read.available)
        tokens = self.dropout(z, hyper.dropout, batch.noise.get("dropout.tokens"))
        alone: Tensor = self.branches(tokens)  # (M, B, C)
        logits: Tensor
        if self.options.predict == "joint":
            logits = self.linear(tokens.flatten(1))
        else:
            there = batch.available.T.unsqueeze(-1)
            logits = torch.where(there, alone, 0.0).sum(0) / there.sum(0)
        losses = {"task": binary(logits, batch.y, self.class_weights)}
        losses |= self.branches.losses(alone, batch, self.class_weights)
        z = torch.where(batch.available.unsqueeze(-1), z, 0.0)
        return FusionOutput(logits, z, losses, {})

    def objectives(self, hyper: Hyper) -> tuple[Objective, ...]:
        """A step for each branch, then one for the joint classifier and everything below it."""
        own = []
        for m, name in enumerate(self.branches.names):
            crossed = self.options.crossed_steps and m == self.anchor and self.others
            moved = self.others[0] if crossed else m
            prefixes = (f"encoders.parts.{moved}.", f"branches.parts.{m}.", BLOCK)
            own.append(Objective({name: hyper.task}, prefixes))
        if self.options.predict == "mean":
            return tuple(own)
        return (*own, Objective({"task": hyper.task}, ("encoders.", BLOCK, "linear.")))
