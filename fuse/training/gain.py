"""Whether an ensemble pays here: measured on a few steps of both ways."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from ...errors import CM2Error
from ..config import FuseConfig
from ..data import FusionData
from .course import Course
from .loop import reproducible, train_epoch
from .mapped import Mapped
from .state import InMemory

STEPS = 3
ROUNDS = 2


def gain(configs: Sequence[FuseConfig], data: FusionData) -> float:
    """How many times cheaper a step of a member is in an ensemble than alone, in one process.

    Both take the same few steps in turns, optimisers included; the fastest round of each counts.
    Nothing is stored.

    Args:
        configs: The members that would be trained at a time.
        data: Their rows, on the device that will train.

    Raises:
        CM2Error: A member cannot be started, or is not finite within a few steps.
    """
    left = STEPS * configs[0].batch_size
    split = []
    for word in data.columns["split"]:
        left -= word == "train"
        split.append("" if word == "train" and left < 0 else word)
    some = replace(data, columns={**data.columns, "split": split})

    def course(config: FuseConfig) -> Course:
        return Course.open(config, some, InMemory())

    with reproducible(configs[0].deterministic):
        single = course(configs[0])
        mapped = Mapped([course(config) for config in configs], some, _refuse)
        alone, together = [], []
        for _ in range(1 + ROUNDS):  # the first warms up
            alone.append(_seconds(lambda: train_epoch(single, some)))
            together.append(_seconds(mapped.train_epoch))
    return min(alone[1:]) * len(configs) / min(together[1:])


def _seconds(work: Callable[[], object]) -> float:
    clock = time.perf_counter()
    work()  # ends with its means on the host, so nothing is left running
    return time.perf_counter() - clock


def _refuse(course: Course, error: CM2Error) -> None:
    raise error


__all__ = ["gain"]
