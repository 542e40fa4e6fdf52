"""DAFT: one modality's states shifted and scaled by the others (Pölsterl et al., 2021)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..config import FuseConfig
from ..methods.daft import DAFTOptions
from .blank import Blanks
from .encoders import Encoder, Encoders, anchor_of, map_of
from .interface import FusionBatch, FusionModel, FusionOutput, Hyper, ModalitySpec
from .layers import Dropout, masked_mean
from .task import binary

RATIO = 7


ACTIVATIONS = {"linear": lambda x: x, "sigmoid": torch.sigmoid, "tanh": torch.tanh}


class Affine(nn.Module):
    """Scale and shift of states from their own mean and another modality's embedding.

    Args:
        width: Width W of the states.
        other: Width of the other modality's embedding.
        options: See `DAFTOptions`.
    """

    def __init__(self, width: int, other: int, options: DAFTOptions) -> None:
        super().__init__()
        self.options = options
        bottleneck = options.bottleneck or max(16, (width + other) // RATIO)
        outputs = 2 if options.modulate == "both" else 1
        self.squeeze = nn.Linear(width + other, bottleneck, bias=False)
        self.expand = nn.Linear(bottleneck, outputs * width, bias=False)

    def forward(self, states: Tensor, mean: Tensor, other: Tensor) -> Tensor:
        """Modulate states.

        Args:
            states: ``(B, L, W)``.
            mean: Their mean, ``(B, W)``.
            other: Embedding of the other modality, ``(B, other)``.
        """
        both = self.squeeze(torch.cat([other, mean], -1)).relu()
        parts = self.expand(both).unsqueeze(1).split(states.shape[-1], -1)
        if self.options.modulate != "shift":
            scale = ACTIVATIONS[self.options.scale_act](parts[0])
            # Without biases the scale starts near 0: counted from 1 it does not silence the states.
            states = states * (scale + 1 if self.options.scale_from == "one" else scale)
        return states if self.options.modulate == "scale" else states + parts[-1]


class Residual(nn.Module):
    """A residual block that treats every cell of a map alike, open after its first layer.

    It stands for the last block of the network that made the map.

    Args:
        width: Channels W of the map.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.before = nn.Linear(width, width, bias=False)
        self.after = nn.Linear(width, width, bias=False)

    def close(self, cells: Tensor, inner: Tensor) -> Tensor:
        """Add what the inner states ``(B, L, W)`` say to the cells, same shape."""
        result: Tensor = (cells + self.after(inner.relu())).relu()
        return result


class DAFT(FusionModel):
    """An anchor's states, modulated by every other modality in turn.

    The anchor is the first series, or the first modality if there is none: the form that MedFuse's
    authors compare with. As published (`modulated = map`) it is the film, whose feature map is
    modulated inside a residual block, before the nonlinearity.

    An absent modality modulates nothing, or as an empty input (`missing = blank`). A stay without
    the anchor has one state of zeros, which the others shift.
    """

    Options: ClassVar[type[DAFTOptions]] = DAFTOptions
    reference: ClassVar[str] = "Pölsterl et al., MICCAI 2021, in the form of MedFuse"
    absence: ClassVar[str] = "modulates nothing, or as an empty input"

    def __init__(self, specs: Sequence[ModalitySpec], config: FuseConfig, targets: int = 1) -> None:
        super().__init__(specs, config, targets)
        self.encoders = Encoders(self.specs, config.hidden, config.series_encoder)
        options = DAFTOptions.of(config)
        of_map = options.modulated == "map"
        self.anchor = map_of(self.specs) if of_map else anchor_of(self.specs)
        self.others = [m for m in range(len(self.specs)) if m != self.anchor]
        width = self.encoders.between()[self.anchor]
        self.residual = Residual(width) if of_map and self.others else None
        self.blanks = Blanks(self.specs) if options.missing == "blank" else nn.Identity()
        self.blocks = nn.ModuleList(Affine(width, config.hidden, options) for _ in self.others)
        self.dropout = Dropout()
        self.linear = nn.Linear(config.hidden, targets)

    def lacks(self, parts: Mapping[str, int]) -> str | None:
        """As published it needs a map of several cells."""
        spec = self.specs[self.anchor]
        if self.residual is None or parts.get(spec.name, 1) > 1:
            return None
        return (
            f"model.modulated = map modulates a feature map, and {spec.name} has one vector of an "
            f"item: films keep cells by `cm2 extract --modality {spec.name} --level grid`; or "
            "take model.modulated = series"
        )

    def noise(self, training: bool) -> dict[str, tuple[int, ...]]:
        """Dropout of the anchor's embedding."""
        return {"dropout.tokens": (self.config.hidden,)} if training else {}

    def forward(self, batch: FusionBatch, hyper: Hyper) -> FusionOutput:
        """Predict and judge a batch."""
        read: FusionBatch = self.blanks(batch)
        states, real = self.encoders.states(read)
        z = self.encoders.gather(states, real, read.available)
        if self.others:
            anchor = self.encoders.parts[self.anchor]
            assert isinstance(anchor, Encoder)
            embedding = anchor.gather(*self.modulated(states, real, z, read.available))
            z = torch.cat([z[:, : self.anchor], embedding.unsqueeze(1), z[:, self.anchor + 1 :]], 1)
        token = self.dropout(z[:, self.anchor], hyper.dropout, batch.noise.get("dropout.tokens"))
        logits: Tensor = self.linear(token)
        z = torch.where(batch.available.unsqueeze(-1), z, 0.0)
        return FusionOutput(logits, z, {"task": binary(logits, batch.y, self.class_weights)}, {})

    def modulated(
        self, states: list[Tensor], real: list[Tensor], z: Tensor, available: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Let every other modality act on the anchor's states, one after the other.

        Args:
            states: By modality, ``(B, L, ·)``.
            real: By modality, ``(B, L)`` bool.
            z: Embeddings of the modalities, ``(B, M, D)``, zero where absent.
            available: ``(B, M)`` bool.

        Returns:
            The anchor's states and which of them are real.
        """
        first = torch.arange(real[self.anchor].shape[1], device=z.device) == 0
        mask = real[self.anchor] | (first & ~available[:, self.anchor : self.anchor + 1])
        there = real[self.anchor].unsqueeze(-1)
        values = torch.where(there, states[self.anchor], 0.0)
        cells = values
        if self.residual is not None:
            values = self.residual.before(cells)
        for m, block in zip(self.others, self.blocks, strict=True):
            acted = block(values, masked_mean(values, mask), z[:, m])
            acted = torch.where(mask.unsqueeze(-1), acted, 0.0)
            values = torch.where(available[:, m].reshape(-1, 1, 1), acted, values)
        if self.residual is not None:
            values = self.residual.close(cells, values)
        return values, mask
