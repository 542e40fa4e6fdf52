"""A Perceiver: a few latents that read a series of any length (Jaegle et al., 2021)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .attention import Attention, FeedForward

BANDS = 6
FASTEST = 10.0
CROSS_WIDTH = 64


class Block(nn.Module):
    """Latents read the series, then each other; a feed-forward network after each.

    Args:
        size: Width D of a latent.
        width: Columns of the series.
    """

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(size) for _ in range(4))
        self.read = Attention(size, width, heads=1, width=CROSS_WIDTH)
        self.mix = Attention(size)
        self.maps = nn.ModuleList(FeedForward(size, gated=True) for _ in range(2))

    def forward(self, latents: Tensor, series: Tensor, mask: Tensor) -> Tensor:
        """Renew latents ``(B, N, D)`` from a series ``(B, L, width)``, real steps ``(B, L)``."""
        first, second, third, fourth = self.norms
        latents = latents + self.read(first(latents), series, mask)
        latents = latents + self.maps[0](second(latents))
        normed = third(latents)
        every = torch.ones_like(normed[..., 0], dtype=torch.bool)
        latents = latents + self.mix(normed, normed, every)
        renewed: Tensor = latents + self.maps[1](fourth(latents))
        return renewed


class Perceiver(nn.Module):
    """Blocks in a row, each with weights of its own, that start from learned latents.

    Args:
        width: Columns of the series.
        size: Width D of a latent.
        latents: Number N of latents.
        depth: Number of blocks.
    """

    def __init__(self, width: int, size: int, latents: int, depth: int) -> None:
        super().__init__()
        self.latents = nn.Parameter(0.02 * torch.randn(latents, size))
        self.norm = nn.LayerNorm(width + 2 * BANDS + 1)
        self.blocks = nn.ModuleList(Block(size, width + 2 * BANDS + 1) for _ in range(depth))

    def forward(self, x: Tensor, mask: Tensor, time: Tensor) -> Tensor:
        """Read a series.

        Args:
            x: Standardised values, ``(B, L, width)``.
            mask: Real steps, ``(B, L)`` bool.
            time: Their times in [0, 1], ``(B, L)``.

        Returns:
            Latents, ``(B, N, D)``.
        """
        series = self.norm(torch.cat([x, fourier(time.to(x.dtype))], -1))
        latents = self.latents.to(x.dtype).expand(*x.shape[:-2], -1, -1)
        for block in self.blocks:
            latents = block(latents, series, mask)
        return latents


def fourier(time: Tensor) -> Tensor:
    """Positions in [-1, 1] with their sines and cosines at evenly spaced rates.

    Args:
        time: Times in [0, 1], ``(B, L)``.

    Returns:
        ``(B, L, 13)``.
    """
    place = (2 * time - 1).unsqueeze(-1)
    rates = torch.linspace(1.0, FASTEST / 2, BANDS, dtype=time.dtype, device=time.device)
    angle = math.pi * place * rates
    return torch.cat([angle.sin(), angle.cos(), place], -1)


__all__ = ["Perceiver", "fourier"]
