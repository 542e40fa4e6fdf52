"""Options of methods that are fitted as a whole, not in epochs: logistic regression, boosting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from .base import Options

STEP = 10
"""Trees between two solutions that validation chooses from."""


class WholeOptions(Options):
    """Nothing of the networks and their training is read."""

    unread: ClassVar[tuple[str, ...]] = (
        "hidden", "fusion_hidden", "series_encoder", "dropout", "epochs", "patience", "batch_size",
        "optimizer", "lr", "weight_decay", "scheduler", "clip", "beta2", "precision", "temperature",
    )  # fmt: skip

    components: int = Field(
        64,
        ge=0,
        le=4096,
        description="Principal components that stand for a longer vector without named columns; 0 "
        "takes vectors as they are.",
    )


class LogisticOptions(WholeOptions):
    """Strengths of the penalty that validation chooses from."""

    weakest: float = Field(
        10.0, gt=0, description="Inverse of the weakest penalty, C of scikit-learn."
    )
    strongest: float = Field(1e-5, gt=0, description="Inverse of the strongest penalty.")
    strengths: int = Field(
        7, ge=1, le=100, description="Penalties that are tried, even in the logarithm."
    )

    def candidates(self) -> int:
        """One for each strength of the penalty."""
        return self.strengths


class BoostingOptions(WholeOptions):
    """Sizes of the trees; validation chooses how many are read."""

    violates: ClassVar[Mapping[str, Mapping[str, str]]] = {
        "corrected": {"sensitivity": "a step function: a change that crosses no threshold is none"}
    }
    small: ClassVar[Mapping[str, Any]] = {"trees": 100, "leaves": 8, "min_leaf": 2, "rate": 0.1}

    trees: int = Field(300, ge=STEP, le=2000, description=f"Trees at most, in steps of {STEP}.")
    leaves: int = Field(15, ge=2, le=255, description="Leaves of a tree at most.")
    min_leaf: int = Field(20, ge=1, description="Training stays in a leaf at least.")
    rate: float = Field(0.05, gt=0, le=1, description="Share of a tree that is added.")
    l2: float = Field(1.0, ge=0, description="Penalty of the leaves.")
    share: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Share of the columns, drawn anew, that a split is chosen from; at 1 seeds do "
        "not differ.",
    )

    def candidates(self) -> int:
        """One for every ten trees."""
        return self.trees // STEP


__all__ = ["STEP", "BoostingOptions", "LogisticOptions", "WholeOptions"]
