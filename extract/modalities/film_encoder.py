"""Films as shards: read, decode and encode; bad ones become rejects, the others do not notice."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image

from ...cache.store import EncodedShard, Reject
from ..encoders.frame import FRAME, Frame
from ..encoders.image import ImageEncoder
from ..work import Work
from .film import UnreadableFilm, augment, decode, digest
from .reading import read_file


class Decoder(Protocol):
    """Decodes a file to grey, or raises UnreadableFilm; see `film.decode`."""

    def __call__(self, content: bytes, frame: Frame, *, fast: bool) -> Image.Image:
        """Decode one file."""


@dataclass(frozen=True)
class PreparedFilm:
    """A film that was read and decoded.

    Args:
        source_hash: SHA-256 of its file.
        size: Bytes of its file.
        pictures: [1 + V, H, W] uint8: the film, then its augmented copies.
    """

    source_hash: str
    size: int
    pictures: np.ndarray


class FilmEncoder:
    """Turns films into a shard, in two stages: see `work.Staged`.

    Args:
        encoder: The network; None to keep the pixels themselves, or their hashes.
        frame: Into which a film is brought.
        level: pooled, grid, pixels or files.
        views: Augmented copies beside each film.
        fast: Let the JPEG decoder scale; see `film.decode`.
        decoder: Turns the bytes of a file into a grey picture, given the frame and `fast`.
    """

    def __init__(
        self,
        encoder: ImageEncoder | None,
        frame: Frame = FRAME,
        *,
        level: str = "pooled",
        views: int = 0,
        fast: bool = False,
        decoder: Decoder = decode,
    ) -> None:
        self._encoder, self._frame, self._level = encoder, frame, level
        self._views, self._fast, self._decoder = views, fast, decoder

    @property
    def parallel(self) -> bool:
        """Whether several threads may encode at once: on a CPU, each with its own core."""
        return self._encoder is None or self._encoder.on_cpu

    def __call__(self, work: Sequence[Work]) -> EncodedShard:
        """Encode one shard."""
        return self.finish(work, [self.prepare(item) for item in work])

    def prepare(self, item: Work) -> PreparedFilm | Reject:
        """Read and decode one film; several threads may do so at once."""
        rejects: list[Reject] = []
        content = read_file(item, rejects)
        if content is None:
            return rejects[0]
        try:
            grey = self._decoder(content, self._frame, fast=self._fast)
        except UnreadableFilm as error:
            return Reject(item.item_id, "decode", error.kind, str(error))
        resized = self._frame.resized(grey)
        copies = [augment(resized, item.item_id, view) for view in range(self._views)]
        pictures = np.stack([self._frame.cut(picture) for picture in (resized, *copies)])
        return PreparedFilm(hashlib.sha256(content).hexdigest(), len(content), pictures)

    def finish(
        self, work: Sequence[Work], prepared: Sequence[PreparedFilm | Reject]
    ) -> EncodedShard:
        """Encode prepared films; batches are a function of the shard alone."""
        rejects = [found for found in prepared if isinstance(found, Reject)]
        good = [
            (item, found)
            for item, found in zip(work, prepared, strict=True)
            if isinstance(found, PreparedFilm)
        ]
        arrays = self._arrays([found.pictures for _, found in good])
        finite = np.ones(len(good), bool)
        for array in arrays.values():
            if array.dtype.kind == "f":
                finite &= np.isfinite(array).reshape(len(good), -1).all(axis=1)
        for (item, _), fine in zip(good, finite, strict=True):
            if not fine:
                message = "the encoder gave NaN or infinity for this film"
                rejects.append(Reject(item.item_id, "nonfinite", "NonFinite", message))
        kept = [entry for entry, fine in zip(good, finite, strict=True) if fine]
        names = sorted({name for item in work for name in item.facts})
        facts = {name: [item.facts[name] for item, _ in kept] for name in names}
        return EncodedShard(
            item_ids=[item.item_id for item, _ in kept],
            source_hashes=[found.source_hash for _, found in kept],
            arrays={name: array[finite] for name, array in arrays.items()},
            facts={**facts, "bytes": [found.size for _, found in kept]},
            rejects=rejects,
        )

    def _arrays(self, pictures: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """values [n, ...] and, with copies, views [n, V, ...]."""
        count = len(pictures)
        if count == 0:
            return {}
        stacked = np.stack(pictures)  # [n, 1 + V, H, W]
        if self._level == "files":
            return {"values": np.stack([digest(film) for film in stacked[:, 0]])}
        if self._encoder is None:
            return {"values": stacked[:, 0]}
        arrays = {"values": self._encoder.encode(stacked[:, 0], self._level)}
        if self._views:
            copies = stacked[:, 1:].reshape(-1, *stacked.shape[2:])
            encoded = self._encoder.encode(copies, self._level)
            arrays["views"] = encoded.reshape(count, self._views, *encoded.shape[1:])
        return arrays


__all__ = ["Decoder", "FilmEncoder", "PreparedFilm"]
