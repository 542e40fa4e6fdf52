"""How much the extraction of series reads, writes and takes, told from file sizes alone."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from ..errors import DataError
from .config import ExtractConfig
from .modalities.ehr import OWN_TIMES_SHARD_ITEMS, SHARD_ITEMS
from .modalities.grid import bins
from .sources import Source
from .sources.catalogue import Catalogue
from .sources.locate import find_parts
from .sources.tables import open_table

# Measured on two cores with the open demos, bytes of a table per row and per second.
_BYTES_PER_ROW = {"gz": 11.0, "csv": 95.0}
_BYTES_PER_SECOND = {"gz": 25e6, "csv": 200e6}
_KEPT_SHARE = 0.75
_EVENTS_PER_STAY = 400
_EVENT_BYTES = 12.0
_TIMES_PER_STAY = 80


@dataclass(frozen=True)
class Estimate:
    """One row of `cm2 extract --dry-run`.

    Args:
        modality: What would be extracted.
        rows: Rows of the source tables, about.
        read_bytes: Size of the source files.
        items: Items to encode, about.
        write_bytes: Bytes the cache grows by, about.
        files: Files the cache grows by.
        minutes: On two cores, about.
        missing: Tables that are not there; empty when all are.
    """

    modality: str
    rows: int
    read_bytes: int
    items: int
    write_bytes: int
    files: int
    minutes: float
    missing: str

    def as_row(self) -> dict[str, object]:
        """The estimate as plain columns."""
        return asdict(self)


def steps(config: ExtractConfig) -> int:
    """Steps of a series; with own times about how many."""
    if not config.step_hours:
        return _TIMES_PER_STAY
    return bins(config.until_hours, config.step_hours)


def ehr(source: Source, config: ExtractConfig, catalogue: Catalogue) -> Estimate:
    """Estimate the modality `ehr`, cohort included; opens headers, reads no table.

    Args:
        source: The data set; missing tables are reported, not raised.
        config: Grid.
        catalogue: The variables.
    """
    read, rows, seconds, stays = 0.0, 0.0, 1.0, 0.0
    missing = []
    for need in source.needs:
        try:
            paths = find_parts(source.root, need.name)
        except DataError:  # a part is missing
            paths = []
        if not paths:
            missing.append(need.name)
            continue
        kind = "gz" if paths[0].name.lower().endswith(".gz") else "csv"
        size = sum(path.stat().st_size for path in paths)
        read += size
        rows += size / _BYTES_PER_ROW[kind]
        seconds += size / _BYTES_PER_SECOND[kind]
        if need.purpose == "stays":
            stays = size / (40.0 if kind == "gz" else 130.0) * _KEPT_SHARE
    cells = steps(config) * len(catalogue.columns())
    if catalogue.preset == "reference" or catalogue.own:
        seconds *= 2  # the measurements that make the cohort are read by the published rules
    written = stays * (cells * 4 + _EVENTS_PER_STAY * _EVENT_BYTES)
    shards = -(-int(stays) // (SHARD_ITEMS if config.step_hours else OWN_TIMES_SHARD_ITEMS))
    return Estimate(
        modality="ehr",
        rows=round(rows),
        read_bytes=round(read),
        items=round(stays),
        write_bytes=round(written),
        files=2 * shards + 10,
        minutes=round(seconds / 60, 1),
        missing=", ".join(missing),
    )


def wrong_headers(source: Source) -> dict[str, str]:
    """Return, by table, what is wrong with its header; tables that are not there are left out."""
    wrong: dict[str, str] = {}
    for need in source.needs:
        try:
            if not source.has(need.name):
                continue
            table = open_table(source.root, need.name)
            absent = [
                column
                for column in need.columns
                if not table.has(column) and not (column == "race" and table.has("ethnicity"))
            ]
            if absent:
                table.scan(absent)
        except DataError as error:
            wrong[need.name] = str(error)
    return wrong


__all__ = ["Estimate", "ehr", "steps", "wrong_headers"]
