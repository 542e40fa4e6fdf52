"""Times of the user: hours after the entry of the stay, or clock times, with or without a zone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from ...errors import ConfigError, SchemaError
from .spec import OwnFile
from .tables import collect, id_text, is_text, number

NOT_CHECKED = "not checked"
"""What the record says of items that have no time."""

FORMS = "2150-01-31, 2150-01-31 13:45 or 2150-01-31 13:45:00, at the end perhaps Z or +01:00"
"""How a time may be written; an order of day and month is never guessed."""

_ISO = (
    r"^(?P<day>\d{4}-\d{2}-\d{2})"
    r"(?:[T ](?P<minute>\d{2}:\d{2})(?::(?P<second>\d{2})(?:\.(?P<fraction>\d{1,9}))?)?"
    r" ?(?P<zone>Z|(?P<sign>[+-])(?P<hours>[01]\d)(?::?(?P<minutes>[0-5]\d))?)?)?$"
)


def clock(
    path: Path, column: str, kind: pl.DataType, missing: Sequence[float | str] = ()
) -> tuple[pl.Expr, pl.Expr, pl.Expr]:
    """Read a column of clock times.

    Args:
        path: The file, for messages.
        column: Its column.
        kind: The type of the column.
        missing: Words that mean unknown.

    Returns:
        The time in microseconds, in UTC where it has a zone, null where there is none; whether it
        has a zone, null where there is no time; whether the cell holds something else than a time.

    Raises:
        SchemaError: The column is of a type that holds no times.
    """
    cell = pl.col(column)
    if isinstance(kind, pl.Datetime) and kind.time_zone is not None:
        value = cell.dt.convert_time_zone("UTC").dt.replace_time_zone(None).cast(pl.Datetime("us"))
        zoned = pl.when(cell.is_not_null()).then(pl.lit(value=True))
        return value, zoned, pl.lit(value=False)
    if isinstance(kind, pl.Datetime | pl.Date | pl.Null):
        zoned = pl.when(cell.is_not_null()).then(pl.lit(value=False))
        return cell.cast(pl.Datetime("us")), zoned, pl.lit(value=False)
    if kind != pl.String:
        raise SchemaError(f"{path}: {column!r} must hold times such as {FORMS}; found {kind}")
    text = cell.str.strip_chars()
    empty = text.is_null() | text.is_in(["", *(str(word) for word in missing)])
    part = text.str.extract_groups(_ISO).struct.field
    written = pl.concat_str(
        part("day"),
        pl.lit(" "),
        part("minute").fill_null("00:00"),
        pl.lit(":"),
        part("second").fill_null("00"),
        pl.lit("."),
        part("fraction").fill_null("0"),
    )
    local = written.str.to_datetime("%Y-%m-%d %H:%M:%S%.f", strict=False, time_unit="us")
    ahead = part("hours").cast(pl.Int64) * 60 + part("minutes").fill_null("0").cast(pl.Int64)
    ahead = pl.when(part("sign") == "-").then(-ahead).otherwise(ahead).fill_null(0)
    value = pl.when(~empty).then(local - pl.duration(minutes=ahead))
    zoned = pl.when(value.is_not_null()).then(part("zone").is_not_null())
    return value, zoned, ~empty & value.is_null()


def clocks(path: Path, frame: pl.DataFrame, column: str) -> pl.Series:
    """A column of a table of stays as times; those with a zone are in UTC and stay marked as such.

    Raises:
        SchemaError: A cell is no time, or only some have a zone.
    """
    value, zoned, wrong = clock(path, column, frame.schema[column])
    read = frame.select(value=value, zoned=zoned, wrong=wrong)
    if read["wrong"].any():
        row = read["wrong"].arg_true()[0]
        raise SchemaError(
            f"{path}, row {row + 1}: {column} must be empty or a time such as {FORMS}; found "
            "something else. Write it in this form, year first."
        )
    with_zone = read["zoned"].fill_null(value=False)
    without = (~read["zoned"]).fill_null(value=False)
    if with_zone.any() and without.any():
        raise SchemaError(
            f"{path}: {column} has a time zone in row {with_zone.arg_true()[0] + 1} and none in "
            f"row {without.arg_true()[0] + 1}; expected all with or all without"
        )
    return read["value"].dt.replace_time_zone("UTC") if with_zone.any() else read["value"]


def timed(
    path: Path,
    table: pl.LazyFrame,
    schema: pl.Schema,
    spec: OwnFile,
    stays: pl.DataFrame,
    until_hours: float,
) -> tuple[pl.LazyFrame, str]:
    """Join rows with their stays, and say of each when it happened.

    Args:
        path: The file, for messages.
        table: Its rows.
        schema: Its columns.
        spec: How they are called.
        stays: `_id` text, `_row`, and `_intime` where the stays have one.
        until_hours: The prediction time.

    Returns:
        The rows of the stays with `_row`, `_hours` after the entry (null without a time), and three
        marks, each false where the table has no times: `_late`, later than the prediction time;
        `_unread`, the cell of the time holds something else; `_timeless`, it is empty, or the stay
        has no entry. Then what to record of the times.

    Raises:
        ConfigError: Clock times, and the stays have no intime.
        SchemaError: The column of times is of another type, or its times have a time zone and
            those of the stays have none, or the reverse.
    """
    joined = table.with_columns(_id=id_text(path, schema, spec.id)).join(
        stays.lazy(), on="_id", how="inner"
    )
    found = _hours(path, joined, schema, spec, stays)
    if found is None:
        no = pl.lit(value=False)
        nothing = pl.lit(None, dtype=pl.Float64)
        return joined.with_columns(_hours=nothing, _late=no, _unread=no, _timeless=no), NOT_CHECKED
    hours, unread = found
    marked = joined.with_columns(_hours=hours, _unread=unread).with_columns(
        _late=(pl.col("_hours") > until_hours + 1e-9).fill_null(value=False),
        _timeless=pl.col("_hours").is_null() & ~pl.col("_unread"),
    )
    return marked, f"checked: nothing after {until_hours:g} h"


def _hours(
    path: Path, joined: pl.LazyFrame, schema: pl.Schema, spec: OwnFile, stays: pl.DataFrame
) -> tuple[pl.Expr, pl.Expr] | None:
    """Hours after the entry, and whether a cell is something else; None when there are no times."""
    for column, unit in ((spec.hours, 1.0), (spec.minute, 60.0)):
        if column in schema:
            kind = schema[column]
            if kind != pl.String and not kind.is_numeric():
                raise SchemaError(f"{path}: {column!r} must hold numbers, found {kind}")
            value = number(column, kind, spec.missing) / unit
            return value, is_text(column, kind, spec.missing)
    if spec.time not in schema:
        return None
    if "_intime" not in stays.columns:
        raise ConfigError(
            f"{path}: the column {spec.time!r} needs the column intime in the table of stays; or "
            "give hours after the entry of the stay"
        )
    value, zoned, unread = clock(path, spec.time, schema[spec.time], spec.missing)
    entry = stays.schema["_intime"]
    aware = isinstance(entry, pl.Datetime) and entry.time_zone is not None
    told = collect(path, joined.select(aware=zoned.sum(), naive=zoned.not_().sum())).row(0)
    _check_zones(path, spec, aware=aware, zoned=told[0] or 0, plain=told[1] or 0)
    start, _, _ = clock(path, "_intime", entry)
    return (value - start).dt.total_microseconds() / 3.6e9, unread


def _check_zones(path: Path, spec: OwnFile, *, aware: bool, zoned: int, plain: int) -> None:
    """Refuse to subtract a time without a zone from one with a zone: the hours would be wrong."""
    if not (plain if aware else zoned):
        return
    raise SchemaError(
        f"{path}: {zoned:,} times of the column {spec.time!r} have a time zone and {plain:,} have "
        f"none, while the column intime of the table of stays has {'one' if aware else 'none'}; "
        "hours between them cannot be told. Write the times of both files with their zone, such as "
        "2150-01-31 13:45+01:00, or both as the same clock without a zone."
    )


__all__ = ["FORMS", "NOT_CHECKED", "clock", "clocks", "timed"]
