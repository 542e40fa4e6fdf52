"""What a modality hands to the runner: items to encode, and how the stays point at them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from ..cache.store import EncodedShard, Space


@dataclass(frozen=True)
class Work:
    """One item to encode.

    Args:
        item_id: Name of the item in its store.
        stamp: Cheap identity of the source, known before decoding: size and a hash of a few
            blocks of a file, the content hash of rows in memory. Another stamp means: encode again.
        payload: Whatever the modality's `encode` needs, usually a path or the rows.
        facts: Extra columns of items.parquet, JSON scalars.
    """

    item_id: str
    stamp: str
    payload: Any
    facts: Mapping[str, object] = field(default_factory=dict)


@runtime_checkable
class Staged(Protocol):
    """An `encode` whose first stage needs no encoder, so that both can run at once.

    `encode(work)` is the same as `finish(work, [prepare(item) for item in work])`.
    """

    @property
    def parallel(self) -> bool:
        """Whether several threads may encode shards at once."""
        ...

    def prepare(self, item: Work) -> Any:
        """Read one item; safe in any thread, an item that cannot be read is no exception."""
        ...

    def finish(self, work: Sequence[Work], prepared: Sequence[Any]) -> EncodedShard:
        """Encode prepared items."""
        ...


@dataclass(frozen=True)
class Plan:
    """All work of one modality, and everything needed to commit it.

    Args:
        space: What makes two vectors of this store comparable.
        work: The items that the cohort links, each once.
        links: One row per stay: stay_id, items (ids in time order), has, why_no.
        rules: How items were chosen; stands beside the links and enters their fingerprint.
        provenance: Recorded, never part of an identity.
        encode: Pure function from items to a shard; rejects inside, never an exception for one bad
            item. May be `Staged`; on a cluster it is sent to other processes.
        shard_items: Items per shard; at most so many are lost when a run is killed.
        blank: The encoder's output on an empty input; None where that has no meaning.
        absences: Classes of rejects that are honest absence: the item was read well and holds
            nothing. Class -> reason code of the link; they never count as rejects.
        files: Source files beyond the tables; a finished extraction looks at their size and time
            before it believes that nothing has changed.
        note: One line for people about the weights; empty when there are none.
        caution: A warning about the weights or the file; empty when there is none.
        timing: What is known of the times of the items against the prediction time; empty where
            the source guarantees it.
        plausibility: Per variable how often it was observed and its quantiles; for people.
    """

    space: Space
    work: list[Work]
    links: pa.Table
    rules: Mapping[str, object]
    provenance: Mapping[str, object]
    encode: Callable[[Sequence[Work]], EncodedShard]
    shard_items: int
    blank: Callable[[], Mapping[str, np.ndarray]] | None = None
    absences: Mapping[str, str] = field(default_factory=dict)
    files: Sequence[Path] = ()
    note: str = ""
    caution: str = ""
    timing: str = ""
    plausibility: Sequence[Mapping[str, object]] = ()
