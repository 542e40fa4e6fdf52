"""Gradient-boosted trees of summary statistics and vectors: the baseline to beat on tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ...errors import ConfigError
from ..config import FuseConfig
from ..methods.whole import STEP, BoostingOptions
from ..random import key
from .interface import FusionBatch, FusionModel, FusionOutput, Hyper, ModalitySpec
from .statistics import StayTable
from .task import binary
from .trees import Trees


class Boosting(FusionModel):
    """Boosted trees of statistics of the series and of vectors, by scikit-learn.

    What is not known stays unknown: every split sends it to the side that fits better. Validation
    chooses the number of trees. The trees are kept as plain tensors and read without scikit-learn.
    """

    Options: ClassVar[type[BoostingOptions]] = BoostingOptions
    needs: ClassVar[str] = "a series or vectors of each modality; fitted as a whole"
    absence: ClassVar[str] = "unknown to the trees, which split on it; availability bits"
    vmappable: ClassVar[bool] = False

    def __init__(self, specs: Sequence[ModalitySpec], config: FuseConfig, targets: int = 1) -> None:
        super().__init__(specs, config, targets)
        self.options = BoostingOptions.of(config)
        self.table = StayTable(self.specs, self.options.components)
        self.trees = Trees(targets, self.options.candidates() * STEP, self.options.leaves)

    @torch.no_grad()
    def fit(self, batches: Iterable[FusionBatch]) -> None:
        """Grow all trees.

        Raises:
            ConfigError: This version of scikit-learn keeps its trees in another way.
        """
        batches = list(batches)
        self.table.fit(batches)
        x = torch.cat([self.columns(batch) for batch in batches])
        y = torch.cat([batch.y for batch in batches])
        grown = [self._grow(x, y[:, c], c) for c in range(self.targets)]
        self.trees.used.fill_(self.trees.value.shape[1])
        found = self.trees(x).cpu().numpy()
        if not np.allclose(found, np.stack(grown, 1), rtol=1e-9, atol=1e-9):
            raise ConfigError(
                "The trees that this version of scikit-learn has grown are read in another way "
                "here: predictions differ. Install a version between 1.6 and 1.9."
            )

    def _grow(self, x: Tensor, y: Tensor, c: int) -> np.ndarray:
        """Grow the trees of one target; return their log odds of all rows by scikit-learn."""
        from sklearn.ensemble import HistGradientBoostingClassifier
        from threadpoolctl import threadpool_limits

        options, known = self.options, ~y.isnan()
        never = (
            x[known].isnan().all(0)
        )  # scikit-learn stumbles; nothing is ever split on a constant
        x = torch.where(never, 0.0, x)
        events = y[known].long().cpu()
        weight = None  # any weights, equal ones too, make scikit-learn look for bins very slowly
        if self.config.class_weight == "balanced":
            weight = self.class_weights[:, c].cpu()[events].double().numpy()
        model = HistGradientBoostingClassifier(
            learning_rate=options.rate,
            max_iter=options.candidates() * STEP,
            max_leaf_nodes=options.leaves,
            min_samples_leaf=options.min_leaf,
            l2_regularization=options.l2,
            max_features=options.share,
            early_stopping=False,
            random_state=key(self.config.seed, "boosting", c) % 2**32,
        )
        with threadpool_limits(1):  # one thread adds sums up in one order
            model.fit(x[known].cpu().numpy(), events.numpy(), weight)
        self.trees.grown(c, model)
        odds: np.ndarray = model.decision_function(x.cpu().numpy())
        return odds

    def choose(self, candidate: int) -> dict[str, float]:
        """Read the first ten trees for each candidate, from 1."""
        self.trees.used.fill_(candidate * STEP)
        return {"trees": float(candidate * STEP)}

    def columns(self, batch: FusionBatch) -> Tensor:
        """Numbers, NaN where unknown, and availability: ``(B, F + M)``."""
        return torch.cat([self.table(batch), batch.available.double()], 1)

    def forward(self, batch: FusionBatch, hyper: Hyper) -> FusionOutput:
        """Predict and judge a batch."""
        logits: Tensor = self.trees(self.columns(batch))
        z = torch.zeros_like(batch.available, dtype=logits.dtype).unsqueeze(-1)  # (B, M, 1)
        return FusionOutput(logits, z, {"task": binary(logits, batch.y, self.class_weights)}, {})


__all__ = ["Boosting"]
