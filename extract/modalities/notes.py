"""Clinical notes of MIMIC-III: those of the first 48 hours of a stay, one vector each."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import asdict
from pathlib import Path

import polars as pl

from ...cache.cohort import Cohort
from ...cache.store import Space
from ...errors import DataError, UnsupportedError
from ..config import ExtractConfig
from ..encoders.weights import Weights
from ..sources import Source
from ..sources.cells import Kind, parsed, unreadable
from ..sources.tables import Table, collect
from ..work import Plan, Work
from . import note_text
from .linking import links_table
from .reports import text_encoder
from .texts import ReadText, TextShards, UnreadableText, blank, decoded

TABLE = "noteevents"
SHARD_ITEMS = 128
EMPTY = "EmptyText"

# Why a stay has no notes, from the widest reason to the narrowest.
NO_NOTE = "no_note"
OUTSIDE_WINDOW = "outside_window"
TOO_FEW = "too_few_notes"

_LATE_CATEGORY = "discharge summary"
_KINDS: dict[str, Kind] = {
    "row_id": "id",
    "subject_id": "id",
    "hadm_id": "id",
    "charttime": "time",
    "storetime": "time",
}


def is_offered(source: Source) -> bool:
    """Whether a source has notes: the open demo has their table without a row."""
    if source.dataset != "mimic3" or not source.has(TABLE):
        return False
    return any(_has_row(path) for path, _ in source.table(TABLE).parts)


def require(source: Source) -> None:
    """Refuse a source without notes, before anything else is read.

    Raises:
        UnsupportedError: Another data set.
        DataError: There are no notes.
    """
    if source.dataset != "mimic3":
        raise UnsupportedError(
            "note: offered for MIMIC-III; the notes of MIMIC-IV are a release of their own. Use "
            "--modality report for its radiology reports, or give texts as own data with --stays."
        )
    if not is_offered(source):
        raise DataError(
            f"{source.root}: NOTEEVENTS is missing or has no row, as in the open demo of MIMIC-III "
            "1.4. The notes come with the credentialed release; extract the other modalities, or "
            "give notes of your own with --stays."
        )


def plan(source: Source, cohort: Cohort, config: ExtractConfig, weights: Weights) -> Plan:
    """Return the work of the modality `note`.

    Args:
        source: MIMIC-III.
        cohort: The stays.
        config: Window, how many notes, encoder, pooling, long texts, device.
        weights: Of the encoder.

    Raises:
        UnsupportedError: Another data set.
        DataError: There are no notes, or two of one id.
        SchemaError: A column is missing, or an id or a time of a stay's note is unreadable.
    """
    require(source)
    encoder = text_encoder(config, "note", weights)
    table = source.table(TABLE)
    stays = pl.DataFrame(
        pl.from_arrow(cohort.stays.select(["stay_id", "subject_id", "hadm_id", "intime"]))
    )
    linked = link(stays, listed(table, stays), config)
    texts = _texts(table, linked["row_id"].drop_nulls())
    hours = linked.drop_nulls("row_id").select("row_id", "hours_from_intime").iter_rows()
    work = [
        Work(f"n{row}", _hash(texts[row]), texts[row], {"hours_from_intime": after})
        for row, after in hours
    ]
    return Plan(
        space=Space("note", "vector", {**encoder.parts, "cleaning": note_text.VERSION}),
        work=work,
        links=links_table(linked.with_columns(item=pl.format("n{}", pl.col("row_id"))), "item"),
        rules={
            "from_hours": -config.note_lead_hours,
            "until_hours": float(config.until_hours),
            "least": config.note_min,
            "most": config.note_max,
            "without": "errors, discharge summaries, notes stored after the window",
        },
        provenance={
            **weights.provenance,
            "vocabulary": asdict(encoder.vocabulary),
            "tables": [table.inventory()],
        },
        encode=TextShards(encoder, read_note),
        shard_items=SHARD_ITEMS,
        blank=lambda: {"values": blank(encoder)},
        absences={EMPTY: "empty_note"},
        files=weights.files(),
        note=weights.note,
        caution=weights.caution,
    )


def listed(table: Table, stays: pl.DataFrame) -> pl.DataFrame:
    """Read which notes the admissions of some stays have, without their texts.

    Notes without admission, time or text, those marked as wrong (ISERROR) and discharge summaries
    are left out.

    Args:
        table: NOTEEVENTS.
        stays: hadm_id.

    Returns:
        row_id, subject_id, hadm_id, charttime, storetime.

    Raises:
        DataError: Two notes have one id.
        SchemaError: A column is missing, or an id or a time is unreadable.
    """
    columns = [*_KINDS, "category", "iserror", "text"]
    wanted = stays.select(hadm_id=pl.col("hadm_id").cast(pl.String)).unique()
    category = pl.col("category").str.strip_chars().str.to_lowercase()
    rows = (
        table.scan(columns)
        .drop_nulls(["row_id", "subject_id", "hadm_id", "charttime", "text"])
        .join(wanted.lazy(), on="hadm_id", how="semi")
        .filter(
            (pl.col("iserror").str.strip_chars() != "1").fill_null(value=True)
            & (category != _LATE_CATEGORY).fill_null(value=True)
        )
        .select(*_KINDS)
    )
    found = collect(rows, table)
    for column, kind in _KINDS.items():
        if found.select(unreadable(column, kind).any()).item():
            raise table.refusal(column, kind)
    notes = found.select(parsed(column, kind).alias(column) for column, kind in _KINDS.items())
    if notes["row_id"].is_duplicated().any():
        raise DataError(
            f"{table.path}: expected one row per note, found a ROW_ID in several rows. Download it "
            "again and compare it with the SHA256SUMS.txt of the release."
        )
    return notes


def link(stays: pl.DataFrame, notes: pl.DataFrame, config: ExtractConfig) -> pl.DataFrame:
    """Choose the notes of every stay: the last ones of a window, both ends included.

    Hours count exactly from ICU entry. Notes of one time are all kept, in the order of their ids.
    A note that was charted inside the window and stored after it may tell of later hours, so it is
    left out.

    Args:
        stays: stay_id, subject_id, hadm_id, intime.
        notes: As `listed` returns them.
        config: Window, least and most notes.

    Returns:
        stay_id, row_id, hours_from_intime, why_no: a row per note in time order, one row without a
        note for a stay that has none, with the reason.
    """
    joined = stays.join(notes, on=["subject_id", "hadm_id"], how="inner")
    until = pl.duration(seconds=round(config.until_hours * 3600))
    lead = pl.duration(seconds=round(config.note_lead_hours * 3600))
    after = pl.col("charttime") - pl.col("intime")
    stored = (pl.col("storetime") - pl.col("intime") <= until).fill_null(value=True)
    joined = joined.with_columns(
        hours_from_intime=after.dt.total_microseconds() / 3.6e9,
        inside=((after >= -lead) & (after <= until) & stored).fill_null(value=False),
    )
    counts = joined.group_by("stay_id").agg(inside=pl.col("inside").sum())
    kept = (
        joined.filter("inside")
        .sort("stay_id", "charttime", "row_id")
        .filter(pl.len().over("stay_id") >= config.note_min)
        .group_by("stay_id", maintain_order=True)
        .tail(config.note_max)
        .select("stay_id", "row_id", "hours_from_intime")
    )
    enough = pl.col("inside") >= config.note_min
    return (
        stays.select("stay_id")
        .join(counts, on="stay_id", how="left", maintain_order="left")
        .with_columns(
            why_no=pl.when(pl.col("inside").is_null())
            .then(pl.lit(NO_NOTE))
            .when(enough)
            .then(None)
            .when(pl.col("inside") == 0)
            .then(pl.lit(OUTSIDE_WINDOW))
            .otherwise(pl.lit(TOO_FEW))
        )
        .drop("inside")
        .join(kept, on="stay_id", how="left", maintain_order="left_right")
    )


def read_note(item: Work) -> ReadText:
    """Clean a note.

    Raises:
        UnreadableText: Too long, with control characters, or nothing but a signature.
    """
    raw: str = item.payload
    text = note_text.clean(decoded(raw.encode()))
    if not text:
        raise UnreadableText("decode", EMPTY, "nothing is left beside placeholders and signature")
    return ReadText((text,), item.stamp, len(raw.encode()))


def _has_row(path: Path) -> bool:
    """Whether anything stands below the header; reads no further."""
    packed = path.name.lower().endswith(".gz")
    with gzip.open(path, "rb") if packed else path.open("rb") as file:
        file.readline()
        return bool(file.readline().strip())


def _texts(table: Table, ids: pl.Series) -> dict[int, str]:
    """The texts of the chosen notes, by ROW_ID; all others stay on the disc."""
    chosen = pl.DataFrame({"row_id": ids.unique().cast(pl.String)})
    rows = table.scan(["row_id", "text"]).join(chosen.lazy(), on="row_id", how="semi")
    found = collect(rows, table)
    return {int(row): text for row, text in found.iter_rows()}


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


__all__ = [
    "NO_NOTE",
    "OUTSIDE_WINDOW",
    "SHARD_ITEMS",
    "TOO_FEW",
    "is_offered",
    "link",
    "listed",
    "plan",
    "read_note",
    "require",
]
