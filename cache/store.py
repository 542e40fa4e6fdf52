"""One modality's store: what it holds, how it is written, how it is read."""

from __future__ import annotations

from .reader import Store
from .space import EncodedShard, Reject, Space
from .writer import StoreWriter

__all__ = ["EncodedShard", "Reject", "Space", "Store", "StoreWriter"]
