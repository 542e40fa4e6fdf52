"""Logistic regression of summary statistics and vectors: the oldest baseline."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from ..config import FuseConfig
from ..methods.whole import LogisticOptions
from .interface import FusionBatch, FusionModel, FusionOutput, Hyper, ModalitySpec
from .statistics import StayTable
from .task import binary

_log = logging.getLogger("cm2.fuse")

MOST_STEPS = 2000


class Logistic(FusionModel):
    """Logistic regression of statistics of the series and of vectors, by scikit-learn.

    A number that is not known is the mean of the training rows that know it, and has a column that
    says so. Columns are standardised, the penalty is that of ridge regression; validation chooses
    its strength.
    """

    Options: ClassVar[type[LogisticOptions]] = LogisticOptions
    needs: ClassVar[str] = "a series or vectors of each modality; fitted as a whole"
    absence: ClassVar[str] = "means of the training stays, columns that say so, availability bits"
    vmappable: ClassVar[bool] = False
    models_interaction: ClassVar[bool] = False

    mean: Tensor
    rate: Tensor
    first: Tensor

    def __init__(self, specs: Sequence[ModalitySpec], config: FuseConfig, targets: int = 1) -> None:
        super().__init__(specs, config, targets)
        self.options = LogisticOptions.of(config)
        self.table = StayTable(self.specs, self.options.components)
        F = len(self.table.names)
        self.register_buffer("mean", torch.zeros(F).double())
        self.register_buffer("rate", torch.zeros(F).double())
        self.linear = nn.Linear(2 * F + len(self.specs), targets).double()
        self._path: list[tuple[float, Tensor, Tensor]] = []

    @torch.no_grad()
    def fit(self, batches: Iterable[FusionBatch]) -> None:
        """Fit one solution for every strength of the penalty, the strongest first."""
        batches = list(batches)
        self.table.fit(batches)
        x = torch.cat([self.table(batch) for batch in batches])
        self._standardise(x)
        y = torch.cat([batch.y for batch in batches])
        columns = torch.cat([self.columns(batch) for batch in batches])
        options = self.options
        ends = (np.log10(options.strongest), np.log10(options.weakest))
        strengths = np.logspace(*ends, options.strengths)
        self._path = []
        for strength in strengths.tolist():
            found = [self._solve(columns, y[:, c], c, strength) for c in range(self.targets)]
            weight, bias = (
                torch.from_numpy(np.concatenate(part)) for part in zip(*found, strict=True)
            )
            self._path.append((strength, weight, bias))

    def _standardise(self, x: Tensor) -> None:
        known = ~x.isnan()
        n = known.sum(0).clamp(min=1)
        mean = torch.where(known, x, 0.0).sum(0) / n
        apart = torch.where(known, x - mean, 0.0)
        std = (apart.square().sum(0) / n).sqrt()
        constant = std <= 1e-9 * mean.abs().clamp(min=1)
        self.mean.copy_(mean)
        self.rate.copy_(torch.where(constant, 0.0, 1 / std.clamp(min=1e-30)))

    def _solve(
        self, columns: Tensor, y: Tensor, c: int, strength: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Weights and intercept of one target under one penalty."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
        from threadpoolctl import threadpool_limits

        known = ~y.isnan()
        events = y[known].long().cpu()
        weight = self.class_weights[:, c].cpu()[events]
        with threadpool_limits(1), warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", ConvergenceWarning)
            solver = LogisticRegression(C=strength, max_iter=MOST_STEPS, tol=1e-5)
            solver.fit(columns[known].cpu().numpy(), events.numpy(), weight.numpy())
        if said:
            _log.warning("C = %g has not converged after %d steps.", strength, MOST_STEPS)
        return solver.coef_, solver.intercept_

    @torch.no_grad()
    def choose(self, candidate: int) -> dict[str, float]:
        """Take a solution, from 1; the strength of its penalty is C of scikit-learn."""
        strength, weight, bias = self._path[candidate - 1]
        self.linear.weight.copy_(weight)
        self.linear.bias.copy_(bias)
        return {"strength": strength}

    def columns(self, batch: FusionBatch) -> Tensor:
        """Standardised numbers, which of them are unknown, and availability: ``(B, 2 F + M)``."""
        x = self.table(batch)
        unknown = x.isnan()
        numbers = torch.where(unknown, 0.0, (x - self.mean) * self.rate)
        return torch.cat([numbers, unknown.double(), batch.available.double()], 1)

    def forward(self, batch: FusionBatch, hyper: Hyper) -> FusionOutput:
        """Predict and judge a batch."""
        logits: Tensor = self.linear(self.columns(batch))
        z = torch.zeros_like(batch.available, dtype=logits.dtype).unsqueeze(-1)  # (B, M, 1)
        return FusionOutput(logits, z, {"task": binary(logits, batch.y, self.class_weights)}, {})


__all__ = ["Logistic"]
