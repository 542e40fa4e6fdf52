"""Masked self-attention that also runs under `torch.func.vmap`."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

HEADS = 4


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
            mask: Positions that are read, ``(B, L)`` bool; at least one per row.
        """
        q, k, v = self.into(self.before(x)).unflatten(-1, (3, self.heads, -1)).unbind(-3)
        q, k, v = (part.transpose(-3, -2) for part in (q, k, v))  # (B, H, L, D / H)
        scores = q @ k.mT / q.shape[-1] ** 0.5
        weights = scores.masked_fill(~mask[..., None, None, :], -torch.inf).softmax(-1)
        x = x + self.out((weights @ v).transpose(-3, -2).flatten(-2))
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
        first = self.token.to(x.dtype).expand(*x.shape[:-2], 1, -1)
        x = torch.cat([first, x], -2)
        mask = torch.cat([torch.ones_like(mask[..., :1]), mask], -1)
        for layer in self.layers:
            x = layer(x, mask)
        gathered: Tensor = self.norm(x[..., 0, :])
        return gathered


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


__all__ = ["SelfAttention", "Summary", "positions"]
