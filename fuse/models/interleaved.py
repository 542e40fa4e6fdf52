"""Interleaved self- and cross-attention over irregular series and texts (Zhang et al., 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..config import FuseConfig
from ..methods.interleaved import InterleavedOptions
from .attention import Attention, FeedForward, positions
from .encoders import Encoder, Readers
from .interface import FusionBatch, FusionModel, FusionOutput, Hyper, ModalitySpec
from .layers import Dropout
from .onto_grid import TimeEmbedding, latest, make_reader
from .task import binary


class Layer(nn.Module):
    """Every stream reads itself, then the others that are there, then a feed-forward network.

    Args:
        size: Width D.
        streams: Number M of streams.
        heads: Heads of every attention.
    """

    def __init__(self, size: int, streams: int, heads: int) -> None:
        super().__init__()
        self.streams = range(streams)
        self.norms = nn.ModuleList(nn.LayerNorm(size) for _ in range(3 * streams))
        self.own = nn.ModuleList(Attention(size, heads=heads) for _ in self.streams)
        self.cross = nn.ModuleList(
            Attention(size, heads=heads) for _ in range(streams * (streams - 1))
        )
        self.maps = nn.ModuleList(FeedForward(size) for _ in self.streams)

    def forward(self, x: list[Tensor], available: Tensor) -> list[Tensor]:
        """Mix streams.

        Args:
            x: By stream, ``(B, G, D)``.
            available: ``(B, M)`` bool.
        """
        every = torch.ones_like(x[0][..., 0], dtype=torch.bool)
        norms, M = iter(self.norms), len(self.streams)
        normed = [next(norms)(states) for states in x]
        x = [
            states + own(values, values, every)
            for states, own, values in zip(x, self.own, normed, strict=True)
        ]
        normed = [next(norms)(states) for states in x]
        cross = iter(self.cross)
        mixed = []
        for m in self.streams:
            others = [n for n in self.streams if n != m]
            heard = x[m]
            if others:
                there = available[:, others].T[..., None, None]  # (M - 1, B, 1, 1)
                said = torch.stack([next(cross)(normed[m], normed[n], every) for n in others])
                heard = heard + torch.where(there, said, 0.0).sum(0) / there.sum(0).clamp(min=1)
            mixed.append(heard)
        return [states + self.maps[m](next(norms)(states)) for m, states in enumerate(mixed[:M])]


class Interleaved(FusionModel):
    """All modalities on one grid of times, as streams that read themselves and each other.

    A time series comes onto the grid by UTDE, everything else by attention over its times. With
    more than two modalities a stream reads the mean of what the others say.

    An absent modality is read by no stream, and a learned vector stands for it at the end.
    """

    Options: ClassVar[type[InterleavedOptions]] = InterleavedOptions
    reference: ClassVar[str] = "Zhang et al., ICML 2023"
    absence: ClassVar[str] = "read by no stream; a learned vector at the end"

    grid: Tensor

    def __init__(self, specs: Sequence[ModalitySpec], config: FuseConfig, targets: int = 1) -> None:
        super().__init__(specs, config, targets)
        self.options = options = InterleavedOptions.of(config)
        D, M = config.hidden, len(self.specs)
        self.readers = Readers(self.specs, lambda spec: make_reader(spec, D, options))
        self.embed = TimeEmbedding(options.time_width)
        grid = torch.arange(1, options.grid + 1) / options.grid
        self.register_buffer("grid", grid, persistent=False)
        self.layers = nn.ModuleList(Layer(D, M, options.heads) for _ in range(options.layers))
        self.norms = nn.ModuleList(nn.LayerNorm(D) for _ in self.specs)
        self.absent = nn.Parameter(0.02 * torch.randn(M, D))
        self.dropout = Dropout()
        self.first, self.second = nn.Linear(M * D, M * D), nn.Linear(M * D, M * D)
        self.linear = nn.Linear(M * D, targets)

    def noise(self, training: bool) -> dict[str, tuple[int, ...]]:
        """Dropout of each stream's channels, over all times, and of the hidden layer."""
        tokens = (len(self.specs), self.config.hidden)
        head = (len(self.specs) * self.config.hidden,)
        return {"dropout.tokens": tokens, "dropout.head": head} if training else {}

    def forward(self, batch: FusionBatch, hyper: Hyper) -> FusionOutput:
        """Predict and judge a batch."""
        streams = self.on_grid(batch, hyper)
        for layer in self.layers:
            streams = layer(streams, batch.available)
        last = [norm(x[:, -1]) for norm, x in zip(self.norms, streams, strict=True)]
        there = batch.available.unsqueeze(-1)
        stacked = torch.stack(last, 1)
        h = torch.where(there, stacked, self.absent).flatten(1)
        hidden = self.dropout(self.first(h).relu(), hyper.dropout, batch.noise.get("dropout.head"))
        logits: Tensor = self.linear(h + self.second(hidden))
        losses = {"task": binary(logits, batch.y, self.class_weights)}
        return FusionOutput(logits, torch.where(there, stacked, 0.0), losses, {})

    def on_grid(self, batch: FusionBatch, hyper: Hyper) -> list[Tensor]:
        """States of every modality on the grid, with their positions, ``(B, G, D)`` each."""
        D, noise = self.config.hidden, batch.noise.get("dropout.tokens")
        steps = torch.arange(len(self.grid), device=self.grid.device)
        result = []
        real = self.readers.real(batch)
        for m, (spec, reader, mask) in enumerate(
            zip(self.specs, self.readers.parts, real, strict=True)
        ):
            values, times = batch.x[spec.name], batch.times(spec)
            if isinstance(reader, Encoder):
                x = latest(reader.tokens(values, mask), mask, times, self.grid)
            else:
                x = reader(values, mask, times, self.grid, self.embed)
            channels = None if noise is None else noise[:, m : m + 1].expand(x.shape)
            x = self.dropout(x, hyper.dropout, channels)
            result.append(x * D**0.5 + positions(steps.to(x.dtype), D))
        return result
