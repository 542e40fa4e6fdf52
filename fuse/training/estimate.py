"""How long an epoch of a configuration takes here: measured on some of its rows, in memory."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ...progress import never, silent
from ..config import FuseConfig
from ..identity import Identity
from ..rows import FusionData
from .loop import reproducible, train
from .state import TrainerState

SAMPLE = {"train": 512, "val": 128}
"""Stays of each split that are timed."""


def seconds_per_epoch(
    identity: Identity, data: FusionData, sample: Mapping[str, int] = SAMPLE
) -> float:
    """Train a few epochs on some rows in memory, and scale the last one to all rows.

    The run starts from the weights that it names, so that those which do not fit are found out.

    Args:
        identity: The run.
        data: Its rows.
        sample: Stays of each split that are timed; they are spread over all of them, for a cohort
            may have an order in which films begin late.

    Raises:
        ConfigError: The run cannot be trained.
    """
    config = identity.config
    split = [""] * len(data.columns["split"])
    for word, most in sample.items():
        rows = data.rows(word)
        for place in np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(int):
            split[rows[place]] = word
    some = replace(data, columns={**data.columns, "split": split})
    short = {"folds": 0, "fold": 0}
    if not config.options.candidates():
        short |= {"epochs": config.warmup + 2, "patience": config.warmup + 2}
        short["freeze_trunk_epochs"] = short["freeze_text_epochs"] = 0
    clock = _Clock()
    with reproducible(False):
        quick = FuseConfig.of({**config.model_dump(), **short})
        train(quick, some, clock, silent, never(), identity.starts)
    share = len(some.rows("train")) / len(data.rows("train"))
    if config.options.candidates():  # nearly all of it is the fit, which comes first
        return (clock.at[-1] - clock.at[0]) / config.passes / share
    return (clock.at[-1] - clock.at[-2]) / share


class _Clock:
    """A journal that keeps nothing but the time of each epoch's end."""

    name = "an estimate"

    def __init__(self) -> None:
        self.at = [time.monotonic()]

    def resume(self, state: TrainerState) -> bool:
        return False

    def commit(self, state: TrainerState) -> None:
        self.at.append(time.monotonic())


__all__ = ["seconds_per_epoch"]
