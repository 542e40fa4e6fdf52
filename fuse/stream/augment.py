"""The paper's augmentation of films, for a whole batch at once, on its device."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from ...extract.encoders.image import MEAN, STD

FLIP, DEGREES, SHIFT, SCALE = 0.5, 45.0, 0.15, (0.85, 1.15)
NUMBERS = 5
"""Uniform numbers that one film takes: flip, angle, two shifts, scale."""


def augmented(films: Tensor, noise: Tensor, crop: int) -> Tensor:
    """Flip, turn, shift and scale films by chance, then cut out their centres.

    The order is that of torchvision's RandomHorizontalFlip, RandomAffine and CenterCrop, with the
    nearest pixel and zeros from outside; only the pixels of the cut are computed.

    Args:
        films: Grey values, ``(n, S, S)`` uint8.
        noise: Uniform numbers in (0, 1), ``(n, 5)``.
        crop: Side of the cut, at most S.

    Returns:
        Grey values, ``(n, crop, crop)`` float.
    """
    n, side = len(films), films.shape[-1]
    u = noise.to(torch.float32)
    flip = 1 - 2 * (u[:, 0] < FLIP).to(u.dtype)
    angle = (2 * u[:, 1] - 1) * math.radians(DEGREES)
    shift = torch.round((2 * u[:, 2:4] - 1) * SHIFT * side)  # whole pixels, as torchvision does
    scale = SCALE[0] + (SCALE[1] - SCALE[0]) * u[:, 4]
    cosine, sine = torch.cos(angle) / scale, torch.sin(angle) / scale
    x, y = shift.unbind(-1)
    # from pixels of the result, measured from the centre, to pixels of the film
    rows = (
        torch.stack([cosine, sine, -cosine * x - sine * y], -1) * flip.unsqueeze(-1),
        torch.stack([-sine, cosine, sine * x - cosine * y], -1),
    )
    theta = torch.stack(rows, 1)  # (n, 2, 3)
    share = crop / side
    theta = theta * theta.new_tensor([share, share, 2 / side])
    grid = affine_grid(theta, [n, 1, crop, crop], align_corners=False)
    values = films.unsqueeze(1).to(torch.float32)
    cut = grid_sample(values, grid, mode="nearest", padding_mode="zeros", align_corners=False)
    return cut.squeeze(1)


def centre(films: Tensor, crop: int) -> Tensor:
    """Cut out the centres of films ``(n, S, S)``, as `extract` does: ``(n, crop, crop)`` float."""
    start = round((films.shape[-1] - crop) / 2)
    return films[:, start : start + crop, start : start + crop].to(torch.float32)


def normalised(grey: Tensor) -> Tensor:
    """Scale grey values ``(n, H, W)`` as `extract` does, three equal channels: ``(n, 3, H, W)``."""
    mean, std = (grey.new_tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
    scaled: Tensor = (grey.unsqueeze(1) / 255 - mean) / std
    return scaled


__all__ = ["NUMBERS", "augmented", "centre", "normalised"]
