"""Radiology reports: the report of the linked film's study, four sections, one vector each."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from ...cache.cohort import Cohort
from ...cache.store import EncodedShard, Reject, Space
from ...errors import DataError
from ..config import ExtractConfig
from ..encoders.text import TextEncoder
from ..encoders.weights import Weights
from ..sources import Source
from ..sources.mimic_cxr import films as listed_films
from ..sources.mimic_cxr import reports as report_paths
from ..work import Plan, Work
from .linking import link, links_table, stays_of
from .reading import file_stamp, read_file
from .sections import SECTIONS, encoded_parts

ENCODER = "tinybert"
MAX_TOKENS = 512
SHARD_ITEMS = 64
LARGEST_BYTES = 200_000
NO_REPORT = "no_report"
NO_SECTION = "NoSection"
_WHITE = frozenset("\t\n\r\f")


def plan(source: Source, cohort: Cohort, config: ExtractConfig, weights: Weights) -> Plan:
    """Return the work of the modality `report`.

    The report of a stay is that of its linked film's study: so both tell of one moment, and no
    report of a later study is read. A stay without a film has no report either.

    Args:
        source: Where films and reports lie.
        cohort: The stays.
        config: Window, encoder, device.
        weights: Of the encoder.

    Raises:
        DataError: There is no table of films, or not one of the wanted reports is there.
    """
    encoder = TextEncoder(config.encoder_of("report") or ENCODER, weights, config.device, MAX_TOKENS)
    linked = link(stays_of(cohort), listed_films(source.root), config.until_hours)
    wanted = linked.drop_nulls("study_id").unique("study_id", keep="first", maintain_order=True)
    paths = dict(report_paths(source.root, wanted).select("study_id", "path").iter_rows())
    there = {study for study, path in paths.items() if Path(path).exists()}
    if wanted.height and not there:
        raise DataError(
            f"{source.root}: not one of the {wanted.height} wanted reports is there; the first "
            f"should be {next(iter(paths.values()))}. Are the reports of MIMIC-CXR unzipped there?"
        )
    has = pl.col("study_id").is_in(sorted(there))
    linked = linked.with_columns(
        report=pl.when(has).then(pl.format("s{}", pl.col("study_id"))),
        why_no=pl.when(pl.col("study_id").is_not_null() & ~has)
        .then(pl.lit(NO_REPORT))
        .otherwise(pl.col("why_no")),
    )
    work = [
        Work(
            f"s{row['study_id']}",
            file_stamp(Path(paths[row["study_id"]])),
            Path(paths[row["study_id"]]),
            {"hours_from_intime": row["hours_from_intime"]},
        )
        for row in wanted.filter(has).iter_rows(named=True)
    ]
    return Plan(
        space=Space(
            "report",
            "vector",
            {
                "encoder": encoder.name,
                "weights": encoder.sha256,
                "tokenizer": encoder.tokenizer_sha256,
                "max_tokens": MAX_TOKENS,
                "pooling": "cls",
                "sections": list(SECTIONS),
            },
        ),
        work=work,
        links=links_table(linked, "report"),
        rules={"report": "study of the linked film", "until_hours": float(config.until_hours)},
        provenance={"weights": weights.note, "random_weights": weights.random},
        encode=ReportEncoder(encoder),
        shard_items=SHARD_ITEMS,
        blank=lambda: {"values": blank(encoder)},
        absences={NO_SECTION: "no_section"},
        files=[Path(path) for path in paths.values()],
        note=weights.note,
    )


def blank(encoder: TextEncoder) -> np.ndarray:
    """The vectors of a report whose sections are all empty, [4, D]."""
    vector = encoder.encode(encoder.tokenise([""]))
    return np.repeat(vector, len(SECTIONS), axis=0)


class ReportEncoder:
    """Turns reports into a shard: sections, tokens, one vector per section that is there."""

    def __init__(self, encoder: TextEncoder) -> None:
        self._encoder = encoder

    def __call__(self, work: Sequence[Work]) -> EncodedShard:
        """Encode one shard."""
        rejects: list[Reject] = []
        kept: list[tuple[Work, bytes, list[list[int]]]] = []
        for item in work:
            content = read_file(item, rejects)
            tokens = None if content is None else self._tokens(item, content, rejects)
            if content is not None and tokens is not None:
                kept.append((item, content, tokens))
        mask = np.array([[len(part) > 0 for part in ids] for _, _, ids in kept], bool)
        mask = mask.reshape(len(kept), len(SECTIONS))  # [n, 4]
        vectors = self._encoder.encode([part for _, _, ids in kept for part in ids if part])
        finite = np.ones(len(kept), bool)
        np.logical_and.at(finite, np.nonzero(mask)[0], np.isfinite(vectors).all(axis=1))
        values = np.zeros((*mask.shape, self._encoder.width), np.float32)  # [n, 4, D]
        values[mask] = vectors
        for (item, _, _), fine in zip(kept, finite, strict=True):
            if not fine:
                message = "the encoder gave NaN or infinity for this report"
                rejects.append(Reject(item.item_id, "nonfinite", "NonFinite", message))
        kept = [entry for entry, fine in zip(kept, finite, strict=True) if fine]
        lengths, ids = _padded([ids for _, _, ids in kept])
        return EncodedShard(
            item_ids=[item.item_id for item, _, _ in kept],
            source_hashes=[hashlib.sha256(content).hexdigest() for _, content, _ in kept],
            arrays={"values": values[finite], "mask": mask[finite], "ids": ids, "length": lengths},
            facts={
                "hours_from_intime": [item.facts["hours_from_intime"] for item, _, _ in kept],
                "bytes": [len(content) for _, content, _ in kept],
                "tokens": [int(n) for n in lengths.sum(axis=1)],
                "truncated": [bool((n == self._encoder.max_tokens).any()) for n in lengths],
            },
            rejects=rejects,
        )

    def _tokens(self, item: Work, content: bytes, rejects: list[Reject]) -> list[list[int]] | None:
        """Token ids of the four sections, [] for an empty one; None for a reject."""
        problem = _unreadable(content)
        if problem is None:
            parts = encoded_parts(content.decode())
            if not any(parts):
                message = "none of the sections " + ", ".join(SECTIONS)
                problem = ("tokenise", NO_SECTION, message)
            else:
                found = iter(self._encoder.tokenise([part for part in parts if part]))
                ids = [next(found) if part else [] for part in parts]
                if any(self._encoder.says_something(part) for part in ids):
                    return ids
                problem = ("tokenise", "UnknownTokens", "not one word is in the vocabulary")
        rejects.append(Reject(item.item_id, *problem))
        return None


def _unreadable(content: bytes) -> tuple[str, str, str] | None:
    """What makes a file no text: (stage, class, message), or None."""
    if len(content) > LARGEST_BYTES:
        return "read", "TooLong", f"{len(content)} bytes, at most {LARGEST_BYTES} are read"
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return "decode", "NotText", "the bytes are not UTF-8 text"
    if any(ord(sign) < 32 and sign not in _WHITE for sign in text):
        return "decode", "ControlCharacters", "the text holds control characters"
    if not text.strip():
        return "decode", "EmptyText", "the text is blank"
    return None


def _padded(ids: Sequence[Sequence[Sequence[int]]]) -> tuple[np.ndarray, np.ndarray]:
    """Lengths [n, 4] and token ids [n, 4, L], zero behind each end."""
    lengths = np.array([[len(part) for part in parts] for parts in ids], np.int32)
    lengths = lengths.reshape(len(ids), len(SECTIONS))
    padded = np.zeros((*lengths.shape, int(lengths.max(initial=1))), np.int32)
    for row, parts in enumerate(ids):
        for section, part in enumerate(parts):
            padded[row, section, : len(part)] = part
    return lengths, padded


__all__ = ["NO_REPORT", "ReportEncoder", "plan"]
