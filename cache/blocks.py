"""One modality of a cohort, some stays at a time: what `view` gives, without holding all of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from .layout import ARRAY_VIEWS
from .reader import Store
from .stays import Cohort
from .view import items_of, needed, present_of, refuse_films, stack, steps_of

STAYS = 256


class StayBlocks:
    """One modality of all N stays, in the order of stays.parquet, to be read in blocks.

    Two passes go over the store: one for the length of the longest stay, one for the values.

    Args:
        cache: Folder of the cache.
        cohort: The cohort.
        modality: Name of the modality.
        space_id: Id of the space; needed only when there are several stores.

    Raises:
        DataError: There is no store or no link table.
        ConfigError: There are several stores, or the store holds pixels.
        IntegrityError: A file was altered, or a complete store lacks a linked item.
    """

    def __init__(
        self, cache: Path, cohort: Cohort, modality: str, space_id: str | None = None
    ) -> None:
        self._store = Store.open(cache, modality, space_id, views=ARRAY_VIEWS)
        refuse_films(self._store)
        self._items = present_of(cache, cohort, self._store)
        self.name = modality
        self.space = self._store.space
        self.has = np.array([bool(items) for items in self._items], dtype=bool)
        self._width, self.shape = self._measure()

    def _measure(self) -> tuple[int, tuple[int, int, int]]:
        """Width of an item, and N, L, D."""
        distinct = sorted({item for items in self._items for item in items})
        taken: dict[str, int] = {}
        width = depth = 0
        for start in range(0, max(1, len(distinct)), STAYS):
            some = distinct[start : start + STAYS]
            values, mask = items_of(self._store, some)
            width, depth = max(width, values.shape[1]), values.shape[2]
            taken.update(zip(some, steps_of(self._store, mask).tolist(), strict=True))
        steps = taken if self.space.view == "series" else dict.fromkeys(taken, width)
        length = max(
            (needed(np.array([steps[i] for i in items], int), width) for items in self._items),
            default=width,
        )
        return width, (len(self._items), length, depth)

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield values [n, L, D] float32, zero where absent, and mask [n, L], of n stays."""
        for start in range(0, len(self._items), STAYS):
            stays = self._items[start : start + STAYS]
            distinct = sorted({item for items in stays for item in items})
            values, mask = items_of(self._store, distinct)
            wider = self._width - values.shape[1]
            values = np.pad(values, ((0, 0), (0, wider), (0, 0)))
            mask = np.pad(mask, ((0, 0), (0, wider)))
            place = {item: row for row, item in enumerate(distinct)}
            places = [[place[item] for item in items] for items in stays]
            yield stack(places, values, mask, self._store, self.shape[1])


__all__ = ["StayBlocks"]
