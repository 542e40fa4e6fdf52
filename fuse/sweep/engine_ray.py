"""Train runs as tasks of a Ray cluster: the same runs, in the same places of a shared cache.

Each task trains one run with one CPU thread, or with a part of a GPU, and only says how it ended:
runs are written by the workers, so the cache must be mounted on every node under the same path,
and cm2 be installed there. A task whose worker dies is given to another one, which continues after
the last whole epoch; the lease of a lost node is void after five minutes.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

from ...cluster import joined
from ...errors import CM2Error
from ...progress import Stop, never
from ..training.allocator import keep_freed_memory
from .work import ATTEMPTS, Context, May, Outcome, Task, Worker

_TICK = 0.5
_AGAIN = "Finished epochs are stored; the same command continues from there."
_FILMS = "CM2_FILMS"  # `stream.items.ROOT`, without torch
_GRACE = 60.0  # seconds in which cancelled tasks may end


def compute(
    tasks: Sequence[Task], context: Context, jobs: int | None, may: May, stop: Stop
) -> Iterator[Outcome]:
    """Yield the outcome of every task, in any order.

    Args:
        tasks: Runs to train.
        context: What workers must know; the path of the cache holds on every node.
        jobs: On CPUs the runs at a time, None for all CPUs of the cluster; on GPUs the runs that
            share one GPU, None for one.
        may: Asked before a run is begun.
        stop: Looked at all the time; once it is requested, tasks are cancelled.

    Raises:
        ConfigError: Ray is not installed, or nobody answers.
        Interrupted: A stop was requested.
        ResourceError: The cluster is lost, or disk, memory or device is exhausted.
        IntegrityError: A file of the cache is not what was written.
    """
    on_gpu = context.device.startswith("cuda")
    with joined(None if on_gpu else jobs, _AGAIN) as ray:
        yield from _run(ray, tasks, context, jobs, may, stop)


def _run(
    ray: Any, tasks: Sequence[Task], context: Context, jobs: int | None, may: May, stop: Stop
) -> Iterator[Outcome]:
    on_gpu = context.device.startswith("cuda")
    remote = ray.remote(
        num_cpus=1, num_gpus=1 / (jobs or 1) if on_gpu else 0, max_retries=ATTEMPTS - 1
    )(train_in_worker)
    here = {"folder": str(Path.cwd()), "films": os.environ.get(_FILMS, "")}
    places = _places(ray, on_gpu, jobs)
    waiting, doing = deque(tasks), dict[Any, Task]()
    try:
        while waiting or doing:
            stop.check("every finished epoch is stored")
            if not may():
                waiting.clear()
            while waiting and len(doing) < places:
                task = waiting.popleft()
                doing[remote.remote(asdict(context), task.to_json(), here)] = task
            ready, _ = ray.wait([*doing], num_returns=1, timeout=_TICK) if doing else ([], [])
            for handle in ready:
                outcome = _outcome(ray, handle, doing.pop(handle))
                outcome.raise_fatal()
                yield outcome
    except (CM2Error, KeyboardInterrupt):
        for handle in doing:
            ray.cancel(handle, force=False)
        ray.wait([*doing], num_returns=len(doing), timeout=_GRACE) if doing else None
        raise


def _places(ray: Any, on_gpu: bool, jobs: int | None) -> int:
    """Tasks under way: as many as the cluster can run."""
    resources = ray.cluster_resources()
    if on_gpu:
        return max(1, int(resources.get("GPU", 1) * (jobs or 1)))
    cpus = max(1, int(resources.get("CPU", 1)))
    return min(cpus, jobs or cpus)


def _outcome(ray: Any, handle: Any, task: Task) -> Outcome:
    try:
        return Outcome(**ray.get(handle))
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError) as error:
        reason = (
            f"Its worker died {ATTEMPTS} times ({type(error).__name__}). Perhaps memory is short: "
            "lower --jobs or --batch-size, then give --retry."
        )
        return Outcome(task.index, "failed", reason)


def train_in_worker(
    context: dict[str, Any], task: dict[str, Any], here: dict[str, str]
) -> dict[str, Any]:
    """Train one run in a worker process; runs there.

    Args:
        context: A `Context` as a mapping.
        task: A `Task` as JSON.
        here: Of the caller: its folder, from which relative paths count, and that of the films.

    Returns:
        An `Outcome` as JSON.
    """
    with suppress(OSError):  # not mounted on this node; paths may be whole all the same
        os.chdir(here["folder"])
    if here["films"]:
        os.environ[_FILMS] = here["films"]
    (outcome,) = _worker(Context(**context)).take([task], never())
    return outcome.to_json()


@lru_cache(maxsize=1)
def _worker(context: Context) -> Worker:
    """The one of this process: it reads the cache once for all tasks of a sweep."""
    keep_freed_memory()
    return Worker(context)


__all__ = ["compute", "train_in_worker"]
