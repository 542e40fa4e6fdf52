"""Rows of a task whose items are read when a batch needs them, some steps ahead."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...cache.layout import FILM_VIEWS
from ...cache.store import Store
from ..config import FuseConfig
from ..models.interface import LEARNED, FusionBatch
from ..rows import FusionData, Rows
from .batch import RawBatch
from .items import Items, Numbers, Texts, films_of
from .options import trunk_of, width_of
from .processes import share

Shapes = Mapping[str, tuple[int, ...]]
JUDGED_ROWS = 32
"""Rows encoded at once outside of steps; without gradients they take less than a step of 16."""


@dataclass
class Loading:
    """How items are read, and how long training waited for them.

    Attributes:
        workers: Threads that read ahead; 0 reads when a batch is asked for.
        waited: Seconds in which a batch was asked for and not ready.
        items: Number of items that were read.
    """

    workers: int = 2
    waited: float = 0.0
    items: int = 0


@dataclass(frozen=True)
class StreamData(FusionData):
    """All rows of a task; some modalities are items to be encoded.

    Attributes:
        items: By streamed modality, its items.
        numbers: Which item a part is, ``(N, L)``.
        loading: How items are read.
    """

    items: Mapping[str, Items] = field(default_factory=dict)
    numbers: Mapping[str, Numbers] = field(default_factory=dict)
    loading: Loading = field(default_factory=Loading)

    @cached_property
    def real(self) -> Mapping[str, NDArray[np.bool_]]:
        """By streamed modality whether a part is there, ``(N, L)``; not where it is withheld."""
        whole = self.whole
        return {
            spec.name: (whole.mask[spec.name] & whole.available[:, m : m + 1]).cpu().numpy()
            for m, spec in enumerate(self.specs)
            if spec.name in self.items
        }

    def batch(
        self, rows: Rows, noise: Shapes | None = None, seed: int = 0, epoch: int = 0
    ) -> RawBatch:
        """Take rows with their items; see `FusionData.batch`."""
        plain = super().batch(rows, noise, seed, epoch)
        raw = {}
        for name, items in self.items.items():
            numbers = self.numbers[name][rows][self.real[name][rows]]
            mine = items.fetch(numbers[share(len(numbers))])
            if self.device.type == "cuda":
                mine = mine.pin_memory()
            raw[name] = mine.to(self.device, non_blocking=True)
        parts = {entry.name: getattr(plain, entry.name) for entry in fields(FusionBatch)}
        return RawBatch(**parts, raw=raw, number=epoch)

    def batches(
        self,
        rows: Rows,
        size: int = JUDGED_ROWS,
        noise: Shapes | None = None,
        seed: int = 0,
        epoch: int = 0,
    ) -> Iterator[FusionBatch]:
        """Cut rows into batches; the next ones are read while one is worked on."""
        starts = range(0, len(rows), size)

        def take(start: int) -> RawBatch:
            return self.batch(rows[start : start + size], noise, seed, epoch)

        ahead: deque[Future[RawBatch]] = deque()
        workers = self.loading.workers
        with ThreadPoolExecutor(max(workers, 1), thread_name_prefix="cm2-items") as pool:
            try:
                for place, start in enumerate(starts):
                    clock = time.monotonic()
                    if workers:
                        for later in starts[place + len(ahead) : place + workers + 1]:
                            ahead.append(pool.submit(take, later))
                        batch = ahead.popleft().result()
                    else:
                        batch = take(start)
                    self.loading.waited += time.monotonic() - clock
                    self.loading.items += sum(map(len, batch.raw.values()))
                    yield batch
            finally:
                for future in ahead:
                    future.cancel()

    def reading(self, workers: int) -> StreamData:
        """Read items ahead with so many threads; 0 reads them when a batch is asked for."""
        return replace(self, loading=Loading(workers))

    def report(self, info: Mapping[str, Any]) -> dict[str, Any]:
        """How many items this process has read for the run, and how long training waited."""
        loading, earlier = self.loading, info.get("loading", {})
        return {
            "loading": {
                "items": earlier.get("items", 0) + loading.items,
                "workers": loading.workers,
                "stall_seconds": round(earlier.get("stall_seconds", 0.0) + loading.waited, 3),
            }
        }


def with_items(data: FusionData, cache: Path, config: FuseConfig) -> StreamData:
    """Give rows the items of their streamed modalities.

    Args:
        data: The values of a streamed modality are numbers of items.
        cache: The cache.
        config: Names trunks and spaces.
    """
    items: dict[str, Items] = {}
    numbers, specs = {}, []
    for spec, text in zip(data.specs, config.modalities, strict=True):
        if spec.view != LEARNED:
            specs.append(spec)
            continue
        name, _, space_id = text.partition("@")
        store = Store.open(cache, name, space_id or None)
        items[name] = films_of(store) if store.space.view in FILM_VIEWS else Texts(store)
        numbers[name] = data.whole.x[name][..., 0].numpy()
        specs.append(replace(spec, width=width_of(trunk_of(config, name))))
    plain = {entry.name: getattr(data, entry.name) for entry in fields(FusionData)}
    return StreamData(**{**plain, "specs": tuple(specs)}, items=items, numbers=numbers)


__all__ = ["Loading", "StreamData", "with_items"]
