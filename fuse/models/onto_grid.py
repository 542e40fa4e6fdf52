"""From values at any times to a grid of times (Shukla and Marlin, 2021; Zhang et al., 2023)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...cache.irregular import marks
from ..methods.interleaved import InterleavedOptions
from .attention import apart, together
from .encoders import Reader, make_encoder
from .interface import LEARNED, ModalitySpec

SLACK = 1e-6
"""Of two times that are the same but for rounding."""


class TimeEmbedding(nn.Module):
    """A time as a line and as sines of learned rates.

    Args:
        width: Width S of the embedding.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.line = nn.Linear(1, 1)
        self.waves = nn.Linear(1, width - 1)

    def forward(self, time: Tensor) -> Tensor:
        """Embed times ``(..., L)`` as ``(..., L, S)``."""
        each = time.to(self.line.weight.dtype).unsqueeze(-1)
        return torch.cat([self.line(each), self.waves(each).sin()], -1)


class TimeAttention(nn.Module):
    """Attention from the times of the grid to the times of the values, and to nothing else.

    A value that was not measured is not read, column by column.

    Args:
        width: Columns of the values.
        size: Width D of the result.
        options: See `InterleavedOptions`.
    """

    def __init__(self, width: int, size: int, options: InterleavedOptions) -> None:
        super().__init__()
        self.heads, S = options.heads, options.time_width
        inner = self.heads * -(-S // self.heads)
        self.query, self.key = nn.Linear(S, inner), nn.Linear(S, inner)
        self.out = nn.Linear(self.heads * width, size)

    def forward(
        self, grid: Tensor, times: Tensor, values: Tensor, read: Tensor, measured: Tensor
    ) -> Tensor:
        """Average values around each time of the grid.

        Args:
            grid: Embedded times of the grid, ``(G, S)``.
            times: Embedded times of the values, ``(B, L, S)``.
            values: ``(B, L, width)``, finite everywhere.
            read: Steps or parts that are there, ``(B, L)`` bool.
            measured: Values that are read, ``(B, L, width)`` or ``(B, L, 1)`` bool.

        Returns:
            ``(B, G, D)``.
        """
        q, k = apart(self.query(grid), self.heads), apart(self.key(times), self.heads)
        scores = q @ k.mT / q.shape[-1] ** 0.5  # (B, H, G, L)
        lowest = torch.finfo(scores.dtype).min
        scores = scores.masked_fill(~read[:, None, None, :], lowest)
        # One exponential for all columns; each column then divides by what it could read.
        weights = (scores - scores.amax(-1, keepdim=True).detach()).exp().flatten(1, 2)
        counted = (measured & read.unsqueeze(-1)).to(values.dtype)
        total = weights @ counted
        mean = weights @ (values * counted) / total.clamp(min=torch.finfo(total.dtype).tiny)
        gathered: Tensor = self.out(together(mean.unflatten(1, (self.heads, -1))))
        return gathered


def latest(values: Tensor, read: Tensor, times: Tensor, grid: Tensor) -> Tensor:
    """The last values at or before each time of a grid; zero before the first.

    Args:
        values: ``(B, L, width)``.
        read: Steps that are there, ``(B, L)`` bool.
        times: Their times, ascending, ``(B, L)``.
        grid: Times, ``(G,)``.

    Returns:
        ``(B, G, width)``.
    """
    passed = read.unsqueeze(1) & (times.unsqueeze(1) <= grid.unsqueeze(-1) + SLACK)  # (B, G, L)
    steps = torch.arange(times.shape[-1], device=times.device)
    last = torch.where(passed, steps, -1).amax(-1)
    index = last.clamp(min=0).unsqueeze(-1).expand(*last.shape, values.shape[-1])
    return torch.where((last >= 0).unsqueeze(-1), values.gather(1, index), 0.0)


class Parts(Reader):
    """Parts at their times, by attention alone.

    Where all parts have one time, as those of a single film do, all states are their mean.

    Args:
        spec: The modality.
        size: Width D of a state.
        options: See `InterleavedOptions`.
    """

    def __init__(self, spec: ModalitySpec, size: int, options: InterleavedOptions) -> None:
        super().__init__(spec.width, spec.columns, spec.view == LEARNED)
        self.attention = TimeAttention(spec.width, size, options)

    def forward(
        self, x: Tensor, mask: Tensor, times: Tensor, grid: Tensor, embed: TimeEmbedding
    ) -> Tensor:
        """States ``(B, G, D)`` of parts ``(B, L, width)``."""
        x = self.normaliser(x, mask)
        states: Tensor = self.attention(embed(grid), embed(times), x, mask, mask.unsqueeze(-1))
        return states


class UTDE(Reader):
    """A series at its own times: attention, and the last value, weighed by a gate.

    Which values were measured is read from the columns that say so, where there are some; in a
    grid that was filled forward the attention then reads the measurements alone.

    Args:
        spec: The modality.
        size: Width D of a state.
        options: See `InterleavedOptions`.
    """

    marks: Tensor

    def __init__(self, spec: ModalitySpec, size: int, options: InterleavedOptions) -> None:
        super().__init__(spec.width, spec.columns)
        found = marks(spec.columns) or [-1] * spec.width
        self.marked = any(place >= 0 for place in found)
        self.register_buffer("marks", torch.tensor(found), persistent=False)
        self.attention = TimeAttention(spec.width, size, options)
        self.fill = nn.Linear(spec.width, size, bias=False)
        self.level = options.gate
        outputs = size if options.gate == "feature" else 1
        self.gate = nn.Sequential(
            nn.Linear(2 * size, size), nn.ReLU(), nn.Linear(size, outputs), nn.Sigmoid()
        )

    def forward(
        self, x: Tensor, mask: Tensor, times: Tensor, grid: Tensor, embed: TimeEmbedding
    ) -> Tensor:
        """States ``(B, G, D)`` of a series ``(B, L, width)``."""
        measured = mask.unsqueeze(-1)
        if self.marked:
            told = x.index_select(-1, self.marks.clamp(min=0)) > 0
            measured = measured & ((self.marks < 0) | told)
        x = self.normaliser(x, mask)
        attended = self.attention(embed(grid), embed(times), x, mask, measured)
        filled = self.fill(latest(x, mask, times, grid))
        both = torch.cat([attended, filled], -1)
        share = self.gate(both.amax(1, keepdim=True) if self.level == "stay" else both)
        states: Tensor = share * attended + (1 - share) * filled
        return states


def make_reader(spec: ModalitySpec, size: int, options: InterleavedOptions) -> Reader:
    """Make the reader of a modality: one that gives states on the grid, or an `Encoder`."""
    if spec.view != "series":
        return Parts(spec, size, options)
    if options.series == "utde":
        return UTDE(spec, size, options)
    return make_encoder(spec, size, options.series)


__all__ = ["UTDE", "Parts", "TimeAttention", "TimeEmbedding", "latest", "make_reader"]
