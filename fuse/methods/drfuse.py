"""Options of DrFuse."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from .base import Options
from .recipes import PAPER_RECIPE, PUBLISHED_RECIPE


class DrFuseOptions(Options):
    """Encoder of time series, the weights of the losses, and a defect of every public code."""

    series: Literal["transformer", "lstm"] = Field(
        "transformer",
        description="One layer for all that a time series says, then one for what it shares and "
        "one for what is its own; Transformer as published, or LSTM.",
    )
    divergence: Literal["two-sided", "published"] = Field(
        "two-sided",
        description="Jensen-Shannon divergence of the shared features of stays that have both; "
        "published: half of it, summed over all stays, divided by the number of pairs.",
    )
    weight_own: float = Field(
        1.0, ge=0, description="Weight of each modality's own prediction from what is distinct."
    )
    weight_shared: float = Field(
        1.0, ge=0, description="Weight of the prediction from what is shared."
    )
    weight_divergence: float = Field(1.0, ge=0, description="Weight of the divergence.")
    weight_orthogonal: float = Field(
        1.0, ge=0, description="Weight of the cosine of shared and distinct features."
    )
    weight_rank: float = Field(
        1.0, ge=0, description="Weight of the order of the attention, better predictors first."
    )

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": PAPER_RECIPE | {"batch_size": 8},  # the one exception that the paper names
        "reference": PUBLISHED_RECIPE | {"beta2": 0.999, "options": {"divergence": "published"}},
        "original": {
            "optimizer": "adam",
            "lr": 1e-4,
            "weight_decay": 0.0,
            "batch_size": 16,
            "patience": 10,
            "options": {"divergence": "published"},
        },
    }
    violates: ClassVar[Mapping[str, Mapping[str, str]]] = {
        name: {"alone": "the divergence is divided by the number of pairs in the batch"}
        for name in ("reference", "original", "divergence=published")
    }
    unread: ClassVar[tuple[str, ...]] = ("fusion_hidden", "series_encoder")


__all__ = ["DrFuseOptions"]
