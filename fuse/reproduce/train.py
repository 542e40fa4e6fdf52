"""Train what a plan holds, group by group; what is finished is taken as it is."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import CM2Error, Interrupted
from ...progress import Progress, Stop, never, silent
from ..config import FuseConfig
from ..group import RunGroup
from ..rundir import RunDir
from .expand import Entry, Plan, Room

_log = logging.getLogger("cm2.fuse")


@dataclass(frozen=True)
class Trained:
    """A line after training.

    Attributes:
        entry: The line.
        group: Its seeds; None if one of them failed.
        config: The configuration that validation chose among the tries.
        failure: Why there is no group.
    """

    entry: Entry
    group: RunGroup | None
    config: FuseConfig
    failure: str = ""


def runs_of(entry: Entry, seeds: Sequence[int]) -> list[FuseConfig]:
    """List the runs of a line: every try with the first seed, the chosen one with all of them.

    Which try is chosen is not known beforehand; the first stands for it.
    """
    first, *others = seeds
    tries = [_seeded(config, first) for config in entry.tries]
    return tries + [_seeded(entry.tries[0], seed) for seed in others]


def train(
    plan: Plan,
    seeds: Sequence[int],
    *,
    device: str = "auto",
    progress: Progress = silent,
    stop: Stop | None = None,
) -> list[list[Trained]]:
    """Train every line of every room, and predict the test stays of the chosen ones once.

    Args:
        plan: What is trained.
        seeds: The same for every line.
        device: See `trainer.fuse`.
        progress: Counts runs.
        stop: Asked after every epoch.

    Returns:
        By room, its lines. A line that fails is logged and has no group.

    Raises:
        Interrupted: A stop was requested; the same call continues.
    """
    stop = stop or never()
    total = sum(len(runs_of(e, seeds)) for room in plan.rooms for e in room.entries)
    result = []
    with progress(f"reproduce {plan.experiment.name}", total, "runs") as advance, _no_warnings():
        for room in plan.rooms:
            lines = []
            for entry in room.entries:
                try:
                    lines.append(_train(entry, room, seeds, device, stop))
                except Interrupted:
                    raise
                except CM2Error as error:
                    _log.error(f"{room.title}: {entry.line.title} failed: {error}")
                    lines.append(Trained(entry, None, entry.tries[0], str(error)))
                advance(len(runs_of(entry, seeds)))
            result.append(lines)
    return result


@contextmanager
def _no_warnings() -> Iterator[None]:
    """Say nothing of what every run would say again: the table tells it once."""

    def serious(record: logging.LogRecord) -> bool:
        return record.levelno > logging.WARNING

    handlers = logging.getLogger("cm2").handlers
    for handler in handlers:
        handler.addFilter(serious)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(serious)


def _train(entry: Entry, room: Room, seeds: Sequence[int], device: str, stop: Stop) -> Trained:
    from ..training.groups import fuse_group
    from ..training.trainer import fuse

    chosen = entry.tries[0]
    if len(entry.tries) > 1:
        tried = [
            fuse(_seeded(config, seeds[0]), room.cache, device=device, stop=stop)
            for config in entry.tries
        ]
        chosen = entry.tries[max(range(len(tried)), key=lambda i: (_validated(tried[i]), -i))]
    group = fuse_group(chosen, room.cache, seeds, device=device, stop=stop)
    for run in group.members:
        predict_test(run, room.cache)
    return Trained(entry, group, chosen)


def predict_test(run: RunDir, cache: Path) -> None:
    """Predict the test stays unless that was done; a look at them is counted."""
    from ..inference import predict

    if "test" not in run.info.get("predictions", {}):
        run.count_look("test")
        run.write_predictions("test", predict(run, cache, "test"))


def _validated(run: RunDir) -> float:
    metrics: dict[str, Any] = run.metrics("val") or {}
    value = (metrics.get("auroc") or {}).get("value")
    return -1.0 if value is None else float(value)


def _seeded(config: FuseConfig, seed: int) -> FuseConfig:
    return config.model_copy(update={"seed": seed})


__all__ = ["Trained", "predict_test", "runs_of", "train"]
