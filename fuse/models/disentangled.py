"""Readers that say twice what a modality holds: once what is shared, once what is its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .attention import SelfAttention, positions
from .encoders import Reader
from .interface import LEARNED, ModalitySpec
from .layers import LSTM, masked_mean

WIDE = 512


class VectorSplit(Reader):
    """Two perceptrons over the mean of the standardised parts.

    Args:
        spec: The modality.
        size: Width D of each half.
    """

    def __init__(self, spec: ModalitySpec, size: int) -> None:
        super().__init__(spec.width, spec.columns, spec.view == LEARNED)
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(spec.width, WIDE), nn.GELU(), nn.Linear(WIDE, size))
            for _ in range(2)
        )

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Read ``(B, L, width)`` with real parts ``(B, L)`` into ``(B, 2 D)``, shared first."""
        mean = masked_mean(self.normaliser(x, mask), mask)
        return torch.cat([head(mean) for head in self.heads], -1)


class TransformerSplit(Reader):
    """One Transformer layer, then one for each half, averaged over the steps.

    Args:
        spec: The modality.
        size: Width D of each half.
    """

    def __init__(self, spec: ModalitySpec, size: int) -> None:
        super().__init__(spec.width, spec.columns)
        self.projection = nn.Linear(spec.width, size)
        self.layer = SelfAttention(size)
        self.layers = nn.ModuleList(SelfAttention(size) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(size) for _ in range(2))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Read ``(B, L, width)`` with real steps ``(B, L)`` into ``(B, 2 D)``, shared first."""
        values = self.projection(self.normaliser(x, mask))
        steps = torch.arange(x.shape[-2], dtype=values.dtype, device=x.device)
        values = self.layer(values + positions(steps, values.shape[-1]), mask)
        real = mask.unsqueeze(-1)
        return torch.cat(
            [
                masked_mean(torch.where(real, norm(layer(values, mask)), 0.0), mask)
                for layer, norm in zip(self.layers, self.norms, strict=True)
            ],
            -1,
        )


class LSTMSplit(Reader):
    """One LSTM layer, then one for each half, after the last step.

    Args:
        spec: The modality.
        size: Width D of each half.
    """

    def __init__(self, spec: ModalitySpec, size: int) -> None:
        super().__init__(spec.width, spec.columns)
        self.lstm = LSTM(spec.width, size, layers=1)
        self.halves = nn.ModuleList(LSTM(size, size, layers=1) for _ in range(2))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Read ``(B, L, width)`` with real steps ``(B, L)`` into ``(B, 2 D)``, shared first."""
        states = self.lstm(self.normaliser(x, mask), mask)[0]
        return torch.cat([half(states, mask)[1] for half in self.halves], -1)


SERIES: dict[str, type[TransformerSplit | LSTMSplit]] = {
    "transformer": TransformerSplit,
    "lstm": LSTMSplit,
}


def make_split(spec: ModalitySpec, size: int, series: str) -> Reader:
    """Make the reader of a modality.

    Args:
        spec: The modality.
        size: Width D of each half.
        series: Reader of time series, `transformer` or `lstm`.
    """
    return (SERIES[series] if spec.view == "series" else VectorSplit)(spec, size)


__all__ = ["LSTMSplit", "TransformerSplit", "VectorSplit", "make_split"]
