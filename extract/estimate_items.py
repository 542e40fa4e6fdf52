"""How many films, texts and facts there are to encode, and how long that takes; none is encoded."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from ..cache.cohort import Cohort
from ..errors import CM2Error
from .config import ExtractConfig
from .encoders import ENCODED, weights
from .estimate import Estimate
from .modalities import cxr, notes, reports, static
from .modalities.linking import stays_of
from .selection import select
from .sources import Source
from .sources.mimic_cxr import films as listed_films
from .sources.report_texts import open_texts

# Measured on one core: a film of full size is read and encoded in about 0.1 s.
_ITEMS_PER_SECOND = {"cxr": 10.0, "report": 60.0, "note": 12.0, "static": 1e5}
_BYTES_PER_ITEM = {
    "report": 4 * (312 * 4 + 200 * 4.0),
    "note": 312 * 4 + 400 * 4.0,
    "static": len(static.COLUMNS) * 4.0,
}
_SHARD_ITEMS = {
    "cxr": cxr.SHARD_ITEMS,
    "report": reports.SHARD_ITEMS,
    "note": notes.SHARD_ITEMS,
    "static": static.SHARD_ITEMS,
}
_BYTES_PER_NOTE = {"gz": 530.0, "csv": 1900.0}
_NOTES_PER_SECOND = 100_000.0


def items(source: Source, config: ExtractConfig, modality: str) -> Estimate:
    """Estimate a modality other than `ehr` of the cohort, or of the stays it would have.

    Args:
        source: The data set; what is missing is reported, not raised.
        config: Window, weights, cohort.
        modality: cxr, report, note or static.
    """
    missing: list[str] = []
    encoded = [name for name in config.modality if name in ENCODED]
    if config.encodes(modality):
        try:
            weights.choose(config.weights, modality, encoded, synthetic=source.synthetic)
        except CM2Error as error:
            missing.append(str(error) if config.weights else f"--weights {modality}=PATH")
    count = {"cxr": _films, "report": _reports, "note": _notes, "static": _static}[modality]
    try:
        rows, read, there = count(source, config, missing)
    except CM2Error as error:
        missing.append(str(error))
        rows, read, there = 0, 0, 0
    seconds = there / _ITEMS_PER_SECOND[modality]
    if modality == "note":
        seconds += rows / _NOTES_PER_SECOND
    return Estimate(
        modality=modality,
        rows=rows,
        read_bytes=read,
        items=there,
        write_bytes=round(there * _item_bytes(config, modality)),
        files=2 * -(-there // _SHARD_ITEMS[modality]) + 8,
        minutes=round(seconds / 60, 1),
        missing="; ".join(missing),
    )


def _item_bytes(config: ExtractConfig, modality: str) -> float:
    """Bytes of one item in its store; of a film, those that the paper's network gives."""
    if modality != "cxr":
        return _BYTES_PER_ITEM[modality]
    films = {"pooled": 512 * 4, "grid": 7 * 7 * 512 * 2, "pixels": config.side**2, "files": 32}
    return films[config.level] * (1.0 + config.views)


def _films(source: Source, config: ExtractConfig, missing: list[str]) -> tuple[int, int, int]:
    """Rows of the table of films, bytes and number of the linked ones that are there."""
    table = listed_films(source.root)
    linked = cxr.linked_films(stays_of_call(source, config), table, config).drop_nulls("dicom_id")
    paths = [Path(path) for path in linked["path"].unique()]
    sizes = [path.stat().st_size for path in paths if path.is_file()]
    if len(sizes) < len(paths):
        missing.append(f"{len(paths) - len(sizes):,} of {len(paths):,} files")
    return table.height, sum(sizes), len(sizes)


def _reports(source: Source, config: ExtractConfig, missing: list[str]) -> tuple[int, int, int]:
    """Rows of the table of films, bytes of the reports, and how many are there."""
    table, texts = listed_films(source.root), open_texts(source.root)
    linked = cxr.linked_films(stays_of_call(source, config), table, config).drop_nulls("study_id")
    wanted = linked.unique("study_id", keep="first", maintain_order=True)
    there = len(texts.of(wanted))
    if there < wanted.height:
        missing.append(f"{wanted.height - there:,} of {wanted.height:,} reports")
    files = [path for path in texts.files(wanted) if path.is_file()]
    return table.height, sum(path.stat().st_size for path in files), there


def _notes(source: Source, config: ExtractConfig, missing: list[str]) -> tuple[int, int, int]:
    """Rows and bytes of the table of notes, and the most notes that stays could keep; about."""
    notes.require(source)
    rows, read = 0.0, 0
    for path, _ in source.table(notes.TABLE).parts:
        size = path.stat().st_size
        read += size
        rows += size / _BYTES_PER_NOTE["gz" if path.name.lower().endswith(".gz") else "csv"]
    most = stays_of_call(source, config).height * config.note_max
    return round(rows), read, round(min(rows, most))


def _static(source: Source, config: ExtractConfig, missing: list[str]) -> tuple[int, int, int]:
    """Rows and bytes of the table of admissions, and the stays."""
    parts = source.table(static.table_name(source)).parts
    read = sum(path.stat().st_size for path, _ in parts)
    return source.admissions.height, read, stays_of_call(source, config).height


def stays_of_call(source: Source, config: ExtractConfig) -> pl.DataFrame:
    """The stays of the cohort, or those that it would have."""
    if Cohort.exists(config.cache, config.cohort):
        return stays_of(Cohort.open(config.cache, config.cohort))
    return select(source)[0].select("stay_id", "subject_id", "intime")


__all__ = ["items", "stays_of_call"]
