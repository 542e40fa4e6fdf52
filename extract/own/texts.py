"""Texts of the user: a table with a column of texts; each becomes one vector and its token ids."""

from __future__ import annotations

import hashlib
from dataclasses import asdict

import polars as pl

from ...cache.cohort import Cohort
from ...cache.store import Space
from ..config import ExtractConfig
from ..encoders.text import TextEncoder
from ..encoders.weights import Weights
from ..modalities.texts import ReadText, TextShards, blank, decoded
from ..work import Plan, Work
from . import rows
from .listed import Timed, absent, item_id, read, stamp_of
from .spec import OwnFile

SHARD_ITEMS = 128


def plan(
    spec: OwnFile,
    cohort: Cohort,
    stays: pl.DataFrame,
    config: ExtractConfig,
    name: str | None,
    weights: Weights,
) -> Plan:
    """Return the work of a table of texts.

    Args:
        spec: The table.
        cohort: The stays.
        stays: `_id`, `_row` and perhaps `_intime` of the stays.
        config: Prediction time, pooling, long texts, device.
        name: Encoder by name; a folder of weights says itself what it is. See `TextEncoder`.
        weights: Of the encoder.

    Raises:
        DataError: No row belongs to the cohort.
    """
    encoder = TextEncoder(name, weights, config.device, pooling=config.pooling, long=config.long)
    listed = read(spec, spec.text, stays, config.until_hours)
    if listed.of_no_stay:
        raise rows.no_match(spec, cohort, listed.ignored)
    work: dict[str, Work] = {}
    items: dict[str, list[str]] = {}
    for stay, hours, text, unread in listed.frame.iter_rows():
        if text is None:
            continue
        stamp = stamp_of(hashlib.sha256(text.encode()).hexdigest(), unread=unread)
        item = item_id(stay, stamp, hours)
        linked = items.setdefault(stay, [])
        if item not in linked:
            linked.append(item)
        work.setdefault(item, Work(item, stamp, text, {"hours_from_intime": hours}))
    return Plan(
        space=Space(spec.name, "vector", {"own": "texts", **encoder.parts}),
        work=list(work.values()),
        links=rows.links(cohort, items, absent(listed, items)),
        rules={
            "rows": "all, in time order",
            "prediction_time": listed.timing,
            "until_hours": float(config.until_hours),
        },
        provenance={
            **rows.provenance(spec, listed.ignored, listed.unused),
            **weights.provenance,
            "vocabulary": asdict(encoder.vocabulary),
        },
        encode=Timed(TextShards(encoder, read_text)),
        shard_items=SHARD_ITEMS,
        blank=lambda: {"values": blank(encoder)},
        files=weights.files(),
        note=weights.note,
        caution=weights.caution,
        timing=rows.timing_of(listed.timing, listed.unused),
    )


def read_text(item: Work) -> ReadText:
    """Take the text of an item as its one part.

    Raises:
        UnreadableText: Too long, or with control characters.
    """
    content = item.payload.encode()
    return ReadText((decoded(content),), item.stamp, len(content))


__all__ = ["SHARD_ITEMS", "plan", "read_text"]
