"""Add a task to an existing cohort; nothing else of the cache is written."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa

from ..errors import ConfigError, DataError, SchemaError
from . import atomic
from .labelled import task_columns
from .layout import (
    LABELS,
    LABELS_FORMAT,
    SCHEMA_VERSION,
    check_name,
    claim,
    cohort_folder,
    table_name,
)
from .stays import Cohort

_TASK = re.compile(r"[A-Za-z0-9]+([_.-][A-Za-z0-9]+)*")


def write_labels(
    cache: Path, cohort: str, task: str, table: pa.Table, *, replace: bool = False
) -> Cohort:
    """Add labels of one task to a cohort.

    A stay that the table does not name has no label, and is eligible unless the table says of the
    others whether they are. Links, stores and runs of other tasks stay valid; a run of this task
    has these labels in its identity.

    Args:
        cache: Folder of the cache.
        cohort: Name of the cohort.
        task: Name of the task: letters and digits, parted by single '_', '-' or '.'.
        table: One row per stay in any order: stay_id (text, or as in the cohort), y_<task> or
            several y_<task>__<label> as int8 of 0, 1 or null; optional in_<task>, bool.
        replace: Whether other labels of a task of this name give way.

    Returns:
        The cohort with the task.

    Raises:
        ConfigError: The name cannot be a task's, or the task has other labels.
        DataError: The table names stays that the cohort has not, names one twice, or no label.
        SchemaError: A column is missing or of the wrong type.
    """
    if not _TASK.fullmatch(check_name(task, "Task")):
        raise ConfigError(
            f"Task {task!r}: expected letters and digits, parted by single '_', '-' or '.'."
        )
    opened = Cohort.open(cache, cohort)
    columns = _aligned(opened, task, table)
    there = task_columns(opened.stays.column_names, task)
    if there:
        if opened.stays.select(sorted(there)).equals(pa.table(columns).select(sorted(columns))):
            return opened
        if not replace:
            raise ConfigError(
                f"The cohort {cohort!r} of {cache} has other labels for the task {task!r}. Choose "
                "another name, or say --replace: runs on the old labels then are runs of a task "
                "that is no longer there."
            )
    folder = cohort_folder(cache, cohort) / LABELS
    path = claim(folder / f"{task}.json")
    data = atomic.render_parquet(pa.table({"stay_id": opened.stays["stay_id"], **columns}))
    digest = atomic.hash_bytes(data)
    atomic.write_if_changed(folder / table_name(task, digest), data)
    content = {
        "format": LABELS_FORMAT,
        "schema_version": SCHEMA_VERSION,
        "cohort": opened.fingerprint,
        "task": task,
        "tables": {"labels": digest},
    }
    atomic.write_json(path, content)
    return Cohort.open(cache, cohort)


def _aligned(cohort: Cohort, task: str, table: pa.Table) -> dict[str, pa.ChunkedArray]:
    """in_<task> and the labels, in the order of the stays."""
    found = task_columns(table.column_names, task)
    labels = [name for name in found if name.startswith("y_")]
    if "stay_id" not in table.column_names or not labels:
        raise SchemaError(
            f"Labels of {task!r} need stay_id and y_{task}, or several y_{task}__<label>; found "
            f"{table.column_names}."
        )
    if f"y_{task}" in labels and len(labels) > 1:
        raise SchemaError(f"Labels of {task!r} are y_{task} or y_{task}__<label>, found both.")
    stays = [str(value) for value in cohort.stays["stay_id"].to_pylist()]
    named = [str(value) for value in table["stay_id"].to_pylist()]
    rows = {stay: row for row, stay in enumerate(named)}
    if len(rows) != len(named):
        double = next(stay for row, stay in enumerate(named) if rows[stay] != row)
        raise DataError(
            f"Labels of {task!r}: {len(named) - len(rows)} rows repeat a stay_id, the first is "
            f"{double!r}; expected one row per stay."
        )
    known = set(stays)
    unknown = [stay for stay in named if stay not in known]
    if unknown:
        raise DataError(
            f"Labels of {task!r}: {len(unknown)} of {len(named)} stay_id are not among the "
            f"{len(stays)} stays of the cohort {cohort.name!r}, the first is {unknown[0]!r}. "
            "Remove these rows, or name the cohort that has them with --cohort."
        )
    index = pa.array([rows.get(stay) for stay in stays], pa.int64())
    columns: dict[str, pa.ChunkedArray] = {}
    if f"in_{task}" in found:
        column = table[f"in_{task}"]
        if column.type != pa.bool_() or column.null_count:
            raise SchemaError(f"in_{task} must be bool without nulls.")
        columns[f"in_{task}"] = column.take(index).fill_null(False)
    else:
        columns[f"in_{task}"] = pa.chunked_array([pa.array([True] * len(stays), pa.bool_())])
    for name in labels:
        values = set(table[name].to_pylist())
        if table[name].type != pa.int8() or not values <= {0, 1, None}:
            raise SchemaError(f"{name} must be int8 of 0, 1 or null, found {table[name].type}.")
        columns[name] = table[name].take(index)
    if all(columns[name].null_count == len(stays) for name in labels):
        raise DataError(f"Labels of {task!r}: no stay has a known label.")
    return columns
