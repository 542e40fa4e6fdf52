"""Train runs of one shape at once, by mapping their model over stacked parameters.

Worth it where starting a computation costs more than the computation: on a GPU, and for small
models. Every process trains an ensemble of its own. A run ends as it would alone up to rounding,
not to the bit. What cannot be mapped is trained run by run.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Literal

from ...progress import Stop
from ..identity import Inputs
from .engine_local import Piece, Workers
from .work import Context, May, Outcome, Task

_log = logging.getLogger("cm2.fuse")

When = Literal["ensemble", "auto"]
SMALLEST = 16
"""Runs of one shape below which measuring costs more than it saves."""

WORTH = 1.1
"""Gain below which runs are rather trained one by one, which can be repeated to the bit."""


def compute(
    tasks: Sequence[Task], workers: Workers, when: When, may: May, stop: Stop
) -> Iterator[Outcome]:
    """Yield the outcome of every task, in any order; see `Workers.compute`.

    Args:
        tasks: Runs to train.
        workers: They train.
        when: `ensemble` trains all runs of one shape together, `auto` where a few measured steps
            say that it is faster.
        may: Asked before runs are begun.
        stop: Looked at after every epoch.
    """
    pieces = _pieces(tasks, workers.inputs(), workers.context, workers.jobs, when)
    return workers.compute_pieces(pieces, may, stop)


def _pieces(
    tasks: Sequence[Task], inputs: Inputs, context: Context, jobs: int, when: When
) -> list[Piece]:
    """What is trained together: as large as memory allows, and enough for every process."""
    pieces: list[Piece] = []
    together, said = set[int](), set[str]()
    for group in _groups(tasks, when):
        if size := _size(group, inputs, context, jobs, when, said):
            pieces += [group[start : start + size] for start in range(0, len(group), size)]
            together |= {task.index for task in group}
    return pieces + [[task] for task in tasks if task.index not in together]


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
        _log.warning(f"Trained run by run: {reason}.")


def _size(
    group: list[Task],
    inputs: Inputs,
    context: Context,
    jobs: int,
    when: When,
    said: set[str],
) -> int:
    """How many runs to train at a time; 0 if one by one is as fast."""
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
    try:
        size = min(largest_chunk(configs, data, jobs), -(-len(group) // jobs))
        if when == "ensemble":
            return size
        if size < 2:
            return 0
        found = gain(configs[:size], data)
    except Exception:  # whoever fails is told apart from the others by a run of its own
        return 0
    better = found > WORTH
    _log.info(
        f"An ensemble of {size} runs is {found:.1f} x one after another: "
        f"{'ensembles' if better else 'single runs'}, in {jobs} processes."
    )
    return size if better else 0


__all__ = ["compute"]
