"""Series files of mimic3-benchmarks and MedFuse as measurements: hours, variable, value."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from ...errors import DataError, SchemaError
from .catalogue import Catalogue, Variable, published
from .cells import parsed

HOURS = "Hours"
_TOLERANCE = 1e-6
_PREDICTION_HOURS = 48.0


def header() -> tuple[str, ...]:
    """Return the columns that a series has."""
    return (HOURS, *(variable.reference_name for variable in published("corrected").variables))


def read_series(files: Sequence[tuple[int, Path]]) -> pl.DataFrame:
    """Read series as text in long form, checked for columns and order of time.

    Args:
        files: Stay and file.

    Returns:
        stay_id, hours, variable (uint8), text; the first 48 h, empty cells left out.

    Raises:
        DataError: A file is missing, damaged, or its hours go back.
        SchemaError: It has other columns, or hours that are no numbers.
    """
    parts = [_read(stay, path) for stay, path in files]
    empty = pl.DataFrame(
        schema={"stay_id": pl.Int64, HOURS: pl.Float64, "name": pl.String, "text": pl.String}
    )
    names = {name: i for i, name in enumerate(header()[1:])}
    return (
        pl.concat([empty, *parts])
        .with_columns(
            variable=pl.col("name").replace_strict(names, return_dtype=pl.UInt8), hours=HOURS
        )
        .select("stay_id", "hours", "variable", "text")
    )


def _read(stay: int, path: Path) -> pl.DataFrame:
    try:
        data = path.read_bytes()
        text = pl.read_csv(io.BytesIO(data), infer_schema=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(
            f"{path}: cannot be read as a table ({type(error).__name__}). Copy the file again."
        ) from error
    if set(text.columns) != set(header()):
        odd = sorted(set(text.columns) ^ set(header()))
        raise SchemaError(
            f"{path}: expected the column Hours and the 17 variables of mimic3-benchmarks; "
            f"missing or unknown: {', '.join(odd)[:300]}."
        )
    text = text.with_columns(parsed(HOURS, "number"))
    hours = text[HOURS]
    if hours.null_count() or not hours.is_finite().all():
        raise SchemaError(f"{path}: expected a number in each cell of the column Hours.")
    if (hours.diff().drop_nulls() < -_TOLERANCE).any():
        raise DataError(
            f"{path}: the hours go back. A series must be in order of time: sort it by Hours."
        )
    within = (hours > -_TOLERANCE) & (hours < _PREDICTION_HOURS + _TOLERANCE)
    return (
        text.filter(within)
        .with_columns(pl.col(HOURS).clip(0.0, _PREDICTION_HOURS), stay_id=pl.lit(stay, pl.Int64))
        .unpivot(index=["stay_id", HOURS], variable_name="name", value_name="text")
        .filter(pl.col("text").str.strip_chars() != "")
    )


def values(long: pl.DataFrame, catalogue: Catalogue) -> pl.DataFrame:
    """Turn the texts of series into measurements.

    Args:
        long: As `read_series` returns it.
        catalogue: Under `reference` the values stay as they stand; under `corrected` spellings of
            the two bedside systems are merged and the outlier bounds applied, as for raw tables.
            What the published cleaning spoilt, such as fractions of oxygen divided by 100, stays
            lost.

    Returns:
        stay_id, hours, variable, value; sorted, one row each.

    Raises:
        SchemaError: A category is not among the known ones, or a value no number.
    """
    parts = [
        _values(i, variable, long.filter(pl.col("variable") == i), catalogue)
        for i, variable in enumerate(catalogue.variables)
    ]
    found = pl.concat(parts).drop_nulls("value")
    # Two lines within the tolerance of one instant: the later one stays, as in the published grid.
    return found.unique(["stay_id", "hours", "variable"], keep="last", maintain_order=True).sort(
        "stay_id", "hours", "variable"
    )


def _values(
    index: int, variable: Variable, rows: pl.DataFrame, catalogue: Catalogue
) -> pl.DataFrame:
    text = pl.col("text").str.strip_chars()
    value = text.cast(pl.Float64, strict=False)
    if variable.categorical:
        value = _level(variable, catalogue, text)
    rows = rows.with_columns(value=value)
    bad = rows.filter(~pl.col("value").is_finite().fill_null(value=False))
    if bad.height:
        kind = "one of the known categories" if variable.categorical else "a number"
        raise SchemaError(
            f"Series of stay {bad['stay_id'][0]}, column {variable.reference_name}: expected "
            f"{kind} in each filled cell, found another text in {bad.height} (not shown)."
        )
    if catalogue.preset == "corrected":
        number = pl.col("value")
        inside = number.is_between(variable.low, variable.high)
        moved = number.clip(variable.valid_low, variable.valid_high)
        rows = rows.with_columns(value=pl.when(inside).then(moved))
    return rows.select("stay_id", "hours", pl.lit(index, pl.UInt8).alias("variable"), "value")


def _level(variable: Variable, catalogue: Catalogue, text: pl.Expr) -> pl.Expr:
    """Return the level that a text means; for the reference its place among the columns."""
    words, reference = variable.reference_levels, catalogue.preset == "reference"
    places = {word: float(place) for place, word in enumerate(words)}
    if all(re.fullmatch(r"[\d.]+", word) for word in words):  # 15 or 15.0, 0.0 or 0
        meant = {float(w): places[w] if reference else float(w) for w in words}
        return text.cast(pl.Float64, strict=False).replace_strict(meant, default=None)
    meant_by = {w: places[w] if reference else variable.texts[w.lower()] for w in words}
    return text.replace_strict(meant_by, default=None, return_dtype=pl.Float64)


__all__ = ["header", "read_series", "values"]
