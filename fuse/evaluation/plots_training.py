"""Figures of the report about training: parts of the loss, validation, monitors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .svg import COLOR, SERIES, draw

Epochs = Sequence[dict[str, Any]]

PARTS = {
    "task": "Task: cross-entropy",
    "copula": "Copula: −mean log c",
    "marginal": "Marginals: −log likelihood",
}
MONITORS = {
    "kendall_tau": "Kendall’s τ of the copula",
    "ks": "Distance of u to uniform (KS)",
    "effective_rank": "Effective rank of embeddings",
    "spread": "Spread of embeddings",
}


def losses(history: Epochs, best: int, warmup: int) -> str:
    """Draw each part of the loss over epochs, training and validation.

    Args:
        history: One mapping for each epoch.
        best: The chosen epoch, marked.
        warmup: Epochs of the task alone: other parts are drawn from the next one on.
    """
    parts = [key.removeprefix("train_") for key in history[-1] if key.startswith("train_")]
    parts = [part for part in parts if part != "loss"] or ["loss"]
    parts.sort(
        key=lambda part: (part not in PARTS, list(PARTS).index(part) if part in PARTS else 0)
    )

    def paint(figure: Figure) -> None:
        for axes, part in zip(_stacked(figure, len(parts)), parts, strict=True):
            own = "val_loss" if part == "task" and "val_task" not in history[-1] else f"val_{part}"
            for key, color in ((f"train_{part}", SERIES[0]), (own, SERIES[1])):
                _over_epochs(axes, history[0 if part == "task" else warmup :], key, color)
            axes.set_title(PARTS.get(part, part))
            _mark(axes, best)

    return draw("losses", "Parts of the loss over epochs", (3.9, 1.1 + 1.05 * len(parts)), paint)


def validation(history: Epochs, best: int) -> str:
    """Draw validation AUROC and AUPR over epochs; mark the best epoch."""

    def paint(figure: Figure) -> None:
        for axes, key, title in zip(
            _stacked(figure, 2), ("val_auroc", "val_aupr"), ("AUROC", "AUPR"), strict=True
        ):
            _over_epochs(axes, history, key, SERIES[1])
            chosen = [row for row in history if row["epoch"] == best and row.get(key) is not None]
            for row in chosen:
                axes.plot(best, row[key], "o", color=SERIES[1], markersize=6, zorder=5)
            value = f", {chosen[0][key]:.3f} at epoch {best}" if chosen else ""
            axes.set_title(f"{title}{value}")
            _mark(axes, best)

    return draw("validation", "Validation AUROC and AUPR over epochs", (3.9, 3.2), paint)


def monitors(history: Epochs, best: int) -> str | None:
    """Draw what the model watches over epochs; None if it watches nothing."""
    present = [key for key in MONITORS if any(row.get(key) is not None for row in history)]
    if not present:
        return None

    def paint(figure: Figure) -> None:
        for axes, key in zip(_stacked(figure, len(present)), present, strict=True):
            _over_epochs(axes, history, key, SERIES[0])
            axes.set_title(MONITORS[key])
            _mark(axes, best)

    size = (3.9, 1.1 + 1.05 * len(present))
    return draw("monitors", "What the model watches over epochs", size, paint)


def _stacked(figure: Figure, rows: int) -> list[Axes]:
    axes = np.atleast_1d(figure.subplots(rows, 1, sharex=True))
    axes[-1].set_xlabel("Epoch")
    for axis in axes:
        axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axis.yaxis.set_major_locator(MaxNLocator(3))
    return list(axes)


def _over_epochs(axes: Axes, history: Epochs, key: str, color: str) -> None:
    points = [(row["epoch"], row[key]) for row in history if row.get(key) is not None]
    if points:
        x, y = zip(*points, strict=True)
        axes.plot(x, y, color=color, marker="o" if len(points) == 1 else None, gid=key)


def _mark(axes: Axes, best: int) -> None:
    if best > 0:
        axes.axvline(best, color=COLOR["muted"], linestyle=":", linewidth=1.2)
