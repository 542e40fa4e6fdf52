"""Options of the interleaved attention over irregular series."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from .base import Options


class InterleavedOptions(Options):
    """How values come onto the common grid of times, and the size of the network."""

    series: Literal["utde", "lstm", "transformer"] = Field(
        "utde",
        description="A time series on the grid: attention over its times and the last value, "
        "gated (UTDE), or the states of an encoder (the paper's Table 10).",
    )
    gate: Literal["feature", "step", "stay"] = Field(
        "feature", description="The gate of UTDE has a value for each feature, step or stay."
    )
    grid: int = Field(24, ge=1, le=512, description="Times of the grid; 48 in the publication.")
    layers: int = Field(
        3, ge=1, le=12, description="Layers of self-attention and cross-attention in turn."
    )
    heads: int = Field(8, ge=1, le=64, description="Heads of every attention.")
    time_width: int = Field(64, ge=2, le=1024, description="Width of the embedding of times.")

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "original": {
            "hidden": 128,
            "dropout": 0.1,
            "optimizer": "adam",
            "lr": 4e-4,
            "weight_decay": 0.0,
            "batch_size": 32,
            "epochs": 6,
            "options": {"grid": 48},
        }
    }
    unread: ClassVar[tuple[str, ...]] = ("fusion_hidden", "series_encoder")
    small: ClassVar[Mapping[str, Any]] = {"grid": 3, "layers": 1, "heads": 2, "time_width": 6}


__all__ = ["InterleavedOptions"]
