"""Whether an ensemble pays here: measured on a few steps of both ways."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from ...errors import CM2Error
from ..config import FuseConfig
from ..methods import short
from ..rows import FusionData
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
    some = _begin(data, STEPS * configs[0].batch_size)

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


def unmapped(configs: Sequence[FuseConfig], data: FusionData) -> str | None:
    """Say in a few words why a step cannot be mapped, as a method's own word may be wrong.

    Args:
        configs: Members of one shape.
        data: Their rows.

    Returns:
        The reason, or None: a mapped step of all members and a mapped judgement ran.
    """
    some = _begin(data, configs[0].batch_size)
    with reproducible(configs[0].deterministic):
        try:
            mapped = Mapped(
                [Course.open(config, some, InMemory()) for config in configs], some, _refuse
            )
            mapped.train_epoch()
            mapped.judge()
        except CM2Error:  # whoever fails is told apart from the others by a run of its own
            return None
        except Exception as error:
            kind = type(error).__name__
            return f"model = {short(configs[0].model)} cannot be mapped over members ({kind})"
    return None


def _begin(data: FusionData, rows: int) -> FusionData:
    """The data with the first training rows alone."""
    split = []
    for word in data.columns["split"]:
        rows -= word == "train"
        split.append("" if word == "train" and rows < 0 else word)
    return replace(data, columns={**data.columns, "split": split})


def _seconds(work: Callable[[], object]) -> float:
    clock = time.perf_counter()
    work()  # ends with its means on the host, so nothing is left running
    return time.perf_counter() - clock


def _refuse(course: Course, error: CM2Error) -> None:
    raise error


__all__ = ["gain", "unmapped"]
