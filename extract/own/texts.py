"""Texts of the user: a table with a column of texts; each becomes one vector and its token ids."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import polars as pl

from ...cache.cohort import Cohort
from ...cache.store import EncodedShard, Reject, Space
from ..config import ExtractConfig
from ..encoders.text import TextEncoder
from ..encoders.weights import Weights
from ..work import Plan, Work
from . import rows
from .listed import absent, item_id, read
from .spec import OwnFile

SHARD_ITEMS = 128
LONGEST_BYTES = 200_000
_WHITE = frozenset("\t\n\r\f")


def plan(
    spec: OwnFile,
    cohort: Cohort,
    stays: pl.DataFrame,
    config: ExtractConfig,
    name: str,
    weights: Weights,
) -> Plan:
    """Return the work of a table of texts.

    Args:
        spec: The table.
        cohort: The stays.
        stays: `_id`, `_row` and perhaps `_intime` of the stays.
        config: Prediction time, pooling, long texts, device.
        name: Encoder by name; a folder of weights says itself what it is.
        weights: Of the encoder.

    Raises:
        DataError: No row belongs to the cohort.
    """
    encoder = TextEncoder(name, weights, config.device, pooling=config.pooling, long=config.long)
    listed = read(spec, spec.text, stays, config.until_hours)
    if listed.frame.is_empty() and not listed.late:
        raise rows.no_match(spec, cohort, listed.ignored)
    work: dict[str, Work] = {}
    items: dict[str, list[str]] = {}
    for stay, hours, text in listed.frame.iter_rows():
        if text is None:
            continue
        stamp = hashlib.sha256(text.encode()).hexdigest()
        item = item_id(stay, stamp, hours)
        linked = items.setdefault(stay, [])
        if item not in linked:
            linked.append(item)
        work.setdefault(item, Work(item, stamp, text, {"hours_from_intime": hours}))
    return Plan(
        space=Space(spec.name, "vector", {"own": "texts", **encoder.parts}),
        work=list(work.values()),
        links=rows.links(cohort, items, absent(listed, items)),
        rules={"rows": "all, in time order", "prediction_time": listed.timing},
        provenance={
            "file": spec.file.name,
            "rows_of_no_stay": listed.ignored,
            **weights.provenance,
        },
        encode=_Encoder(encoder),
        shard_items=SHARD_ITEMS,
        blank=lambda: {"values": encoder.encode(encoder.tokenise([""]))[0]},
        files=weights.files(),
        note=weights.note,
        timing=listed.timing,
    )


class _Encoder:
    """Turns texts into a shard; bad ones become rejects, whose messages quote nothing."""

    def __init__(self, encoder: TextEncoder) -> None:
        self._encoder = encoder

    def __call__(self, work: Sequence[Work]) -> EncodedShard:
        rejects: list[Reject] = []
        sound = []
        for item in work:
            problem = _unreadable(item.payload)
            if problem is None:
                sound.append(item)
            else:
                rejects.append(Reject(item.item_id, "decode", *problem))
        good: list[tuple[Work, list[int]]] = []
        tokens = self._encoder.tokenise([item.payload for item in sound])
        for item, ids in zip(sound, tokens, strict=True):
            if self._encoder.says_something(ids):
                good.append((item, ids))
            else:
                message = "not one word is in the vocabulary"
                rejects.append(Reject(item.item_id, "tokenise", "UnknownTokens", message))
        values = self._encoder.encode([ids for _, ids in good])
        finite = np.isfinite(values).all(axis=1)
        for (item, _), fine in zip(good, finite, strict=True):
            if not fine:
                message = "the encoder gave NaN or infinity for this text"
                rejects.append(Reject(item.item_id, "nonfinite", "NonFinite", message))
        kept = [entry for entry, fine in zip(good, finite, strict=True) if fine]
        lengths = np.array([len(ids) for _, ids in kept], np.int32)
        padded = np.zeros((len(kept), int(lengths.max(initial=1))), np.int32)
        for row, (_, ids) in enumerate(kept):
            padded[row, : len(ids)] = ids
        return EncodedShard(
            item_ids=[item.item_id for item, _ in kept],
            source_hashes=[item.stamp for item, _ in kept],
            arrays={"values": values[finite], "ids": padded, "length": lengths},
            facts={
                "hours_from_intime": [item.facts["hours_from_intime"] for item, _ in kept],
                "tokens": [len(ids) for _, ids in kept],
                "truncated": [len(ids) >= self._encoder.most_tokens for _, ids in kept],
            },
            rejects=rejects,
        )


def _unreadable(text: str) -> tuple[str, str] | None:
    """What makes a text unusable: class and message, or None."""
    size = len(text.encode())
    if size > LONGEST_BYTES:
        return "TooLong", f"{size} bytes, at most {LONGEST_BYTES} are read"
    if any(ord(sign) < 32 and sign not in _WHITE for sign in text):
        return "ControlCharacters", "the text holds control characters"
    return None


__all__ = ["LONGEST_BYTES", "SHARD_ITEMS", "plan"]
