"""Train what a plan holds, all lines at once; what is finished is taken as it is."""

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
from .pool import Pool

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
    jobs: int | None = None,
    device: str = "auto",
    progress: Progress = silent,
    stop: Stop | None = None,
) -> list[list[Trained]]:
    """Train every line of every room, and predict the test stays of the chosen ones once.

    Where only the copula is looked at, no test stay is.

    Runs are trained by processes of one thread each, whichever line they belong to: first every
    try with the first seed, then what validation chose with the others.

    Args:
        plan: What is trained.
        seeds: The same for every line.
        jobs: Runs at a time; None for one per core, or one on a GPU.
        device: See `trainer.fuse`.
        progress: Counts runs, then lines.
        stop: Asked after every epoch.

    Returns:
        By room, its lines. A line that fails is logged and has no group.

    Raises:
        Interrupted: A stop was requested; the same call continues.
    """
    stop = stop or never()
    entries = [(room, entry) for room in plan.rooms for entry in room.entries]
    total = sum(len(runs_of(entry, seeds)) for _, entry in entries)
    chosen: dict[int, FuseConfig] = {}
    with _no_warnings():
        with progress(f"reproduce {plan.experiment.name}", total, "runs") as advance:
            pool = Pool(jobs, device, stop, advance)
            first = seeds[:1] if any(len(e.tries) > 1 for _, e in entries) else seeds
            pool.train([(c, room.cache) for room, e in entries for c in _with(e.tries, first)])
            for i, (room, entry) in enumerate(entries):
                chosen[i] = _chosen(entry, room, seeds[0], pool)
            others = seeds[len(first) :]
            pool.train(
                [(c, entries[i][0].cache) for i in chosen for c in _with([chosen[i]], others)]
            )
        result: list[list[Trained]] = [[] for _ in plan.rooms]
        places = [r for r, room in enumerate(plan.rooms) for _ in room.entries]
        judged = not plan.experiment.of_copula
        doing = "predicting test stays" if judged else "reading copulas"
        with progress(doing, len(entries), "lines") as advance:
            for i, (room, entry) in enumerate(entries):
                stop.check("every run is stored")
                line = _grouped(entry, room, chosen[i], seeds, device, pool, judged)
                result[places[i]].append(line)
                advance(1)
    return result


def _with(tries: Sequence[FuseConfig], seeds: Sequence[int]) -> list[FuseConfig]:
    return [_seeded(config, seed) for config in tries for seed in seeds]


def _chosen(entry: Entry, room: Room, seed: int, pool: Pool) -> FuseConfig:
    """The try that is best on the validation stays; one that failed is never chosen."""

    def validated(i: int) -> tuple[float, int]:
        run = pool.run(_seeded(entry.tries[i], seed), room.cache)
        return (-1.0 if run is None else _validated(run), -i)

    return entry.tries[max(range(len(entry.tries)), key=validated)]


def _grouped(
    entry: Entry,
    room: Room,
    chosen: FuseConfig,
    seeds: Sequence[int],
    device: str,
    pool: Pool,
    judged: bool,
) -> Trained:
    from ..training.groups import fuse_group

    try:
        for config in _with([chosen], seeds):
            pool.require(config, room.cache)
        group = fuse_group(chosen, room.cache, seeds, device=device)
        for run in group.members if judged else ():
            predict_test(run, room.cache)
    except Interrupted:
        raise
    except CM2Error as error:
        _log.error(f"{room.title}: {entry.line.title} failed: {error}")
        return Trained(entry, None, chosen, str(error))
    return Trained(entry, group, chosen)


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
