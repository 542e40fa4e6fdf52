"""What a modality hands to the runner: items to encode, and how the stays point at them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from ..cache.store import EncodedShard, Space


@dataclass(frozen=True)
class Work:
    """One item to encode.

    Args:
        item_id: Name of the item in its store.
        stamp: Cheap identity of the source, known before decoding: the byte size of a file, the
            content hash of rows in memory. Another stamp means: encode again.
        payload: Whatever the modality's `encode` needs, usually a path or the rows.
        facts: Extra columns of items.parquet, JSON scalars.
    """

    item_id: str
    stamp: str
    payload: Any
    facts: Mapping[str, object] = field(default_factory=dict)


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
            item.
        shard_items: Items per shard; at most so many are lost when a run is killed.
        blank: The encoder's output on an empty input; None where that has no meaning.
        absences: Classes of rejects that are honest absence: the item was read well and holds
            nothing. Class -> reason code of the link; they never count as rejects.
        files: Source files beyond the tables; a finished extraction looks at their size and time
            before it believes that nothing has changed.
        note: One line for people about the weights; empty when there are none.
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
