"""The loss of the task itself."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .interface import RowLoss


def binary(logits: Tensor, y: Tensor, weights: Tensor) -> RowLoss:
    """Cross-entropy of independent binary targets, averaged over those that are known.

    Args:
        logits: ``(B, C)``.
        y: Targets in {0, 1}, ``(B, C)``; NaN where unknown.
        weights: Weight of a stay without and with the event, ``(2, C)``.
    """
    known = ~y.isnan()
    losses = nn.functional.binary_cross_entropy_with_logits(
        logits, torch.where(known, y, 0.0).to(logits.dtype), reduction="none"
    )
    losses = losses * torch.where(y == 1, weights[1], weights[0])
    value = torch.where(known, losses, 0.0).sum(-1) / known.sum(-1).clamp(min=1)
    return RowLoss(value, known.any(-1))
