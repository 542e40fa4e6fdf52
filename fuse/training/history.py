"""What follows from the epochs so far: the best one, whether to stop, the learning rate.

All of it is a function of the history alone, so a resumed run needs no other state.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..config import FuseConfig

Epochs = Sequence[dict[str, Any]]

SCORES = ("val_auroc", "val_aupr", "val_loss")
"""What an epoch is judged by."""

PLATEAU_FACTOR, PLATEAU_PATIENCE = 0.5, 10


def best_epoch(history: Epochs, warmup: int) -> int:
    """Choose the epoch with the highest validation AUROC; ties by loss, then the earlier one.

    Where the AUROC is undefined (one class among the validation stays) the loss decides.

    Args:
        history: One mapping per epoch, from epoch 1.
        warmup: Epochs before this one are no candidates: their mixtures have not started.

    Returns:
        The epoch from 1; 0 if there is no candidate yet.
    """
    candidates = [row for row in history if row["epoch"] >= warmup]
    return max(candidates, key=_score)["epoch"] if candidates else 0


def ended(history: Epochs, config: FuseConfig) -> bool:
    """Whether the last epoch is reached or patience is exhausted; a whole fit has no patience."""
    if config.options.candidates():
        return len(history) >= config.passes
    if len(history) >= config.epochs - config.published.validate_first:
        return True
    best = best_epoch(history, config.warmup)
    return best > 0 and len(history) - best >= config.patience


def learning_rate(history: Epochs, config: FuseConfig) -> float:
    """Learning rate of the next epoch.

    `plateau` halves it when the validation loss has not fallen for more than ten epochs (paper,
    appendix; the behaviour of `torch.optim.lr_scheduler.ReduceLROnPlateau`). `cosine` falls along
    half a wave from the first epoch to the end of the last (Loshchilov and Hutter, ICLR 2017).
    """
    rate = config.lr
    if config.scheduler == "none":
        return rate
    if config.scheduler == "cosine":
        return rate * 0.5 * (1 + math.cos(math.pi * len(history) / config.epochs))
    lowest, waited = float("inf"), 0
    for row in history:
        # a relative threshold, so that rounding is no progress
        if row["val_loss"] < lowest * (1 - 1e-4):
            lowest, waited = row["val_loss"], 0
        else:
            waited += 1
        if waited > PLATEAU_PATIENCE:
            rate, waited = rate * PLATEAU_FACTOR, 0
    return rate


def _score(row: dict[str, Any]) -> tuple[float, float, int]:
    auroc = row["val_auroc"]
    return (0.0 if auroc is None else auroc, -row["val_loss"], -row["epoch"])
