"""Turn the work that a store lacks into committed shards, wherever they are computed.

A shard is a pure function of its items, and which items make a shard is a function of all work of
the plan. So neither the engine, nor the number of workers, nor the parts of a job array change a
byte of what a fresh store ends with.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence

from ..cache import layout
from ..cache.cohort import linked_elsewhere
from ..cache.fingerprint import fingerprint
from ..cache.store import EncodedShard, Store, StoreWriter
from ..progress import Progress, Stop
from . import engine_local
from .config import ExtractConfig
from .work import Plan, Work

Chunk = Sequence[Work]


def encode(
    config: ExtractConfig, plan: Plan, progress: Progress, stop: Stop
) -> tuple[Store, int, bool]:
    """Encode what the store lacks.

    Args:
        config: Cache, engine, and how much or which part to encode.
        plan: The work of one modality.
        progress: Shows items encoded.
        stop: Looked at before a shard is begun; those that are under way are finished.

    Returns:
        The store, the number of items encoded by this call, and whether nothing is left.

    Raises:
        Interrupted: Stopped on request; what is committed stays.
        ConfigError: The engine is not installed.
        ResourceError: A worker of the cluster died again and again.
    """
    modality = plan.space.modality
    writer = StoreWriter(config.cache, plan.space, plan.provenance)
    chunks = share(plan, writer.known(), config)
    names = {id(chunk): shard_name(plan, chunk) for chunk in chunks}
    todo = [chunk for chunk in chunks if not writer.committed(names[id(chunk)])]
    total = sum(map(len, chunks))
    lacking = sum(map(len, todo))
    encoded = 0

    def may_begin() -> None:
        done = total - lacking + encoded
        stop.check(f"{done:,} of {total:,} items of {modality} are stored")

    with progress(f"encoding {modality}", total, "items") as advance:
        advance(total - lacking)
        for chunk, shard in _compute(config, plan, todo, may_begin):
            stamps = {item.item_id: item.stamp for item in chunk}
            writer.commit(names[id(chunk)], shard, stamps)
            encoded += len(chunk)
            advance(len(chunk))
    if plan.blank is not None and not (writer.path / layout.BLANK).is_file():
        writer.write_blank(plan.blank())
    whole = config.shard is None and config.limit is None
    if whole:
        asked = {item.item_id for item in plan.work}
        writer.forget_rejects(asked | linked_elsewhere(config.cache, modality, config.cohort))
    store, complete = _finish(writer, plan, whole=whole)
    return store, encoded, complete


def _compute(
    config: ExtractConfig, plan: Plan, todo: Sequence[Chunk], may_begin: Callable[[], None]
) -> Iterator[tuple[Chunk, EncodedShard]]:
    """Every chunk with its shard, in any order."""
    if not todo:
        return iter(())
    if config.engine == "ray":
        from . import engine_ray

        cpus = None if config.workers == "auto" else config.workers
        gpus = int(config.device.startswith("cuda"))
        return engine_ray.compute(plan, todo, may_begin, cpus=cpus, gpus=gpus)
    return engine_local.compute(plan, todo, may_begin, workers(config))


def workers(config: ExtractConfig) -> int:
    """How many threads work, by default one per core that this process may use."""
    if config.workers != "auto":
        return config.workers
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def share(plan: Plan, known: Mapping[str, str], config: ExtractConfig) -> list[Chunk]:
    """Return the items of every shard to make.

    The shards of a fresh store are consecutive items in order of their ids, `shard_items` each;
    `--shard I/N` takes every N-th of them. One of which nothing is stored yet is made as it is;
    the items that others lack are made together, after them.

    Args:
        plan: The work.
        known: Stamps of the items that are stored.
        config: Limit and part.
    """
    part, parts = (int(word) for word in (config.shard or "0/1").split("/"))
    ordered = sorted(plan.work, key=lambda item: item.item_id)
    whole: list[Chunk] = []
    scattered: list[Work] = []
    for chunk in _chunks(ordered, plan.shard_items)[part::parts]:
        lacking = [item for item in chunk if known.get(item.item_id) != item.stamp]
        if len(lacking) == len(chunk):
            whole.append(chunk)
        else:
            scattered += lacking
    chunks = [*whole, *_chunks(scattered, plan.shard_items)]
    if config.limit is None:
        return chunks
    limited, left = [], config.limit
    for chunk in chunks:
        if left > 0:
            limited.append(chunk[:left])
        left -= len(chunk)
    return limited


def shard_name(plan: Plan, chunk: Chunk) -> str:
    """Name of a shard: a function of its space and of the items and stamps in it."""
    return fingerprint([plan.space.id, [[item.item_id, item.stamp] for item in chunk]])[:12]


def _finish(writer: StoreWriter, plan: Plan, *, whole: bool) -> tuple[Store, bool]:
    """Fold what is there; a part of the work completes the store when no other part is missing."""
    if whole:
        return writer.finish(complete=True), True
    store = writer.finish(complete=False)
    stored = {
        pair
        for table in (store.items, store.rejects)
        for pair in zip(table["item_id"].to_pylist(), table["stamp"].to_pylist(), strict=True)
    }
    if all((item.item_id, item.stamp) in stored for item in plan.work):
        return writer.finish(complete=True), True
    return store, False


def _chunks(items: Sequence[Work], size: int) -> list[Chunk]:
    return [items[start : start + size] for start in range(0, len(items), size)]


__all__ = ["encode", "shard_name", "share", "workers"]
