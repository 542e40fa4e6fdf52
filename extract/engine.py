"""Where shards are computed: turn the work that a store lacks into committed shards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..cache import layout
from ..cache.fingerprint import fingerprint
from ..cache.store import Store, StoreWriter
from ..progress import Progress, Stop
from .config import ExtractConfig
from .work import Plan, Work


def encode(
    config: ExtractConfig, plan: Plan, progress: Progress, stop: Stop
) -> tuple[Store, int, bool]:
    """Encode what the store lacks.

    Args:
        config: Cache and how much to encode.
        plan: The work of one modality.
        progress: Shows items encoded.
        stop: Looked at between shards.

    Returns:
        The store, the number of items encoded by this call, and whether nothing is left.

    Raises:
        Interrupted: Stopped on request; what is committed stays.
    """
    modality = plan.space.modality
    writer = StoreWriter(config.cache, plan.space, plan.provenance)
    known = writer.known()
    lacking = sorted(
        (item for item in plan.work if known.get(item.item_id) != item.stamp),
        key=lambda item: item.item_id,
    )
    todo = lacking[: config.limit]
    done = encoded = 0
    with progress(f"encoding {modality}", len(todo), "items") as advance:
        for chunk in _chunks(todo, plan.shard_items):
            name = shard_name(plan, chunk)
            if not writer.committed(name):
                stop.check(f"{done:,} of {len(todo):,} items of {modality} are stored")
                shard = plan.encode(chunk)
                writer.commit(name, shard, {item.item_id: item.stamp for item in chunk})
                encoded += len(chunk)
            done += len(chunk)
            advance(len(chunk))
    if plan.blank is not None and not (writer.path / layout.BLANK).is_file():
        writer.write_blank(plan.blank())
    complete = len(todo) == len(lacking)
    return writer.finish(complete), encoded, complete


def shard_name(plan: Plan, chunk: Sequence[Work]) -> str:
    """Name of a shard: a function of its space and of the items and stamps in it."""
    return fingerprint([plan.space.id, [[item.item_id, item.stamp] for item in chunk]])[:12]


def _chunks(items: Sequence[Work], size: int) -> Iterator[Sequence[Work]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


__all__ = ["encode", "shard_name"]
