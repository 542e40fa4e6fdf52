"""Texts as shards: read, tokenise and encode; bad ones become rejects, the others do not notice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ...cache.store import EncodedShard, Reject
from ..encoders.text import TextEncoder
from ..work import Work

LARGEST_BYTES = 200_000
"""A longer text is no report and no note."""
_WHITE = frozenset("\t\n\r\f")


class UnreadableText(Exception):
    """A text that cannot be encoded.

    Args:
        stage: read, decode or tokenise.
        kind: Its class in the table of rejects.
        message: What is wrong, without a word of the text.
    """

    def __init__(self, stage: str, kind: str, message: str) -> None:
        super().__init__(message)
        self.stage, self.kind = stage, kind


@dataclass(frozen=True)
class ReadText:
    """A text that was read.

    Args:
        parts: Its parts, "" where one is empty; not all of them are.
        source_hash: SHA-256 of what was read.
        size: Bytes of what was read.
    """

    parts: tuple[str, ...]
    source_hash: str
    size: int


class TextShards:
    """Turns texts into a shard, in two stages: see `work.Staged`.

    Args:
        encoder: The network with its tokenizer.
        read: Reads one item, or raises UnreadableText; safe in any thread.
        parts: Parts of an item: values are [n, parts, D] with a mask; None for whole texts, whose
            values are [n, D].
    """

    def __init__(
        self, encoder: TextEncoder, read: Callable[[Work], ReadText], parts: int | None = None
    ) -> None:
        self._encoder, self._read, self._parts = encoder, read, parts

    @property
    def parallel(self) -> bool:
        """Whether several threads may encode at once: on a CPU, each with its own core."""
        return self._encoder.on_cpu

    def __call__(self, work: Sequence[Work]) -> EncodedShard:
        """Encode one shard."""
        return self.finish(work, [self.prepare(item) for item in work])

    def prepare(self, item: Work) -> ReadText | Reject:
        """Read one text; several threads may do so at once."""
        try:
            return self._read(item)
        except UnreadableText as error:
            return Reject(item.item_id, error.stage, error.kind, str(error))

    def finish(self, work: Sequence[Work], prepared: Sequence[ReadText | Reject]) -> EncodedShard:
        """Tokenise and encode; batches are a function of the shard alone."""
        rejects = [found for found in prepared if isinstance(found, Reject)]
        good: list[tuple[Work, ReadText, list[list[int]]]] = []
        for item, found, ids in self._tokenised(work, prepared):
            if any(self._encoder.says_something(part) for part in ids):
                good.append((item, found, ids))
            else:
                message = "not one word is in the vocabulary"
                rejects.append(Reject(item.item_id, "tokenise", "UnknownTokens", message))
        mask = np.array([[len(part) > 0 for part in ids] for _, _, ids in good], bool)
        mask = mask.reshape(len(good), self._parts or 1)  # [n, S]
        vectors = self._encoder.encode([part for _, _, ids in good for part in ids if part])
        finite = np.ones(len(good), bool)
        np.logical_and.at(finite, np.nonzero(mask)[0], np.isfinite(vectors).all(axis=1))
        values = np.zeros((*mask.shape, self._encoder.width), np.float32)  # [n, S, D]
        values[mask] = vectors
        for (item, _, _), fine in zip(good, finite, strict=True):
            if not fine:
                message = "the encoder gave NaN or infinity for this text"
                rejects.append(Reject(item.item_id, "nonfinite", "NonFinite", message))
        kept = [entry for entry, fine in zip(good, finite, strict=True) if fine]
        lengths, padded = _padded([ids for _, _, ids in kept], self._parts or 1)
        arrays = {"values": values[finite], "ids": padded, "length": lengths}
        if self._parts is None:
            arrays = {name: array[:, 0] for name, array in arrays.items()}
        else:
            arrays["mask"] = mask[finite]
        names = sorted({name for item in work for name in item.facts})
        return EncodedShard(
            item_ids=[item.item_id for item, _, _ in kept],
            source_hashes=[found.source_hash for _, found, _ in kept],
            arrays=arrays,
            facts={
                **{name: [item.facts.get(name) for item, _, _ in kept] for name in names},
                "bytes": [found.size for _, found, _ in kept],
                "tokens": [int(n) for n in lengths.sum(axis=1)],
                "truncated": [bool((n == self._encoder.most_tokens).any()) for n in lengths],
            },
            rejects=rejects,
        )

    def _tokenised(
        self, work: Sequence[Work], prepared: Sequence[ReadText | Reject]
    ) -> list[tuple[Work, ReadText, list[list[int]]]]:
        """Token ids of every part of every readable text, [] for an empty part."""
        found = [
            (item, text)
            for item, text in zip(work, prepared, strict=True)
            if isinstance(text, ReadText)
        ]
        filled = [part for _, text in found for part in text.parts if part]
        ids = iter(self._encoder.tokenise(filled))
        return [
            (item, text, [next(ids) if part else [] for part in text.parts]) for item, text in found
        ]


def blank(encoder: TextEncoder, parts: int | None = None) -> np.ndarray:
    """The vector of an empty text, [D], or of one whose parts are all empty, [parts, D]."""
    vector = encoder.encode(encoder.tokenise([""]))
    return vector[0] if parts is None else np.repeat(vector, parts, axis=0)


def decoded(content: bytes) -> str:
    """Turn the bytes of a file into a text.

    Raises:
        UnreadableText: Too long, not UTF-8, with control characters, or blank.
    """
    if len(content) > LARGEST_BYTES:
        message = f"{len(content)} bytes, at most {LARGEST_BYTES} are read"
        raise UnreadableText("read", "TooLong", message)
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise UnreadableText("decode", "NotText", "the bytes are not UTF-8 text") from None
    if any(ord(sign) < 32 and sign not in _WHITE for sign in text):
        raise UnreadableText("decode", "ControlCharacters", "the text holds control characters")
    if not text.strip():
        raise UnreadableText("decode", "EmptyText", "the text is blank")
    return text


def _padded(ids: Sequence[Sequence[Sequence[int]]], parts: int) -> tuple[np.ndarray, np.ndarray]:
    """Lengths [n, S] and token ids [n, S, L], zero behind each end."""
    lengths = np.array([[len(part) for part in row] for row in ids], np.int32)
    lengths = lengths.reshape(len(ids), parts)
    padded = np.zeros((*lengths.shape, int(lengths.max(initial=1))), np.int32)
    for row, found in enumerate(ids):
        for place, part in enumerate(found):
            padded[row, place, : len(part)] = part
    return lengths, padded


__all__ = ["LARGEST_BYTES", "ReadText", "TextShards", "UnreadableText", "blank", "decoded"]
