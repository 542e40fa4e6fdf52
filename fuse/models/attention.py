"""Masked self-attention that also runs under `torch.func.vmap`."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

HEADS = 4


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Weigh values by the scaled products of queries and keys.

    Args:
        q: Queries, ``(B, H, N, W)``.
        k: Keys, ``(B, H, L, W)``.
        v: Values, ``(B, H, L, V)``, finite everywhere.
        mask: Positions that are read, ``(B, L)`` bool.

    Returns:
        ``(B, H, N, V)``; zero in a row that has no position to read.
    """
    scores = q @ k.mT / q.shape[-1] ** 0.5
    lowest = torch.finfo(scores.dtype).min
    weights = scores.masked_fill(~mask[..., None, None, :], lowest).softmax(-1)
    some = mask.any(-1)[..., None, None, None]
    return torch.where(some, weights @ v, 0.0)


def apart(x: Tensor, heads: int) -> Tensor:
    """Split the last axis among heads: ``(B, L, H W)`` to ``(B, H, L, W)``."""
    return x.reshape(*x.shape[:-1], heads, -1).transpose(-3, -2)


def together(x: Tensor) -> Tensor:
    """Put the heads side by side: ``(B, H, L, W)`` to ``(B, L, H W)``."""
    return x.transpose(-3, -2).flatten(-2)


class Attention(nn.Module):
    """Multi-head attention from one sequence to another (Vaswani et al., 2017).

    Args:
        size: Width of the reading sequence, and of the result; up to `heads`, as many as divide
            the width of all heads together.
        context: Width of the sequence that is read; `size` by default.
        heads: Number of heads.
        width: Width of all heads together; `size` by default.
    """

    def __init__(
        self, size: int, context: int | None = None, heads: int = HEADS, width: int | None = None
    ) -> None:
        super().__init__()
        width, context = width or size, context or size
        self.heads = math.gcd(width, heads)
        self.query = nn.Linear(size, width)
        self.pair = nn.Linear(context, 2 * width)
        self.out = nn.Linear(width, size)

    def forward(self, x: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        """Read.

        Args:
            x: Who reads, ``(B, N, size)``.
            context: What is read, ``(B, L, context)``, finite everywhere.
            mask: Positions that are read, ``(B, L)`` bool.
        """
        k, v = self.pair(context).chunk(2, -1)
        q, k, v = (apart(part, self.heads) for part in (self.query(x), k, v))
        read: Tensor = self.out(together(attend(q, k, v, mask)))
        return read


class FeedForward(nn.Module):
    """Two linear maps with a GELU between them, for each position by itself.

    Args:
        size: Width D; the hidden one is four times as wide.
        gated: Multiply the hidden values by a second map of the input (GEGLU; Shazeer, 2020).
    """

    def __init__(self, size: int, gated: bool = False) -> None:
        super().__init__()
        self.gated = gated
        self.wide = nn.Linear(size, (8 if gated else 4) * size)
        self.narrow = nn.Linear(4 * size, size)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, L, D)``."""
        hidden = self.wide(x)
        if self.gated:
            hidden, gate = hidden.chunk(2, -1)
            hidden = hidden * nn.functional.gelu(gate)
        else:
            hidden = nn.functional.gelu(hidden)
        mapped: Tensor = self.narrow(hidden)
        return mapped


class SelfAttention(nn.Module):
    """One pre-norm Transformer layer (Vaswani et al., 2017; Xiong et al., 2020).

    Masked positions are read by no one; their own outputs mean nothing.

    Args:
        size: Width D; up to four heads, as many as divide it.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.heads = math.gcd(size, HEADS)
        self.before, self.between = nn.LayerNorm(size), nn.LayerNorm(size)
        self.into = nn.Linear(size, 3 * size)
        self.out = nn.Linear(size, size)
        self.wide, self.narrow = nn.Linear(size, 4 * size), nn.Linear(4 * size, size)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Mix positions.

        Args:
            x: ``(B, L, D)``, finite everywhere.
            mask: Positions that are read, ``(B, L)`` bool.
        """
        q, k, v = (apart(part, self.heads) for part in self.into(self.before(x)).chunk(3, -1))
        x = x + self.out(together(attend(q, k, v, mask)))
        mixed: Tensor = x + self.narrow(nn.functional.gelu(self.wide(self.between(x))))
        return mixed


class Summary(nn.Module):
    """A stack of layers whose first position is a learned token that gathers all others.

    Args:
        size: Width D.
        layers: Number of layers.
    """

    def __init__(self, size: int, layers: int) -> None:
        super().__init__()
        self.token = nn.Parameter(0.02 * torch.randn(size))
        self.layers = nn.ModuleList(SelfAttention(size) for _ in range(layers))
        self.norm = nn.LayerNorm(size)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Gather ``(B, L, D)`` with positions that are read ``(B, L)`` into ``(B, D)``."""
        gathered: Tensor = self.norm(self._mixed(x, mask)[..., 0, :])
        return gathered

    def states(self, x: Tensor, mask: Tensor) -> Tensor:
        """Outputs at the positions themselves, ``(B, L, D)``; idle where not read."""
        states: Tensor = self.norm(self._mixed(x, mask)[..., 1:, :])
        return states

    def _mixed(self, x: Tensor, mask: Tensor) -> Tensor:
        first = self.token.to(x.dtype).expand(*x.shape[:-2], 1, -1)
        x = torch.cat([first, x], -2)
        mask = torch.cat([torch.ones_like(mask[..., :1]), mask], -1)
        for layer in self.layers:
            x = layer(x, mask)
        return x


def positions(steps: Tensor, size: int) -> Tensor:
    """Sines and cosines of the number of each step, ``(L, D)``, for any length.

    Args:
        steps: Numbers from 0, ``(L,)``.
        size: Width D.
    """
    half = (size + 1) // 2
    rate = torch.exp(torch.arange(half, device=steps.device) * (-math.log(1e4) / max(half, 1)))
    angle = steps.unsqueeze(-1) * rate
    return torch.cat([angle.sin(), angle.cos()], -1)[:, :size]


__all__ = ["Attention", "FeedForward", "SelfAttention", "Summary", "attend", "positions"]
