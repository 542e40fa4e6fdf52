"""A sweep from its specification to its index."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ...cache.lease import Lease
from ...errors import ConfigError, RejectsError
from ...progress import Stop, never
from ..identity import Inputs
from .book import SweepDir, default_place
from .engine_local import Workers
from .ledger import Ledger
from .plan import Plan, make_plan, parse_shard, share
from .progress import Watch, unwatched
from .spec import SweepSpec
from .work import Context, May, Outcome, Task

_WAIT = 2.0  # seconds before a run that another process has is looked at again


@dataclass(frozen=True)
class How:
    """How a sweep is worked on; no part of what it is.

    Attributes:
        engine: Processes of this machine, tasks of a Ray cluster, runs of one shape at once, or
            `auto`: these where a few measured steps say that they beat the processes.
        jobs: Runs at a time; None for one per core, or one per GPU. With Ray on GPUs the runs
            that share one GPU.
        device: See `trainer.fuse`.
        shard: Part of a job array, `i/n`, or None.
        retry: Try failed runs again.
    """

    engine: Literal["local", "ray", "ensemble", "auto"] = "local"
    jobs: int | None = None
    device: str = "auto"
    shard: str | None = None
    retry: bool = False


def sweep(
    spec: SweepSpec,
    cache: Path,
    out: Path | None = None,
    how: How | None = None,
    *,
    watch: Watch = unwatched,
    stop: Stop | None = None,
) -> SweepDir:
    """Train every run that a sweep asks for; finished ones are taken as they are.

    Args:
        spec: What is searched.
        cache: Where the embeddings are, and the runs come to lie.
        out: Directory of the sweep; by default one below `CACHE/sweeps` named by its identity.
        how: Engine, processes, part.
        watch: Is told how far it is.
        stop: Looked at all the time; runs stop after their epoch.

    Returns:
        The sweep, its index written.

    Raises:
        ConfigError: The grid cannot be meant, or `out` holds something else.
        Interrupted: A stop was requested; the same call continues.
        BusyError: Another process steers this sweep, and only one may.
    """
    how, stop = how or How(), stop or never()
    inputs = Inputs(cache)
    identity = spec.identity(inputs)
    place = out or default_place(cache, str(spec.base.get("task", "ihm")), identity)
    steered = spec.halving or spec.search == "tpe"
    if steered and how.shard is not None:
        raise ConfigError(
            f"{'--halving' if spec.halving else '--search tpe'} compares all runs, which parts of "
            "a job array cannot: leave --shard out, and use --jobs or --engine ray."
        )
    parse_shard(how.shard)
    plan = make_plan(spec, cache, inputs)
    found = SweepDir.claim(place, identity, {"spec": spec.describe()})
    with Lease(place) if steered else nullcontext():
        _Work(found, spec, plan, how, watch, stop).run()
    return found


class _Work:
    """One call: which runs are left, and who trains them."""

    def __init__(
        self, sweep: SweepDir, spec: SweepSpec, plan: Plan, how: How, watch: Watch, stop: Stop
    ) -> None:
        self.sweep, self.spec, self.plan = sweep, spec, plan
        self._how, self._stop = how, stop
        if plan.members:
            sweep.write_roll(plan.roll())
        if how.retry and plan.members:
            sweep.forgive([plan.members[i] for i in share(plan, how.shard)])
        self.ledger = Ledger(sweep, plan, spec.keep, watch)
        cache = plan.cache.resolve()
        self._context = Context(str(cache), how.device, sweep.identity)
        self._workers = Workers(self._context, 0 if how.engine == "ray" else parallel(how))

    def run(self) -> None:
        """Train what is left, whatever the search, and write the index."""
        try:
            self.ledger.mine = share(self.plan, self._how.shard)
            if self.spec.halving:
                from .halving import halve

                halve(self.plan, self.ledger, self.train)
            elif self.spec.search == "tpe":
                from .guided import guide

                guide(self.sweep, self.spec, self.plan, self.ledger, self.train, self._how.retry)
            else:
                self.train(self.ledger.mine)
                self._keep_overall()
        finally:
            self._workers.close()
            if self.plan.members:
                self.ledger.store()
            if self._how.shard is None:  # else other parts have gone on meanwhile
                self.sweep.latest = self.ledger.rows

    def train(self, numbers: Sequence[int], until: int | None = None) -> None:
        """Bring runs to `until` or to their end.

        Args:
            numbers: Numbers of the runs.
            until: Epoch, or None.
        """
        waiting = self.ledger.pending(numbers, until)
        self.ledger.tell()
        while waiting:
            busy = set[int]()
            tasks = [Task(i, self.plan.configs[i], until) for i in waiting]
            for outcome in self._compute(tasks):
                if outcome.kind == "busy":
                    busy.add(outcome.index)
                else:
                    self.ledger.note(outcome)
            if not busy or not self._may():
                return
            self._stop.check("runs of this sweep are being trained by other processes")
            time.sleep(_WAIT)
            self.ledger.reload()
            waiting = self.ledger.pending(sorted(busy), until)

    def _compute(self, tasks: Sequence[Task]) -> Iterator[Outcome]:
        may: May = self._may
        if self._how.engine == "ray":
            from . import engine_ray

            return engine_ray.compute(tasks, self._context, self._how.jobs, may, self._stop)
        if self._how.engine == "local":
            return self._workers.compute(tasks, may, self._stop)
        from . import engine_ensemble

        return engine_ensemble.compute(tasks, self._workers, self._how.engine, may, self._stop)

    def _may(self) -> bool:
        return self.spec.hours is None or self.ledger.hours() < self.spec.hours

    def _keep_overall(self) -> None:
        """Whoever finishes last drops what is not among the best of all parts."""
        if self._how.shard is not None:
            self.ledger.reload()
        if all(row["status"] in ("finished", "failed") for row in self.ledger.rows):
            self.ledger.prune(range(len(self.plan.members)))


def parallel(how: How) -> int:
    """How many runs are trained at a time: by default one per core, or one on a GPU."""
    if how.jobs is not None:
        return how.jobs
    if how.device != "cpu":
        from ..training.device import choose

        if choose(how.device).type == "cuda":
            return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


def require_all(sweep: SweepDir) -> None:
    """Raise when runs failed.

    Raises:
        RejectsError: Some did; the message lists the first.
    """
    failures = sweep.failures()
    if failures:
        shown = [f"{name}: {reason}" for name, reason in list(failures.items())[:5]]
        more = f"\n  … and {len(failures) - 5} more" if len(failures) > 5 else ""
        raise RejectsError(
            f"{len(failures)} run{'s' * (len(failures) > 1)} failed:\n  "
            + "\n  ".join(shown)
            + f"{more}\nThe others are finished. --retry tries the failed ones again."
        )


__all__ = ["How", "parallel", "require_all", "sweep"]
