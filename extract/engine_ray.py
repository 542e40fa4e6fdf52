"""Compute shards as tasks of a Ray cluster: the same function of the same items, the same bytes.

Each task encodes one shard with one CPU thread and hands it back; only this process writes. The
folders of the source and of the weights must be mounted on every node under the same paths, and
cm2 must be installed there. A task whose worker dies is given to another one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ..cache.store import EncodedShard
from ..cluster import joined
from ..errors import ResourceError
from .engine_local import window
from .work import Plan, Work

Chunk = Sequence[Work]
_RETRIES = 5
_AGAIN = "What was encoded is stored; the same command continues from there."
_encoders: dict[str, Callable[[Chunk], EncodedShard]] = {}  # of a worker: the last one


def compute(
    plan: Plan,
    chunks: Sequence[Chunk],
    may_begin: Callable[[], None],
    *,
    cpus: int | None,
    gpus: int,
) -> Iterator[tuple[Chunk, EncodedShard]]:
    """Yield every chunk with its shard, in order.

    Args:
        plan: Who encodes.
        chunks: The items of each shard.
        may_begin: Asked before a shard is begun; raises Interrupted when none may be.
        cpus: CPUs of a Ray that is started here; None for all of this machine.
        gpus: GPUs that each task needs.

    Raises:
        ConfigError: Ray is not installed, or nobody answers.
        CM2Error: An encoder raised it in a worker.
        ResourceError: The workers died again and again on one shard, or the cluster is lost.
    """
    with joined(cpus, _AGAIN) as ray:
        yield from _computed(ray, plan, chunks, may_begin, gpus)


def _computed(
    ray: Any, plan: Plan, chunks: Sequence[Chunk], may_begin: Callable[[], None], gpus: int
) -> Iterator[tuple[Chunk, EncodedShard]]:
    try:
        task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=_RETRIES)(encode_in_worker)
        encoder = ray.put(plan.encode)

        def begin(chunk: Chunk) -> Any:
            # In a list the encoder stays a reference, which a worker resolves only once.
            return task.remote([encoder], list(chunk), str(Path.cwd()))

        def result(handle: Any) -> EncodedShard:
            shard: EncodedShard = ray.get(handle)
            return shard

        size = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
        yield from window(chunks, begin, result, size, may_begin)
    except ray.exceptions.RayTaskError as error:  # its text is a traceback
        raise error.cause from error
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError) as error:
        raise ResourceError(
            f"Ray workers died {_RETRIES + 1} times on one shard ({type(error).__name__}). Give "
            f"them more memory, or use --engine local to see why. {_AGAIN}"
        ) from error


def encode_in_worker(encoder: Sequence[Any], chunk: Chunk, folder: str) -> EncodedShard:
    """Encode one shard in a worker process; runs there.

    Args:
        encoder: The reference to it, under which the worker keeps it. Two of one space may hold
            the rows of two sources.
        chunk: The items.
        folder: Working directory of the caller, from which relative paths count.
    """
    import ray

    os.chdir(folder)
    reference = encoder[0].hex()
    if reference not in _encoders:
        _encoders.clear()
        _encoders[reference] = ray.get(encoder[0])
    return _encoders[reference](chunk)


__all__ = ["compute", "encode_in_worker"]
