"""How a cell of a source table, which is text, is read."""

from __future__ import annotations

from typing import Literal

import polars as pl

Kind = Literal["text", "id", "number", "time"]


def parsed(column: str, kind: Kind) -> pl.Expr:
    """Return the expression that reads a text column as `kind`; null where that is impossible.

    Args:
        column: Name of a text column.
        kind: `id` whole number, `number` float, `time` date with or without time of day, `text`.
    """
    value = pl.col(column)
    if kind == "id":
        return value.cast(pl.Int64, strict=False)
    if kind == "number":
        return value.cast(pl.Float64, strict=False)
    if kind == "time":
        full = _time(value, "%Y-%m-%d %H:%M:%S")
        short = pl.when(value.str.len_bytes() < len("2150-01-31 23:59")).then(value)
        return full.fill_null(_time(short, "%Y-%m-%d"))
    return value


def _time(text: pl.Expr, pattern: str) -> pl.Expr:
    """Read times; to look each up among those seen takes longer than to read it."""
    return text.str.to_datetime(pattern, strict=False, time_unit="us", cache=False)


def unreadable(column: str, kind: Kind) -> pl.Expr:
    """Return the expression that is true where a cell is filled and cannot be read as `kind`."""
    return pl.col(column).is_not_null() & parsed(column, kind).is_null()


__all__ = ["Kind", "parsed", "unreadable"]
