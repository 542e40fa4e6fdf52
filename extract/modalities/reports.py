"""Radiology reports: the report of the linked film's study, four sections, one vector each."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import asdict

import polars as pl

from ...cache.cohort import Cohort
from ...cache.store import Reject, Space
from ...errors import DataError
from ..config import ExtractConfig
from ..encoders.text import TextEncoder
from ..encoders.weights import Weights
from ..sources import Source
from ..sources.mimic_cxr import films as listed_films
from ..sources.report_texts import SectionedText, ZippedText, open_texts
from ..work import Plan, Work
from .linking import FilmRule, film_end, link, links_table, stays_of
from .reading import read_file
from .sections import SECTIONS, encoded_parts
from .texts import LARGEST_BYTES, ReadText, TextShards, UnreadableText, blank, decoded

ENCODER = "tinybert"
MAX_TOKENS = 512
SHARD_ITEMS = 256
NO_REPORT = "no_report"
NO_SECTION = "NoSection"


def plan(source: Source, cohort: Cohort, config: ExtractConfig, weights: Weights) -> Plan:
    """Return the work of the modality `report`.

    The report of a stay is that of its linked film's study: so both tell of one moment, and no
    report of a later study is read. A stay without a film has no report either.

    Args:
        source: Where films and reports lie.
        cohort: The stays.
        config: Rule of films, encoder, pooling, long texts, device.
        weights: Of the encoder.

    Raises:
        DataError: There is no table of films, or not one of the wanted reports is there.
    """
    encoder = text_encoder(config, "report", weights)
    texts = open_texts(source.root)
    rule, end = FilmRule.of(config), film_end(config)
    linked = link(stays_of(cohort), listed_films(source.root), end, rule)
    wanted = linked.drop_nulls("study_id").unique("study_id", keep="first", maintain_order=True)
    found = texts.of(wanted)
    if wanted.height and not found:
        raise DataError(
            f"{source.root}: not one of the {wanted.height} wanted reports is there; expected "
            f"{texts.expected(wanted)}. Do films and reports belong to one release?"
        )
    has = pl.col("study_id").is_in(sorted(found))
    linked = linked.with_columns(
        report=pl.when(has).then(pl.format("s{}", pl.col("study_id"))),
        why_no=pl.when(pl.col("study_id").is_not_null() & ~has)
        .then(pl.lit(NO_REPORT))
        .otherwise(pl.col("why_no")),
    )
    work = [
        Work(
            f"s{row['study_id']}",
            *found[row["study_id"]],
            {"hours_from_intime": row["hours_from_intime"]},
        )
        for row in wanted.filter(has).iter_rows(named=True)
    ]
    rules: dict[str, object] = {
        "report": "study of the linked film",
        "film": rule.which,
        "views": list(rule.views),
        "from_hours": rule.from_hours,
        "until_hours": float(end),
    }
    if texts.kind == "table":
        rules["sections"] = "of the published table"
    return Plan(
        space=Space("report", "vector", {**encoder.parts, "sections": list(SECTIONS)}),
        work=work,
        links=links_table(linked, "report"),
        rules=rules,
        provenance={
            **weights.provenance,
            "vocabulary": asdict(encoder.vocabulary),
            "texts": texts.kind,
        },
        encode=ReportEncoder(encoder),
        shard_items=SHARD_ITEMS,
        blank=lambda: {"values": blank(encoder, len(SECTIONS))},
        absences={NO_SECTION: "no_section"},
        files=[*texts.files(wanted), *weights.files()],
        note=weights.note,
        caution=weights.caution,
    )


def text_encoder(config: ExtractConfig, modality: str, weights: Weights) -> TextEncoder:
    """The encoder of a modality of texts, as the options name it."""
    return TextEncoder(
        config.encoder_of(modality) or (None if weights.of_run else ENCODER),
        weights,
        config.device,
        MAX_TOKENS,
        pooling=config.pooling,
        long=config.long,
    )


class ReportEncoder(TextShards):
    """Turns reports into a shard: sections, tokens, one vector per section that is there."""

    def __init__(self, encoder: TextEncoder) -> None:
        super().__init__(encoder, read_report, len(SECTIONS))


def read_report(item: Work) -> ReadText:
    """Read a report and find its sections.

    Raises:
        UnreadableText: It cannot be read, is no text, or has none of the sections.
    """
    if isinstance(item.payload, SectionedText):
        parts = item.payload.sections
        content = "\0".join(parts).encode()
        for part in parts:
            if part:
                decoded(part.encode())
    else:
        content = _content(item)
        parts = encoded_parts(decoded(content))
    if not any(parts):
        raise UnreadableText("tokenise", NO_SECTION, "none of the sections " + ", ".join(SECTIONS))
    return ReadText(parts, hashlib.sha256(content).hexdigest(), len(content))


def _content(item: Work) -> bytes:
    """The bytes of a report, from its file or from the zip file."""
    if not isinstance(item.payload, ZippedText):
        rejects: list[Reject] = []
        content = read_file(item, rejects)
        if content is None:
            raise UnreadableText(rejects[0].stage, rejects[0].error, rejects[0].message)
        return content
    if item.payload.size > LARGEST_BYTES:
        message = f"{item.payload.size} bytes, at most {LARGEST_BYTES} are read"
        raise UnreadableText("read", "TooLong", message)
    try:
        content = item.payload.read()
    except (OSError, zipfile.BadZipFile) as error:
        message = "this text of the zip file is damaged or cannot be unpacked"
        raise UnreadableText("read", "DamagedZip", message) from error
    if not content:
        raise UnreadableText("read", "EmptyFile", "the file has 0 bytes")
    return content


__all__ = ["ENCODER", "MAX_TOKENS", "NO_REPORT", "ReportEncoder", "plan", "text_encoder"]
