"""Cleaned measurements of the kept stays in long form, kept in the cache.

One streaming pass over the chart and laboratory tables; any grid is then made in seconds from
`events/<fingerprint>.parquet` (stay_id, hours, variable, value).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from ...cache import atomic, layout
from ...cache.fingerprint import fingerprint
from ...errors import DataError, IntegrityError
from ..sources import Source
from ..sources.catalogue import Catalogue
from ..sources.cells import Kind
from ..sources.source import EventTable
from .cleaning import clean, reference_rank

logger = logging.getLogger("cm2.extract.events")

PREDICTION_HOURS = 48
RULES_VERSION = 1
_REMEDY = "Run the same `cm2 extract` again: it reads the source tables anew."
_COMA = ("eye opening", "motor response", "verbal response", "total")


def load(
    source: Source, kept: pl.DataFrame, cache: Path, catalogue: Catalogue, *others: Catalogue
) -> pl.DataFrame:
    """Return the measurements of the first 48 h, from the cache when they are there.

    Args:
        source: Where the tables are.
        kept: Stays that survived selection: stay_id, subject_id, hadm_id, intime, outtime.
        cache: Cache folder.
        catalogue: Item map, variables and cleaning rules.
        others: Catalogues that will be asked for next; if the tables have to be read, then once
            for all.

    Returns:
        stay_id, hours (0 to 48, from ICU entry), variable (position in the catalogue, uint8),
        value (float64; for the reference a coma-scale text is its place among the columns);
        one row per stay, time and variable, sorted.

    Raises:
        DataError: A table is missing or damaged.
        SchemaError: A column is missing or an id or time cannot be read.
    """
    kept = _columns(kept)
    places = {_place(source, kept, cache, one): one for one in (catalogue, *others)}
    path = next(iter(places))
    found = _read(path, catalogue)
    if found is None:
        missing = [one for one in places if one == path or not one.with_suffix(".json").is_file()]
        measured = measure(source, kept, *(places[one] for one in missing))
        for one, part in zip(missing, measured, strict=True):
            _write(one, places[one], part)
        found = measured[0].found
    return found


def lengths(
    source: Source, kept: pl.DataFrame, cache: Path, catalogue: Catalogue
) -> dict[str, int]:
    """Return the rows of each table that `load` read; empty when its record is not there."""
    record = _place(source, _columns(kept), cache, catalogue).with_suffix(".json")
    return dict(atomic.read_json(record, _REMEDY)["tables"]) if record.is_file() else {}


def provenance(source: Source) -> list[dict[str, object]]:
    """Return the inventory of the tables that measurements come from."""
    return [event.table.inventory() for event in source.events]


def _columns(kept: pl.DataFrame) -> pl.DataFrame:
    return kept.select("stay_id", "subject_id", "hadm_id", "intime", "outtime").sort("stay_id")


def _place(source: Source, kept: pl.DataFrame, cache: Path, catalogue: Catalogue) -> Path:
    name = fingerprint(_identity(source, kept, catalogue))
    return cache / layout.EVENTS / f"{name[:12]}.parquet"


def _identity(source: Source, kept: pl.DataFrame, catalogue: Catalogue) -> dict[str, object]:
    systems = [system for event in source.events for system in event.systems]
    return {
        "schema": layout.SCHEMA_VERSION,
        "rules": RULES_VERSION,
        "preset": catalogue.preset,
        "dataset": source.dataset,
        "tables": provenance(source),
        "items": [
            [item.source, item.itemid, item.variable, item.unit, item.label]
            for item in catalogue.items_of(systems)
        ],
        "variables": [
            [v.name, v.normal, v.low, v.valid_low, v.valid_high, v.high, sorted(v.texts.items())]
            for v in catalogue.variables
        ],
        "stays": [[*row[:3], *map(str, row[3:])] for row in kept.iter_rows()],
    }


def _write(path: Path, catalogue: Catalogue, measured: Measured) -> None:
    """Commit measurements and, last, their record."""
    named = measured.found.with_columns(
        pl.col("variable").replace_strict(
            list(range(len(catalogue.names))),
            catalogue.names,
            return_dtype=pl.Enum(catalogue.names),
        )
    )
    digest = atomic.write_parquet(path, named.to_arrow())
    content = {
        "preset": catalogue.preset,
        "rows": measured.found.height,
        "counts": measured.counts,
        "tables": measured.rows,
        "parquet": digest,
    }
    atomic.write_json(path.with_suffix(".json"), content)


def _read(path: Path, catalogue: Catalogue) -> pl.DataFrame | None:
    """Read committed measurements; None when there are none or they are damaged."""
    record = path.with_suffix(".json")
    if not record.is_file() or not path.is_file():
        return None
    try:
        digest = atomic.read_json(record, _REMEDY)["parquet"]
        table = atomic.read_parquet(path, digest, _REMEDY)
    except IntegrityError as error:
        logger.warning("%s Reading the source tables anew.", error)
        return None
    position = {name: i for i, name in enumerate(catalogue.names)}
    frame = pl.DataFrame(pl.from_arrow(table))
    return frame.with_columns(
        pl.col("variable")
        .cast(pl.String)
        .replace_strict(list(position), list(position.values()), return_dtype=pl.UInt8)
    )


class Measured(NamedTuple):
    """What was found in the tables.

    Args:
        found: The measurements, see `load`.
        counts: Per variable how many rows were charted, readable and kept.
        rows: Rows of each table.
    """

    found: pl.DataFrame
    counts: dict[str, dict[str, int]]
    rows: dict[str, int]


class _Charted:
    """What the tables hold under the rules of one catalogue; grows block by block."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self.charted = self.readable = np.zeros(len(catalogue.names), np.int64)
        self.parts: list[pl.DataFrame] = []

    def add(self, rows: pl.DataFrame) -> None:
        readable = rows.drop_nulls("value")
        self.charted = self.charted + _count(rows, self.catalogue)
        self.readable = self.readable + _count(readable, self.catalogue)
        self.parts.append(readable)

    def measured(self, tables: dict[str, int]) -> Measured:
        """Put the parts together; they are given up on the way, to save memory."""
        kept = _deduplicated(self.parts, self.catalogue)
        steps = zip(self.charted, self.readable, _count(kept, self.catalogue), strict=True)
        counts = {
            name: {"charted": int(charted), "readable": int(readable), "kept": int(left)}
            for name, (charted, readable, left) in zip(self.catalogue.names, steps, strict=True)
        }
        hours = (pl.col("seconds") / 3600).alias("hours")
        return Measured(kept.select("stay_id", hours, "variable", "value"), counts, tables)


def measure(source: Source, kept: pl.DataFrame, *catalogues: Catalogue) -> list[Measured]:
    """Read, assign, clean and deduplicate measurements; see `load` for the columns.

    Args:
        source: Where the tables are.
        kept: stay_id, subject_id, hadm_id, intime, outtime.
        catalogues: Item map, variables and cleaning rules; the tables are read once for all.
    """
    charted = [_Charted(catalogue) for catalogue in catalogues]
    tables = {event.table.name: _scan(source, event, kept, charted) for event in source.events}
    return [one.measured(tables) for one in charted]


def _count(rows: pl.DataFrame, catalogue: Catalogue) -> npt.NDArray[np.int64]:
    return np.bincount(rows["variable"].to_numpy(), minlength=len(catalogue.names))


def _scan(
    source: Source, event: EventTable, kept: pl.DataFrame, charted: Sequence[_Charted]
) -> int:
    """Read one table into what is charted; return its length.

    A row belongs to the kept stay of its admission unless it names another stay; rows without an
    admission belong to none. In the reference it is also lent to every kept stay of the patient
    whose time in the unit holds it.
    """
    needed = [_needed(source, event, one.catalogue) for one in charted]
    kinds = {column: kind for own in needed for column, kind in own.items()}
    maps = [_item_map(event, one.catalogue) for one in charted]
    ids = pl.concat(maps)["itemid"].unique().to_list()
    seen = 0
    found = [0] * len(charted)
    for block in event.table.blocks(kinds, "itemid", ids):
        seen += block.rows
        for i, one in enumerate(charted):
            own = block.found.lazy().select(*needed[i])
            rows = _measured(own, event, kept, one.catalogue, maps[i].lazy()).collect()
            one.add(rows)
            found[i] += rows.height
    if not all(found) and event.stay is not None:  # a bedside table; blood may go untested
        raise DataError(
            f"{event.table.path}: expected rows of the item map for some of the "
            f"{kept.height} stays, found none. Is the table whole, and do the tables belong "
            "to one release?"
        )
    return seen


def _item_map(event: EventTable, catalogue: Catalogue) -> pl.DataFrame:
    items = catalogue.items_of(event.systems)
    return pl.DataFrame(
        [(item.itemid, item.variable, item.unit, item.label) for item in items],
        schema={
            "itemid": pl.Int64,
            "variable": pl.UInt8,
            "unit": pl.String,
            "label": pl.String,
        },
        orient="row",
    )


def _measured(
    rows: pl.LazyFrame,
    event: EventTable,
    kept: pl.DataFrame,
    catalogue: Catalogue,
    item_map: pl.LazyFrame,
) -> pl.LazyFrame:
    """Give rows their stays, within the hours that count, and numbers."""
    if event.stay is not None:
        rows = rows.rename({event.stay: "charted_stay"} if event.stay != "charted_stay" else {})
    else:
        rows = rows.with_columns(charted_stay=pl.lit(None, dtype=pl.Int64))
    columns = rows.collect_schema().names()
    if event.error in columns:
        rows = rows.filter(pl.col(event.error).fill_null("0") != "1")
    if "valueuom" not in columns:
        rows = rows.with_columns(valueuom=pl.lit(None, dtype=pl.String))
    rows = _assign(rows, kept, catalogue)
    seconds = (pl.col("charttime") - pl.col("intime")).dt.total_seconds()
    rows = (
        rows.with_columns(seconds=seconds)
        .filter(
            pl.col("seconds").is_between(0, PREDICTION_HOURS * 3600) & pl.col("value").is_not_null()
        )
        .join(item_map, on="itemid", how="inner")
    )
    return clean(rows, catalogue).select(
        "stay_id", pl.col("seconds").cast(pl.Int32), "variable", "value"
    )


def _needed(source: Source, event: EventTable, catalogue: Catalogue) -> dict[str, Kind]:
    """Return the columns that the rules look at."""
    kinds: dict[str, Kind] = {"hadm_id": "id", "charttime": "time", "itemid": "id", "value": "text"}
    if event.stay is not None:
        kinds[event.stay] = "id"
    if catalogue.preset == "corrected":
        kinds["valuenum"] = "text"
        return kinds | ({event.error: "text"} if event.error else {})
    if source.dataset == "mimic3":  # of MIMIC-IV units are never seen
        kinds["valueuom"] = "text"
    return kinds | {"subject_id": "id"}


def _assign(rows: pl.LazyFrame, kept: pl.DataFrame, catalogue: Catalogue) -> pl.LazyFrame:
    """Give each row its stay: adds stay_id and intime; rows of no stay go."""
    owners = kept.lazy().select("hadm_id", "stay_id", "intime")
    owned = rows.join(owners, on="hadm_id", how="inner").filter(
        pl.col("charted_stay").is_null() | pl.col("charted_stay").eq(pl.col("stay_id"))
    )
    if catalogue.preset == "corrected":
        return owned
    stays = kept.lazy().rename({"stay_id": "other_stay", "intime": "other_intime"}).drop("hadm_id")
    lent = pl.col("charttime").is_between(pl.col("other_intime"), pl.col("outtime"))
    joined = owned.join(stays, on="subject_id", how="inner")
    return joined.filter(pl.col("stay_id").eq(pl.col("other_stay")) | lent).with_columns(
        stay_id="other_stay", intime="other_intime"
    )


def _deduplicated(parts: list[pl.DataFrame], catalogue: Catalogue) -> pl.DataFrame:
    """Keep the largest value of each stay, time and variable, in this order.

    Sorting takes half the time of grouping, since the rows of a stay lie side by side already.

    Args:
        parts: stay_id, seconds, variable, value. The list is emptied, so that not more than two
            copies are in memory at once.
        catalogue: The variables, and which rules.
    """
    if catalogue.preset == "corrected":
        parts.append(_coma_totals(parts, catalogue))
    found = pl.concat(parts)
    parts.clear()
    place = ["stay_id", "seconds", "variable"]
    found = found.sort(*place, "value")
    last = pl.any_horizontal(pl.col(name) != pl.col(name).shift(-1) for name in place)
    found = found.filter(last.fill_null(True))  # the very last row has none behind it
    return found if catalogue.preset == "corrected" else _reference_places(found, catalogue)


def _coma_totals(parts: Sequence[pl.DataFrame], catalogue: Catalogue) -> pl.DataFrame:
    """Return the coma-scale total where its three parts are charted at one time and it is not."""
    *three, total = (catalogue.place(f"Glasgow coma scale {part}") for part in _COMA)
    coma = pl.concat([part.filter(pl.col("variable").is_in([*three, total])) for part in parts])
    return (
        coma.filter(pl.col("variable") != total)
        .group_by("stay_id", "seconds", "variable")
        .agg(pl.col("value").max())
        .group_by("stay_id", "seconds")
        .agg(pl.col("value").sum(), parts=pl.len())
        .filter(pl.col("parts") == 3)
        .join(coma.filter(pl.col("variable") == total), on=["stay_id", "seconds"], how="anti")
        .select("stay_id", "seconds", pl.lit(total, dtype=pl.UInt8).alias("variable"), "value")
    )


def _reference_places(found: pl.DataFrame, catalogue: Catalogue) -> pl.DataFrame:
    """Replace the rank of a coma-scale text by its place among the reference's columns."""
    value: Any = pl.col("value")
    for i, variable in enumerate(catalogue.variables):
        if variable.name.startswith("Glasgow"):
            places = reference_rank(variable)
            ranks = [float(rank) for rank in range(len(places))]
            place = pl.col("value").replace_strict(ranks, places, default=None)
            value = pl.when(pl.col("variable") == i).then(place).otherwise(value)
    return found.with_columns(value=value)


__all__ = ["PREDICTION_HOURS", "load", "measure", "provenance"]
