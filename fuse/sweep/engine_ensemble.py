"""Train runs of one shape at once, by mapping their model over stacked parameters.

Worth it where starting a computation costs more than the computation: on a GPU, and for small
models. A run ends as it would alone up to rounding, not to the bit. What cannot be mapped is
trained by processes.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from ...errors import BusyError, CM2Error, IntegrityError, ResourceError
from ...progress import Stop
from ..identity import Inputs
from . import engine_local
from .work import Context, May, Outcome, Task

_log = logging.getLogger("cm2.fuse")

When = Literal["ensemble", "auto"]
SMALLEST = 16
"""Runs of one shape below which measuring costs more than it saves."""

WORTH = 0.95
"""Share of a process that a busy core really adds (docs/performance.md)."""


def compute(
    tasks: Sequence[Task], context: Context, jobs: int, when: When, may: May, stop: Stop
) -> Iterator[Outcome]:
    """Yield the outcome of every task, in any order; see `engine_local.compute`.

    Args:
        tasks: Runs to train.
        context: What workers must know.
        jobs: Processes for what is trained apart.
        when: `ensemble` trains all runs of one shape together, `auto` where a few measured steps
            say that it beats `jobs` processes.
        may: Asked before runs are begun.
        stop: Looked at after every epoch.
    """
    left = list(tasks)
    inputs = Inputs(Path(context.cache))
    said = set[str]()
    for group in _groups(tasks, when):
        size = _chunk(group, inputs, context, jobs, when, said)
        if not size:
            continue
        for start in range(0, len(group), size):
            if not may():
                return
            yield from _together(group[start : start + size], inputs, context, stop)
        done = {task.index for task in group}
        left = [task for task in left if task.index not in done]
    if left:
        yield from engine_local.compute(left, context, jobs, may, stop)


def _groups(tasks: Sequence[Task], when: When) -> list[list[Task]]:
    """Runs that can be trained together, enough of them to matter."""
    from ..training.shapes import shape_key, unmappable

    groups: dict[str, list[Task]] = defaultdict(list)
    apart: dict[str, None] = {}
    for task in tasks:
        if reason := unmappable(task.config):
            apart[reason] = None
        else:
            groups[shape_key(task.config)].append(task)
    if when == "ensemble":
        _say_apart(*apart)
    least = 2 if when == "ensemble" else SMALLEST
    return [group for group in groups.values() if len(group) >= least]


def _say_apart(*reasons: str) -> None:
    for reason in reasons:
        _log.warning(f"Trained by one process for each run: {reason}.")


def _chunk(
    group: list[Task],
    inputs: Inputs,
    context: Context,
    jobs: int,
    when: When,
    said: set[str],
) -> int:
    """How many runs to train at a time; 0 if processes are faster."""
    from ..training.device import choose
    from ..training.gain import gain, unmapped
    from ..training.memory import largest_chunk

    identities = [inputs.identify(task.config) for task in group]
    data = inputs.load(identities[0]).to(choose(context.device))
    configs = [one.config for one in identities]
    if "@" in configs[0].model and (reason := unmapped(configs[:2], data)):
        _say_apart(*({reason} - said))
        said.add(reason)
        return 0
    size = largest_chunk(configs, data)
    if when == "ensemble":
        return size
    if size < 2:
        return 0
    try:
        found = gain(configs[:size], data)
    except CM2Error:  # whoever fails is told apart from the others by a run of its own
        return 0
    better = found > WORTH * jobs
    _log.info(
        f"An ensemble of {size} runs is {found:.1f} x one after another, {jobs} processes about "
        f"{WORTH * jobs:.1f} x: {'ensembles' if better else 'processes'}."
    )
    return size if better else 0


def _together(
    tasks: Sequence[Task], inputs: Inputs, context: Context, stop: Stop
) -> Iterator[Outcome]:
    from ..training.ensemble import train_ensemble

    with engine_local.quiet():
        outcomes = train_ensemble(
            [task.config for task in tasks],
            inputs.cache,
            device=context.device,
            chunk=len(tasks),
            stop=stop,
            inputs=inputs,
            until=tasks[0].until,
            sweep=context.sweep,
        )
    for task, (run, error) in zip(tasks, outcomes, strict=True):
        if error is None:
            yield Outcome(task.index, "finished" if run.finished else "paused")
        elif isinstance(error, BusyError):
            yield Outcome(task.index, "busy", str(error))
        elif isinstance(error, (ResourceError, IntegrityError)):
            raise error
        else:
            yield Outcome(task.index, "failed", str(error))


__all__ = ["compute"]
