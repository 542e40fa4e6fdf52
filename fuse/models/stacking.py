"""Stacking: logistic regression of what each modality says, by pattern of availability."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .interface import pattern_ids

FOLDS = 5
"""Parts of the patients that are predicted from the others."""


class Stacking(nn.Module):
    """One linear map of the logits of single modalities for each pattern of availability.

    A pattern with too few events shares weights that are fitted to all stays, with a level for each
    modality that is there. Weights have the penalty of ridge regression (C = 1 of scikit-learn).
    Wolpert, "Stacked generalization", Neural Networks 5, 1992.

    Args:
        modalities: Number M.
        targets: Number C of targets.
        events: Events, and stays without one, that a pattern needs for weights of its own.

    Attributes:
        fitted: Whether `fit` has been called; nothing is said before.
        record: What `fit` has found, as JSON: for each pattern and target the weights, the
            intercept, where they come from (`own`, `shared`, or `mean` where all targets are
            equal), and the stays and events behind them.
    """

    fitted: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(self, modalities: int, targets: int, events: int) -> None:
        super().__init__()
        self.events = events
        self.record: list[dict[str, Any]] = []
        bits = torch.arange(2**modalities).unsqueeze(1) >> torch.arange(modalities) & 1  # (P, M)
        even = bits / bits.sum(1, keepdim=True).clamp(min=1)
        self.register_buffer("fitted", torch.tensor(False))
        self.register_buffer("weight", even.unsqueeze(1).repeat(1, targets, 1))  # (P, C, M)
        self.register_buffer("bias", torch.zeros(2**modalities, targets))

    def forward(self, alone: Tensor, available: Tensor, pattern_id: Tensor) -> Tensor:
        """Combine logits ``(M, B, C)`` of the modalities that are there into ``(B, C)``.

        Args:
            alone: Logits; whatever absent modalities say is ignored.
            available: ``(B, M)`` bool.
            pattern_id: ``(B,)``, see `FusionBatch`.
        """
        said = torch.where(available.unsqueeze(1), alone.permute(1, 2, 0), 0.0)  # (B, C, M)
        logits: Tensor = (said * self.weight[pattern_id]).sum(2) + self.bias[pattern_id]
        return logits

    @torch.no_grad()
    def fit(self, alone: Tensor, available: Tensor, y: Tensor) -> None:
        """Fit the weights of every pattern.

        Args:
            alone: Logits ``(M, N, C)``.
            available: ``(N, M)`` bool.
            y: Targets ``(N, C)``, NaN where unknown.
        """
        self.record = []
        for c in range(y.shape[1]):
            known = ~y[:, c].isnan()
            there = available[known].cpu().numpy()
            said = np.where(there, alone[:, known, c].T.double().cpu().numpy(), 0.0)
            self._fit(c, said, there, y[known, c].cpu().numpy().astype(int))
        self.fitted.fill_(True)

    def _fit(self, c: int, said: np.ndarray, there: np.ndarray, y: np.ndarray) -> None:
        M = there.shape[1]
        patterns = pattern_ids(torch.from_numpy(there)).numpy()
        shared = None
        if 0 < y.sum() < len(y):
            shared = _logistic(np.concatenate([said, there], 1), y)
        for pattern in range(1, 2**M):
            bits = (pattern >> np.arange(M) & 1).astype(bool)
            rows = patterns == pattern
            n, events = int(rows.sum()), int(y[rows].sum())
            weight, bias, source = bits / bits.sum(), 0.0, "mean"
            if min(events, n - events) >= self.events:
                own, bias = _logistic(said[rows][:, bits], y[rows])
                weight, source = np.zeros(M), "own"
                weight[bits] = own
            elif shared is not None:
                weight, source = shared[0][:M] * bits, "shared"
                bias = shared[1] + float(shared[0][M:] @ bits)
            self.weight[pattern, c] = torch.as_tensor(weight)
            self.bias[pattern, c] = bias
            self.record.append(
                {
                    "pattern": [int(bit) for bit in bits],
                    "target": c,
                    "weights": [float(v) for v in weight],
                    "intercept": float(bias),
                    "source": source,
                    "n": n,
                    "events": events,
                }
            )

    @torch.no_grad()
    def cross_fit(
        self, alone: Tensor, available: Tensor, y: Tensor, patients: np.ndarray
    ) -> Tensor:
        """Predict every stay by weights fitted without its patient, then fit to all.

        Args:
            alone: Logits ``(M, N, C)``.
            available: ``(N, M)`` bool.
            y: Targets ``(N, C)``, NaN where unknown.
            patients: A number for each patient, ``(N,)``.

        Returns:
            Logits ``(N, C)``.
        """
        fold = torch.from_numpy(np.unique(patients, return_inverse=True)[1] % FOLDS)
        fold, ids = fold.to(y.device), pattern_ids(available)
        logits = torch.zeros_like(y, dtype=alone.dtype)
        for held in range(int(fold.max()) + 1):
            rest, rows = fold != held, fold == held
            self.fit(alone[:, rest], available[rest], y[rest])
            logits[rows] = self(alone[:, rows], available[rows], ids[rows])
        self.fit(alone, available, y)
        return logits


def _logistic(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float]:
    """Weights and intercept; an exact Newton solver, on one thread, gives the same to the bit."""
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        solver = LogisticRegression(solver="newton-cholesky", tol=1e-10, max_iter=200).fit(x, y)
    return solver.coef_[0], float(solver.intercept_[0])


__all__ = ["FOLDS", "Stacking"]
