"""Train runs of one shape at once, by mapping their model over stacked parameters.

Worth it where starting a computation costs more than the computation: on a GPU, and for small
models. A run ends as it would alone up to rounding, not to the bit. What cannot be mapped is
trained one run after another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ...errors import BusyError, ConfigError, IntegrityError, ResourceError
from ...progress import Stop
from ..training.shapes import shape_key, unmappable
from . import engine_local
from .work import Context, May, Outcome, Task

LARGEST = 64
"""Runs after which the sweep is told how they ended."""


def compute(tasks: Sequence[Task], context: Context, may: May, stop: Stop) -> Iterator[Outcome]:
    """Yield the outcome of every task, those of one shape together.

    Args:
        tasks: Runs to train, all to their ends.
        context: What workers must know.
        may: Asked before runs are begun.
        stop: Asked after every epoch.

    Raises:
        ConfigError: Runs are to be paused, which an ensemble cannot.
        Interrupted: A stop was requested.
        ResourceError: Disk, memory or device is exhausted.
        IntegrityError: A file of the cache is not what was written.
    """
    from ..training.ensemble import train_ensemble

    if any(task.until is not None for task in tasks):
        raise ConfigError("--engine ensemble cannot pause runs: leave out --halving.")
    groups: dict[str, list[Task]] = {}
    alone = []
    for task in tasks:
        if unmappable(task.config):
            alone.append(task)
        else:
            groups.setdefault(shape_key(task.config), []).append(task)
    for group in groups.values():
        for start in range(0, len(group), LARGEST):
            part = group[start : start + LARGEST]
            if not may():
                return
            outcomes = train_ensemble(
                [task.config for task in part],
                Path(context.cache),
                device=context.device,
                stop=stop,
                sweep=context.sweep,
            )
            for task, found in zip(part, outcomes, strict=True):
                outcome = _outcome(task, found.error)
                outcome.raise_fatal()
                yield outcome
    yield from engine_local.compute(alone, context, 1, may, stop)


def _outcome(task: Task, error: Exception | None) -> Outcome:
    if error is None:
        return Outcome(task.index, "finished")
    if isinstance(error, BusyError):
        return Outcome(task.index, "busy", str(error))
    if isinstance(error, ResourceError | IntegrityError):
        return Outcome(task.index, "fatal", str(error), error.exit_code)
    return Outcome(task.index, "failed", str(error))


__all__ = ["LARGEST", "compute"]
