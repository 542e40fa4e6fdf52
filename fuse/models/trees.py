"""Boosted trees as tensors: what scikit-learn has grown, read without it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...errors import ConfigError


class Trees(nn.Module):
    """Sums of leaves of binary trees.

    Args:
        targets: Number C of targets, each with trees of its own.
        trees: Number of trees of a target.
        leaves: Leaves of a tree at most.
    """

    feature: Tensor
    threshold: Tensor
    unknown_left: Tensor
    branches: Tensor
    depth: Tensor
    used: Tensor

    def __init__(self, targets: int, trees: int, leaves: int) -> None:
        super().__init__()
        shape = (targets, trees, 2 * leaves - 1)
        itself = torch.arange(shape[-1]).expand(2, *shape).clone()
        self.register_buffer("feature", torch.zeros(shape, dtype=torch.int64))
        self.register_buffer("threshold", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("unknown_left", torch.zeros(shape, dtype=torch.bool))
        self.register_buffer("branches", itself)  # a leaf leads to itself
        self.register_buffer("depth", torch.zeros((), dtype=torch.int64))
        self.register_buffer("used", torch.tensor(trees))
        self.value = nn.Parameter(torch.zeros(shape, dtype=torch.float64))
        self.bias = nn.Parameter(torch.zeros(targets, dtype=torch.float64))

    @torch.no_grad()
    def grown(self, c: int, model: Any) -> None:
        """Take over the trees of one target.

        Args:
            c: The target.
            model: A fitted HistGradientBoostingClassifier of two classes and numeric columns.

        Raises:
            ConfigError: This version of scikit-learn keeps its trees in another way.
        """
        try:
            self.bias[c] = float(model._baseline_prediction.ravel()[0])
            for t, (predictor,) in enumerate(model._predictors):
                nodes = predictor.nodes
                n = len(nodes)
                inner = ~nodes["is_leaf"].astype(bool)
                itself = np.arange(n)
                self.feature[c, t, :n] = _tensor(np.where(inner, nodes["feature_idx"], 0))
                # Infinity parts what is known from what is not; files hold finite numbers.
                bound = np.minimum(nodes["num_threshold"], np.finfo(np.float64).max)
                self.threshold[c, t, :n] = _tensor(np.where(inner, bound, 0.0))
                self.unknown_left[c, t, :n] = _tensor(nodes["missing_go_to_left"].astype(bool))
                for side, name in enumerate(("left", "right")):
                    children = np.where(inner, nodes[name].astype(np.int64), itself)
                    self.branches[side, c, t, :n] = _tensor(children)
                self.value[c, t, :n] = _tensor(nodes["value"])
                self.depth.clamp_(min=int(nodes["depth"].max()))
        except (AttributeError, KeyError, ValueError) as error:
            import sklearn

            raise ConfigError(
                f"scikit-learn {sklearn.__version__} keeps its trees in a way that is not known "
                f"here ({error}). Install a version between 1.6 and 1.9."
            ) from error

    def forward(self, x: Tensor) -> Tensor:
        """Log odds ``(B, C)`` of rows ``(B, F)`` float64; NaN goes the way that a node names."""
        C, T, _ = self.value.shape
        B = len(x)
        node = torch.zeros(B, C * T, dtype=torch.int64, device=x.device)

        def at(table: Tensor) -> Tensor:
            """What the trees hold at the nodes, ``(B, C T)``."""
            return table.flatten(0, 1).expand(B, -1, -1).gather(2, node.unsqueeze(-1)).squeeze(-1)

        for _ in range(int(self.depth)):
            value = x.gather(1, at(self.feature))
            left = torch.where(value.isnan(), at(self.unknown_left), value <= at(self.threshold))
            node = torch.where(left, at(self.branches[0]), at(self.branches[1]))
        leaves = at(self.value).reshape(B, C, T)
        read = torch.arange(T, device=x.device) < self.used
        return torch.where(read, leaves, 0.0).sum(-1) + self.bias


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(array))


__all__ = ["Trees"]
