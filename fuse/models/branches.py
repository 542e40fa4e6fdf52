"""A prediction from each modality by itself, beside or instead of the joint one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .interface import FusionBatch, ModalitySpec, RowLoss
from .task import binary


class Branches(nn.Module):
    """One linear map for each modality, judged on the stays that have it.

    Args:
        specs: The modalities.
        size: Width D of their embeddings.
        targets: Number C of targets.
    """

    def __init__(self, specs: Sequence[ModalitySpec], size: int, targets: int) -> None:
        super().__init__()
        self.names = [f"task.{spec.name}" for spec in specs]
        self.parts = nn.ModuleList(nn.Linear(size, targets) for _ in specs)

    def forward(self, z: Tensor) -> Tensor:
        """Predict from embeddings ``(B, M, D)``; logits ``(M, B, C)``, idle where absent."""
        return torch.stack([part(z[:, m]) for m, part in enumerate(self.parts)])

    def losses(self, logits: Tensor, batch: FusionBatch, weights: Tensor) -> dict[str, RowLoss]:
        """Judge every branch on the stays that have its modality.

        Args:
            logits: ``(M, B, C)``.
            batch: The stays.
            weights: Weights of the classes, ``(2, C)``.

        Returns:
            Losses named `task.NAME`.
        """
        result = {}
        for m, name in enumerate(self.names):
            loss = binary(logits[m], batch.y, weights)
            result[name] = RowLoss(loss.value, loss.rows & batch.available[:, m])
        return result


__all__ = ["Branches"]
