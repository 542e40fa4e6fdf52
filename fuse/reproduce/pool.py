"""Runs of several caches, trained by the processes that train sweeps; each run once."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from ...cache.layout import RUNS
from ...errors import CM2Error, ConfigError
from ...progress import Stop
from ..config import FuseConfig
from ..identity import Inputs
from ..rundir import RunDir
from ..sweep.engine_local import Workers
from ..sweep.runner import How, parallel
from ..sweep.work import Context, Task
from ..training.trainer import serves

_WAIT = 2.0  # seconds before a run that another process has is looked at again

Wanted = tuple[FuseConfig, Path]
"""A configuration and the cache it is trained from."""


class Pool:
    """What is trained, and what failed with its reason.

    Args:
        jobs: Runs at a time; None for one per core, or one on a GPU.
        device: See `trainer.fuse`.
        stop: Looked at all the time; runs stop after their epoch.
        advance: Told of every run that is wanted and ended.
    """

    def __init__(
        self, jobs: int | None, device: str, stop: Stop, advance: Callable[[int], None]
    ) -> None:
        self._jobs, self._device, self._stop, self._advance = jobs, device, stop, advance
        self._inputs: dict[Path, Inputs] = {}
        self._failures: dict[str, str] = {}

    def train(self, wanted: Sequence[Wanted]) -> None:
        """Train what is not finished; several that are the same run are trained once.

        Raises:
            Interrupted: A stop was requested; the same call continues.
            ResourceError: Disk, memory or device is exhausted.
            IntegrityError: A file of a cache is not what was written.
        """
        asked: dict[Path, dict[Path, list[FuseConfig]]] = defaultdict(lambda: defaultdict(list))
        for config, cache in wanted:
            run = self._place(config, cache)
            if run is None or serves(run):
                self._advance(1)
            else:
                asked[cache][run.path].append(config)
        for cache, runs in asked.items():
            self._train(cache, runs)

    def run(self, config: FuseConfig, cache: Path) -> RunDir | None:
        """The finished run of a configuration; None if it failed."""
        run = self._place(config, cache)
        return None if run is None or str(run.path) in self._failures else run

    def require(self, config: FuseConfig, cache: Path) -> None:
        """Raise ConfigError when the run of a configuration failed."""
        run = self._place(config, cache)
        told = _told(config, cache) if run is None else str(run.path)
        if told in self._failures:
            raise ConfigError(f"seed {config.seed}: {self._failures[told]}")

    def _train(self, cache: Path, runs: dict[Path, list[FuseConfig]]) -> None:
        context = Context(str(cache.resolve()), self._device, None)
        jobs = parallel(How(jobs=self._jobs, device=self._device))
        places = list(runs)
        waiting = list(range(len(places)))
        with Workers(context, jobs) as workers:
            while waiting:
                busy = []
                tasks = [Task(i, runs[places[i]][0]) for i in waiting]
                for outcome in workers.compute(tasks, lambda: True, self._stop):
                    if outcome.kind == "busy":
                        busy.append(outcome.index)
                        continue
                    run = places[outcome.index]
                    if outcome.kind == "failed":
                        self._failures[str(run)] = outcome.reason
                    self._advance(len(runs[run]))
                waiting = busy
                if busy:
                    self._stop.check("other processes are training runs that are wanted here too")
                    time.sleep(_WAIT)

    def _place(self, config: FuseConfig, cache: Path) -> RunDir | None:
        """Where a run lies; None if it cannot be."""
        told = _told(config, cache)
        if told in self._failures:
            return None
        try:
            inputs = self._inputs.setdefault(cache, Inputs(cache))
            return RunDir(cache / RUNS / inputs.identify(config).name)
        except CM2Error as error:
            self._failures[told] = str(error)
            return None


def _told(config: FuseConfig, cache: Path) -> str:
    return f"{cache}: {config.model_dump_json()}"


__all__ = ["Pool", "Wanted"]
