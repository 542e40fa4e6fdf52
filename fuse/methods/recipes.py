"""How the paper and its code train every method; options of a run, not of a method."""

from __future__ import annotations

from typing import Any

PAPER_RECIPE: dict[str, Any] = {
    "hidden": 256,
    "dropout": 0.3,
    "epochs": 100,
    "patience": 15,
    "batch_size": 32,
    "optimizer": "adam",
    "lr": 1e-4,
    "weight_decay": 0.0,
    "scheduler": "plateau",
    "clip": 0.0,
}
"""What the paper states."""

PUBLISHED_RECIPE: dict[str, Any] = PAPER_RECIPE | {
    "beta2": 0.9,
    "published": {"validate_first": True, "validation_in_normaliser": True},
}
"""What its code does for every method; learning rates differ by script."""

__all__ = ["PAPER_RECIPE", "PUBLISHED_RECIPE"]
