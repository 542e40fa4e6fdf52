"""The user's table of stays: ids, patients, splits, labels, subgroups."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from ...cache.layout import SPLITS
from ...errors import ConfigError, DataError, SchemaError
from ..config import ExtractConfig
from ..splits import assign
from .tables import collect, header, id_text, ids_array, number, require, scan
from .times import clocks

DATASET = "own"
_BITS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}
_CLOCKS = ("intime", "outtime")


def build(path: Path, config: ExtractConfig) -> tuple[pa.Table, dict[str, Any]]:
    """Make the stays of a cohort from a table of the user.

    Args:
        path: Columns stay_id, subject_id; optional split, y_<task> or y_<task>__<label> (0, 1 or
            empty), in_<task> (0 or 1, default 1), intime, outtime, and any others for subgroups.
        config: Splits, and whether every stay is another patient.

    Returns:
        One row per stay, sorted by stay_id, and the record for cohort.json.

    Raises:
        ConfigError: There is no subject_id.
        DataError: A stay stands twice, or a split is unknown or missing.
        SchemaError: A column is missing or of the wrong type.
    """
    return build_of(path, scan(path), config)


def build_of(
    path: Path, table: pl.LazyFrame, config: ExtractConfig
) -> tuple[pa.Table, dict[str, Any]]:
    """Make the stays of a cohort from a table in memory, called `path` in messages."""
    schema = header(path, table)
    require(path, schema, ["stay_id"], "It names the rows.")
    if "subject_id" not in schema and not config.subject_is_stay:
        raise ConfigError(
            f"{path}: expected the column subject_id, found {', '.join(schema)}. Patients must not "
            "be in two splits; if every stay is another patient, say so with --subject-is-stay."
        )
    ids = {
        name: id_text(path, schema, name) for name in ("stay_id", "subject_id") if name in schema
    }
    frame = collect(path, table.with_columns(**ids))
    for name in ids:
        if frame[name].null_count():
            row = frame[name].is_null().arg_true()[0]
            raise SchemaError(f"{path}, row {row + 1}: expected a {name}, found none")
    double = frame.filter(pl.col("stay_id").is_duplicated())["stay_id"].unique()
    if len(double):
        raise DataError(
            f"{path}: {len(double)} stay_id stand in several rows; expected one row each"
        )
    if frame.is_empty():
        raise DataError(f"{path}: expected one row per stay, found none")
    stay_ids = ids_array(path, "stay_id", frame["stay_id"].to_list())
    order = pa.compute.sort_indices(stay_ids)
    subject = "subject_id" if "subject_id" in schema else "stay_id"
    subject_ids = ids_array(path, subject, frame[subject].to_list())
    split, rule = _splits(path, frame, subject_ids, config)
    columns: dict[str, pa.Array] = {
        "stay_id": stay_ids,
        "subject_id": subject_ids,
        "split": pa.array(split, pa.string()),
    }
    for name in frame.columns:
        if name not in columns:
            columns[name] = _column(path, frame, name)
    for task in tasks(list(columns)):
        columns.setdefault(f"in_{task}", pa.array([True] * frame.height, pa.bool_()))
    stays = pa.table(columns).take(order)  # last, so that messages count the rows of the file
    info = {
        "dataset": config.dataset_name or DATASET,
        "release": "",
        "synthetic": False,
        "rules": {"stays": "a table of the user", "patients": subject},
        "split": rule,
        "attrition": [
            {
                "rule": "stays in the table",
                "stays": stays.num_rows,
                "subjects": len(set(subject_ids.to_pylist())),
                "paper": None,
            }
        ],
        "tasks": counts(stays),
    }
    return stays, info


def tasks(columns: list[str]) -> list[str]:
    """Tasks that some columns hold labels of, in order."""
    found = [name[2:].partition("__")[0] for name in columns if name.startswith("y_")]
    return list(dict.fromkeys(found))


def counts(stays: pa.Table) -> dict[str, dict[str, int]]:
    """Eligible stays with a known label, and positives, by task (any label of several)."""
    found = {}
    for task in tasks(stays.column_names):
        labels = [c for c in stays.column_names if c == f"y_{task}" or c.startswith(f"y_{task}__")]
        rows = zip(*(stays[c].to_pylist() for c in [f"in_{task}", *labels]), strict=True)
        known = [y for eligible, *y in rows if eligible and any(v is not None for v in y)]
        found[task] = {"stays": len(known), "positives": sum(1 in y for y in known)}
    return found


def bits(path: Path, frame: pl.DataFrame, name: str) -> list[int | None]:
    """A column of 0, 1, true, false or nothing.

    Raises:
        SchemaError: Anything else stands in it.
    """
    words = frame[name].cast(pl.String).str.strip_chars().str.to_lowercase().to_list()
    values = [None if word in (None, "", "nan") else _BITS.get(word, -1) for word in words]
    if -1 in values:
        row = values.index(-1)
        raise SchemaError(
            f"{path}, row {row + 1}: {name} must hold 0, 1 or nothing, found {words[row]!r}"
        )
    return values


def flags(path: Path, frame: pl.DataFrame, name: str) -> pa.Array:
    """A column of 0, 1, true or false in every row, as bool.

    Raises:
        SchemaError: Anything else stands in it, or nothing.
    """
    values = bits(path, frame, name)
    if None in values:
        raise SchemaError(f"{path}, row {values.index(None) + 1}: {name} must be 0 or 1")
    return pa.array([bool(value) for value in values], pa.bool_())


def _column(path: Path, frame: pl.DataFrame, name: str) -> pa.Array:
    series = frame[name]
    if name.startswith("y_"):
        return pa.array(bits(path, frame, name), pa.int8())
    if name.startswith("in_"):
        return flags(path, frame, name)
    if name in _CLOCKS:
        return clocks(path, frame, name).to_arrow()
    if series.dtype == pl.String:
        numbers = frame.select(number(name, series.dtype, ()).alias(name))[name]
        if numbers.null_count() == series.null_count() and numbers.is_finite().all():
            return numbers.to_arrow()
        return pa.array(series.to_list(), pa.string())
    if series.dtype.is_numeric() or series.dtype == pl.Boolean:
        return series.to_arrow()
    try:
        return pa.array(series.cast(pl.String).to_list(), pa.string())
    except pl.exceptions.PolarsError:
        raise SchemaError(
            f"{path}: column {name} must hold numbers, words, truth values or times, found "
            f"{series.dtype}; leave it out, or give it as one of these"
        ) from None


def _splits(
    path: Path, frame: pl.DataFrame, subjects: pa.Array, config: ExtractConfig
) -> tuple[list[str], dict[str, object]]:
    if "split" in frame.columns:
        words = frame["split"].cast(pl.String).to_list()
        wrong = [row for row, word in enumerate(words) if word not in SPLITS]
        if wrong:
            raise DataError(
                f"{path}, row {wrong[0] + 1}: split must be train, val or test for every stay, "
                f"found {words[wrong[0]]!r}"
            )
        return words, {"rule": "column split of the table"}
    if config.splits is not None:
        raise ConfigError("--splits: give your own splits as the column split of --stays")
    ids = subjects.to_pylist()
    assigned, rule = assign(config.dataset_name or DATASET, ids, None, config.split_seed)
    return [assigned[subject] for subject in ids], rule


__all__ = ["DATASET", "bits", "build", "build_of", "counts", "tasks"]
