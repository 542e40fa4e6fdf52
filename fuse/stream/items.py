"""Items of a store by number: read when a batch needs them, and only those that are there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...cache.store import Store
from ...errors import ConfigError, IntegrityError
from ...extract.encoders.frame import Frame
from ...extract.modalities.film import EXACT, UnreadableFilm, digest, prepare
from .options import side_of

Numbers = NDArray[np.int64]
NO_TOKEN = -1
"""Stands behind the end of a text in a batch of token ids."""

ROOT = "CM2_FILMS"
"""Environment variable that names the folder of the films whose files are read."""


class Items(Protocol):
    """Raw items of one modality."""

    def fetch(self, numbers: Numbers) -> Tensor:
        """Read items; several threads may do so at once.

        Args:
            numbers: Positions among the items, ``(n,)``.

        Returns:
            ``(n, ...)``.
        """


class Texts:
    """Token ids of a store of texts, which lie in memory one after the other.

    Args:
        store: The store. Its texts have P parts each; part p of text i has the number i P + p.
    """

    def __init__(self, store: Store) -> None:
        names = store.items["item_id"].to_pylist()
        shards = store.items["shard"].to_pylist()
        by_shard: dict[str, list[int]] = {}
        for row, shard in enumerate(shards):
            by_shard.setdefault(shard, []).append(row)
        found: list[list[NDArray[np.int32]]] = [[] for _ in names]
        for rows in by_shard.values():  # shards differ in length
            arrays = store.read([names[row] for row in rows])
            ids, lengths = arrays["ids"], arrays["length"]
            ids = ids.reshape(len(rows), -1, ids.shape[-1])
            for row, own, ends in zip(rows, ids, lengths.reshape(len(rows), -1), strict=True):
                found[row] = [part[:end] for part, end in zip(own, ends, strict=True)]
        parts = [part for row in found for part in row]
        self._tokens = np.concatenate(parts) if parts else np.zeros(0, np.int32)
        self._ends = np.cumsum([0, *map(len, parts)])

    def fetch(self, numbers: Numbers) -> Tensor:
        """Token ids ``(n, L)`` int64, `NO_TOKEN` behind each end."""
        spans = [self._tokens[self._ends[i] : self._ends[i + 1]] for i in numbers]
        ids = np.full((len(spans), max(map(len, spans), default=0)), NO_TOKEN, np.int64)
        for row, span in enumerate(spans):
            ids[row, : len(span)] = span
        return torch.from_numpy(ids)


class Films:
    """Films of a store of pixels.

    Args:
        store: The store; each of its shards is verified when it is first read.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._ids = store.items["item_id"].to_pylist()
        self.side = side_of(store)

    def fetch(self, numbers: Numbers) -> Tensor:
        """Grey values ``(n, S, S)`` uint8."""
        films = np.empty((len(numbers), self.side, self.side), np.uint8)
        for row, number in enumerate(numbers):
            films[row] = self.image(number)
        return torch.from_numpy(films)

    def image(self, number: int) -> NDArray[np.uint8]:
        """Grey values of one film, ``(S, S)``."""
        return self._store.image(self._ids[number])


class FilmFiles(Films):
    """Films that are decoded from their own files, into the pixels that `extract` found in them.

    Args:
        store: The store of places and hashes.
    """

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._digests = store.read(self._ids)["values"] if self._ids else np.empty((0, 32))
        self._paths = store.items["path"].to_pylist() if self._ids else []
        self._frame = Frame(self.side, (self.side, self.side))
        self._fast = store.space.parts["decode"] != EXACT

    def image(self, number: int) -> NDArray[np.uint8]:
        """Grey values of one film, ``(S, S)``.

        Raises:
            ConfigError: Nobody said where the films are, or the file is not there.
            IntegrityError: Its pixels are not those that `extract` found.
        """
        path = _root() / self._paths[number]
        try:
            pixels = prepare(path.read_bytes(), self._frame, fast=self._fast)
        except OSError as error:
            raise ConfigError(
                f"{path} cannot be read ({error.strerror}). Is the disc mounted, and --films (or "
                f"{ROOT}) the folder that --data was?"
            ) from error
        except UnreadableFilm as error:
            raise IntegrityError(_changed(path, str(error))) from error
        if not np.array_equal(digest(pixels), self._digests[number]):
            raise IntegrityError(_changed(path, "its pixels are others"))
        return pixels


def films_of(store: Store) -> Films:
    """Films of a store, wherever their pixels are."""
    return FilmFiles(store) if store.space.view == "files" else Films(store)


def _root() -> Path:
    root = os.environ.get(ROOT)
    if not root:
        raise ConfigError(
            f"The films are read from their own files: say where with --films ROOT, or with {ROOT} "
            "in the environment."
        )
    return Path(root).expanduser()


def _changed(path: Path, how: str) -> str:
    return (
        f"{path} is not the film that was extracted: {how}. The file or the library that decodes "
        "JPEG has changed; extract --level files again."
    )


__all__ = ["NO_TOKEN", "ROOT", "FilmFiles", "Films", "Items", "Numbers", "Texts", "films_of"]
