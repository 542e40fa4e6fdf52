"""LSMT: a Perceiver for series, tokens for all else, a joint Transformer (Khader et al., 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..config import FuseConfig
from ..methods.lsmt import LSMTOptions
from .attention import Summary, positions
from .encoders import Encoder, Reader, Readers, make_encoder
from .interface import FusionBatch, FusionModel, FusionOutput, Hyper, ModalitySpec
from .layers import Dropout, masked_mean
from .perceiver import Perceiver
from .task import binary


class Latents(Reader):
    """Latents of a Perceiver over the standardised series.

    Args:
        spec: The modality.
        size: Width D of a latent.
        options: See `LSMTOptions`.
    """

    def __init__(self, spec: ModalitySpec, size: int, options: LSMTOptions) -> None:
        super().__init__(spec.width, spec.columns)
        self.perceiver = Perceiver(spec.width, size, options.latents, options.depth)

    def forward(self, x: Tensor, mask: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        """Latents ``(B, N, D)``, all of which are real if a step is."""
        read: Tensor = self.perceiver(self.normaliser(x, mask), mask, time)
        return read, mask.any(-1, keepdim=True).expand(read.shape[:-1])


class LSMT(FusionModel):
    """Every modality as tokens, read by one Transformer with a token that gathers them.

    A time series becomes the latents of a Perceiver; a film or text its parts. A token is told
    apart by a learned vector of its modality.

    An absent modality's tokens, and padding, are read by no one.
    """

    Options: ClassVar[type[LSMTOptions]] = LSMTOptions
    reference: ClassVar[str] = "Khader et al., Radiology 2023"
    absence: ClassVar[str] = "tokens that are not read"

    def __init__(self, specs: Sequence[ModalitySpec], config: FuseConfig, targets: int = 1) -> None:
        super().__init__(specs, config, targets)
        self.options = options = LSMTOptions.of(config)
        D = config.hidden

        def make(spec: ModalitySpec) -> Reader:
            if spec.view == "series" and options.series == "perceiver":
                return Latents(spec, D, options)
            return make_encoder(spec, D, options.series)

        self.readers = Readers(self.specs, make)
        self.kind = nn.Parameter(0.02 * torch.randn(len(self.specs), D))
        self.dropout = Dropout()
        self.summary = Summary(D, options.layers)
        self.linear = nn.Linear(D, targets)

    def noise(self, training: bool) -> dict[str, tuple[int, ...]]:
        """Dropout of each modality's channels, over all of its tokens, and of what is gathered."""
        tokens, head = (len(self.specs), self.config.hidden), (self.config.hidden,)
        return {"dropout.tokens": tokens, "dropout.head": head} if training else {}

    def forward(self, batch: FusionBatch, hyper: Hyper) -> FusionOutput:
        """Predict and judge a batch."""
        tokens, masks, z = [], [], []
        noise = batch.noise.get("dropout.tokens")
        for m, (values, mask) in enumerate(self.tokens(batch)):
            channels = None if noise is None else noise[:, m : m + 1].expand(values.shape)
            tokens.append(self.dropout(values, hyper.dropout, channels) + self.kind[m])
            masks.append(mask)
            z.append(masked_mean(torch.where(mask.unsqueeze(-1), values, 0.0), mask))
        x, read = torch.cat(tokens, 1), torch.cat(masks, 1)
        if self.options.doubled:
            x = 2 * x + positions(
                torch.arange(x.shape[1], device=x.device).to(x.dtype), x.shape[-1]
            )
        if not self.options.token_mask:
            read = torch.ones_like(read)
        gathered: Tensor = self.summary(x, read)
        gathered = self.dropout(gathered, hyper.dropout, batch.noise.get("dropout.head"))
        logits: Tensor = self.linear(gathered)
        losses = {"task": binary(logits, batch.y, self.class_weights)}
        return FusionOutput(logits, torch.stack(z, 1), losses, {})

    def tokens(self, batch: FusionBatch) -> list[tuple[Tensor, Tensor]]:
        """Tokens ``(B, L, D)`` of every modality, and which of them are real, ``(B, L)`` bool."""
        result = []
        real = self.readers.real(batch)
        for spec, reader, mask in zip(self.specs, self.readers.parts, real, strict=True):
            if isinstance(reader, Encoder):
                result.append((reader.tokens(batch.x[spec.name], mask), mask))
            else:
                result.append(reader(batch.x[spec.name], mask, batch.times(spec)))
        return result
