"""Read a table of the user: CSV, TSV or Parquet, ids as text, numbers checked."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import polars as pl
import pyarrow as pa

from ...errors import DataError, SchemaError
from .spec import OwnFile

_TEXT = (".csv", ".csv.gz", ".tsv", ".tsv.gz")
LONGEST_ID = 200


def scan(path: Path) -> pl.LazyFrame:
    """Open a table; the cells of text files stay text, an empty one is null.

    Raises:
        DataError: It is not there, or of another kind.
    """
    name = path.name.lower()
    if not path.is_file():
        raise DataError(f"{path}: expected a table, found no such file.")
    if name.endswith(".parquet"):
        return pl.scan_parquet(path)
    if not name.endswith(_TEXT):
        raise DataError(f"{path}: expected a table as {', '.join(_TEXT)} or .parquet.")
    return pl.scan_csv(
        path,
        separator="\t" if ".tsv" in name else ",",
        infer_schema=False,
    )


def header(path: Path, table: pl.LazyFrame) -> pl.Schema:
    """Columns of a table and their types.

    Raises:
        DataError: It cannot be read.
    """
    try:
        return table.collect_schema()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{path}: not a readable table ({type(error).__name__})") from error


def collect(path: Path, table: pl.LazyFrame) -> pl.DataFrame:
    """Read a table.

    Raises:
        DataError: It cannot be read.
    """
    try:
        return table.collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(
            f"{path}: not a readable table ({type(error).__name__}); is every line as long as the "
            "header, and the text UTF-8?"
        ) from error


def require(path: Path, schema: pl.Schema, names: Iterable[str], remedy: str) -> None:
    """Raise SchemaError when a column is missing."""
    lacking = [name for name in names if name not in schema]
    if lacking:
        raise SchemaError(
            f"{path}: expected the column {lacking[0]!r}, found {', '.join(schema)}. {remedy}"
        )


def id_text(path: Path, schema: pl.Schema, column: str) -> pl.Expr:
    """The ids of a column as text.

    Raises:
        SchemaError: They are neither whole numbers nor text.
    """
    kind = schema[column]
    if not (kind.is_integer() or kind in (pl.String, pl.Categorical)):
        raise SchemaError(
            f"{path}: the ids of column {column!r} must be whole numbers or text, found {kind}; "
            "an id is never a floating-point number"
        )
    return pl.col(column).cast(pl.String).str.strip_chars()


def ids_array(path: Path, column: str, ids: Sequence[str]) -> pa.Array:
    """Ids as int64 where all are written as plain whole numbers, else as text.

    Raises:
        SchemaError: One is empty, too long, or holds signs that cannot be printed.
    """
    for text in ids:
        if not 0 < len(text) <= LONGEST_ID or not text.isprintable():
            raise SchemaError(
                f"{path}: an id in {column!r} is 1 to {LONGEST_ID} printable characters, found one "
                f"of {len(text)}"
            )
    if all(re.fullmatch(r"-?(0|[1-9]\d{0,17})", text) for text in ids):
        return pa.array([int(text) for text in ids], pa.int64())
    return pa.array(ids, pa.string())


def filtered(path: Path, table: pl.LazyFrame, schema: pl.Schema, spec: OwnFile) -> pl.LazyFrame:
    """Keep the rows that `where` names.

    Raises:
        SchemaError: No such column.
    """
    require(path, schema, spec.where, f"It is named by `where` of {spec.table}.")
    for column, values in spec.where.items():
        words = [str(value) for value in values]
        table = table.filter(pl.col(column).cast(pl.String).is_in(words))
    return table


def number(column: str, kind: pl.DataType, missing: Sequence[float | str]) -> pl.Expr:
    """A column as float64; what `missing` lists is null, and so is NaN.

    Text that is no number is null too: compare with `is_text` to find it.
    """
    value = pl.col(column)
    if kind == pl.String:
        value = value.str.strip_chars()
        value = pl.when(value.is_in([str(m) for m in missing])).then(None).otherwise(value)
        value = value.cast(pl.Float64, strict=False)
    else:
        value = value.cast(pl.Float64, strict=False)
    value = value.fill_nan(None)
    numbers = [float(m) for m in missing if isinstance(m, int | float)]
    return pl.when(value.is_in(numbers)).then(None).otherwise(value) if numbers else value


def is_text(column: str, kind: pl.DataType, missing: Sequence[float | str]) -> pl.Expr:
    """Whether a cell holds text that is no number and that `missing` does not list."""
    if kind != pl.String:
        return pl.lit(value=False)
    text = pl.col(column).str.strip_chars()
    empty = text.is_null() | text.is_in(["", *(str(m) for m in missing)])
    return ~empty & text.cast(pl.Float64, strict=False).is_null()


__all__ = [
    "collect",
    "filtered",
    "header",
    "id_text",
    "ids_array",
    "is_text",
    "number",
    "require",
    "scan",
]
