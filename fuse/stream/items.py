"""Items of a store by number: read when a batch needs them, and only those that are there."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...cache.store import Store

Numbers = NDArray[np.int64]


class Items(Protocol):
    """Raw items of one modality."""

    def fetch(self, numbers: Numbers) -> Tensor:
        """Read items.

        Args:
            numbers: Positions among the items, ``(n,)``.

        Returns:
            ``(n, ...)``.
        """


class Films:
    """Films of a store of pixels.

    Args:
        store: The store; each of its shards is verified when it is first read.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._ids = store.items["item_id"].to_pylist()
        shape = store.manifest["arrays"]["values"]["shape"] if self._ids else [0, 0]
        self.side = int(shape[0])

    def fetch(self, numbers: Numbers) -> Tensor:
        """Grey values ``(n, S, S)`` uint8."""
        films = np.empty((len(numbers), self.side, self.side), np.uint8)
        for row, number in enumerate(numbers):
            films[row] = self._store.image(self._ids[number])
        return torch.from_numpy(films)


__all__ = ["Films", "Items", "Numbers"]
