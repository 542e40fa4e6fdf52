"""Hand a cohort to other programs: its arrays in one HDF5 file, its labels as a table."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from math import prod
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa

from ..errors import ConfigError, DataError, quoted
from . import atomic
from .blocks import StayBlocks
from .labelled import task_columns
from .stays import Cohort

UNKNOWN = -1
_RESERVED = ("stay_id", "subject_id", "split", "available", "labels")


def export_arrays(
    cache: Path,
    out: Path,
    cohort: str = "default",
    modalities: Sequence[str] = (),
    *,
    force: bool = False,
) -> None:
    """Write what a cohort has as one HDF5 file, row by row in the order of its stays.

    ```
    /stay_id, /subject_id, /split [N]     ids as int64 or text; train, val or test
    /available [N, M] bool                attribute `modalities`: names of the M columns
    /<modality>/values [N, L, D] float32  zero where the mask is false; attributes `view`, `space`,
                                          `columns` (names of the last axis, if they have some)
    /<modality>/mask [N, L] bool          real steps or parts
    /<modality>/length [N] int32          their number
    /labels/y_<task> [N] int8             -1 where unknown; y_<task>__<label> of several, a `/` in
                                          the label written %2F, as it parts groups in HDF5
    /labels/in_<task> [N] bool            whether the stay is eligible
    ```

    Args:
        cache: Folder of the cache.
        out: The file.
        cohort: Name of the cohort.
        modalities: NAME or NAME@SPACE; empty for all that the cohort links.
        force: Whether a file that is there gives way.

    Raises:
        ConfigError: The file is there, or a modality cannot be exported.
        DataError: A modality was not extracted, or there is none.
        IntegrityError: A file of the cache was altered.
    """
    refuse_existing(out, force)
    opened = Cohort.open(cache, cohort)
    names = [text.partition("@")[0] for text in modalities or opened.modalities]
    if not names:
        raise DataError(f"The cohort {cohort!r} of {cache} links no modality; extract one first.")
    for name in names:
        if name in _RESERVED or names.count(name) > 1:
            raise ConfigError(
                f"--modalities: {name!r} cannot name a group of the file; expected every modality "
                f"once, and none called {', '.join(_RESERVED)}."
            )
    views = [
        StayBlocks(cache, opened, name, text.partition("@")[2] or None)
        for name, text in zip(names, modalities or opened.modalities, strict=True)
    ]
    needed = sum(4 * prod(part.shape) for part in views)
    atomic.write_file(out, lambda path: _write(path, opened, views), needed)


def export_labels(cache: Path, out: Path, cohort: str = "default", *, force: bool = False) -> int:
    """Write the labels of a cohort as a table in the style of MEDS.

    One row per eligible stay and known label: subject_id, prediction_time (null where the cohort
    does not know it), boolean_value, task (several labels: <task>__<label>), and stay_id.

    Args:
        cache: Folder of the cache.
        out: The Parquet file.
        cohort: Name of the cohort.
        force: Whether a file that is there gives way.

    Returns:
        Number of rows.

    Raises:
        ConfigError: The file is there, or its name is not that of a Parquet file.
        DataError: The cohort has no labels.
    """
    refuse_labels(out, force)
    opened = Cohort.open(cache, cohort)
    stays = opened.stays
    if not opened.tasks:
        raise DataError(
            f"The cohort {cohort!r} of {cache} has no task. Run `cm2 cache label {quoted(cache)} "
            "--task NAME=FILE` first."
        )
    times = _prediction_times(opened)
    rows: list[dict[str, object]] = []
    ids = [stays[name].to_pylist() for name in ("subject_id", "stay_id")]
    for task in opened.tasks:
        eligible = stays[f"in_{task}"].to_pylist()
        for column in task_columns(stays.column_names, task):
            if not column.startswith("y_"):
                continue
            labels = stays[column].to_pylist()
            for subject, stay, time, chosen, y in zip(*ids, times, eligible, labels, strict=True):
                if chosen and y is not None:
                    rows.append(
                        {
                            "subject_id": subject,
                            "prediction_time": time,
                            "boolean_value": bool(y),
                            "task": column.removeprefix("y_"),
                            "stay_id": stay,
                        }
                    )
    schema = pa.schema(
        [
            ("subject_id", stays.schema.field("subject_id").type),
            ("prediction_time", pa.timestamp("us")),
            ("boolean_value", pa.bool_()),
            ("task", pa.string()),
            ("stay_id", stays.schema.field("stay_id").type),
        ]
    )
    atomic.write_parquet(out, pa.Table.from_pylist(rows, schema))
    return len(rows)


def refuse_existing(out: Path, force: bool) -> None:
    """Raise ConfigError when a file is in the way."""
    if out.exists() and not force:
        raise ConfigError(f"{out} exists. Choose another name, or say --force to replace it.")


def refuse_labels(out: Path, force: bool) -> None:
    """Raise ConfigError when a table of labels cannot be written under a name."""
    refuse_existing(out, force)
    if out.suffix != ".parquet":
        raise ConfigError(f"--labels {out}: expected a name that ends in .parquet")


def _prediction_times(cohort: Cohort) -> list[object]:
    """Entry of the stay plus the hours of the cohort's rules; None where either is unknown."""
    hours = cohort.info.get("rules", {}).get("prediction_hours")
    if hours is None or "intime" not in cohort.stays.column_names:
        return [None] * cohort.stays.num_rows
    after = timedelta(hours=hours)
    return [None if t is None else t + after for t in cohort.stays["intime"].to_pylist()]


def _write(path: Path, cohort: Cohort, views: Sequence[StayBlocks]) -> None:
    # This version, as older layouts hold no more than 64 kB of column names.
    with h5py.File(path, "x", libver=("v108", "v110")) as file:
        for name in ("stay_id", "subject_id", "split"):
            _put(file, name, _ids(cohort.stays[name]))
        available = _put(file, "available", np.stack([part.has for part in views], axis=1))
        _texts(available, "modalities", [part.name for part in views])
        for part in views:
            group = file.create_group(part.name)
            _put_blocks(group, part)
            group.attrs["view"] = part.space.view
            group.attrs["space"] = part.space.id
            if part.space.columns:
                _texts(group, "columns", part.space.columns)
        labels = file.create_group("labels")
        for task in cohort.tasks:
            for column in task_columns(cohort.stays.column_names, task):
                values = cohort.stays[column]
                if column.startswith("y_"):
                    name = column.replace("/", "%2F")
                    _put(labels, name, np.asarray(values.fill_null(UNKNOWN), dtype=np.int8))
                else:
                    _put(labels, column, np.asarray(values, dtype=bool))
        file.attrs["format"] = "cm2.export"
        file.attrs["cohort"] = cohort.name
        file.attrs["dataset"] = str(cohort.info.get("dataset", ""))


def _put_blocks(group: h5py.Group, part: StayBlocks) -> None:
    n, length, _ = part.shape
    values = group.create_dataset("values", part.shape, np.float32, track_times=False)
    mask = group.create_dataset("mask", (n, length), bool, track_times=False)
    lengths = group.create_dataset("length", (n,), np.int32, track_times=False)
    start = 0
    for some, marks in part:
        rows = slice(start, start + len(some))
        values[rows], mask[rows], lengths[rows] = some, marks, marks.sum(axis=1)
        start += len(some)


def _put(group: h5py.Group, name: str, values: np.ndarray) -> h5py.Dataset:
    if values.dtype.kind == "O":
        data, kind = values, h5py.string_dtype()
    else:
        data, kind = values, values.dtype
    return group.create_dataset(name, data=data, dtype=kind, track_times=False)


def _texts(where: h5py.HLObject, name: str, texts: Sequence[str]) -> None:
    where.attrs.create(name, np.array(list(texts), dtype=object), dtype=h5py.string_dtype())


def _ids(column: pa.ChunkedArray) -> np.ndarray:
    if column.type == pa.int64():
        return np.asarray(column)
    return np.array(column.to_pylist(), dtype=object)


__all__ = ["export_arrays", "export_labels", "refuse_existing", "refuse_labels"]
