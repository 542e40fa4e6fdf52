"""A plan over rows in memory: one vector or series per stay, known by its content."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from ...cache.cohort import Cohort
from ...cache.store import EncodedShard, Reject, Space
from ...errors import DataError
from ..work import Plan, Work
from .spec import OwnFile
from .tables import collect, scan
from .times import FORMS

SHARD_BYTES = 64 << 20
NO_ROW = "no_row"
ALL_EMPTY = "all_empty"
AFTER_PREDICTION = "after_prediction_time"
BEFORE_ENTRY = "before_entry"
NO_TIME = "no_time"
"""Reason codes: the file does not name the stay; names it without a value; only later than the
prediction time; only before its entry; only without a time, although the file has times."""

Fault = tuple[str, str, str]
"""Stage, class and message of a reject."""
INFINITE: Fault = ("nonfinite", "Infinite", "a value is infinite, or too large for float32")
NOT_A_NUMBER: Fault = (
    "nonfinite",
    "NotANumber",
    "a value is no number; list what means unknown in missing",
)
NOT_A_TIME: Fault = (
    "read",
    "NotATime",
    "the cell of the time holds something else; hours and minutes are numbers with a decimal "
    f"point, and a clock time is written as {FORMS}; list what means unknown in missing",
)


@dataclass(frozen=True)
class Rows:
    """What a file holds of the stays that it names.

    Args:
        stays: Text of the stay_id of each of n rows.
        values: float32 [n, D] or [n, T, D], finite where not rejected.
        mask: Real steps, bool [n, T]; None for vectors.
        rejects: Row -> what is wrong with it.
        absent: stay_id -> reason code, of stays that have nothing.
        ignored: Rows of the file that belong to no stay of the cohort.
        unused: Reason code -> rows of stays of the cohort that are not used.
    """

    stays: Sequence[str]
    values: npt.NDArray[np.float32]
    mask: npt.NDArray[np.bool_] | None
    rejects: Mapping[int, Fault]
    absent: Mapping[str, str]
    ignored: int
    unused: Mapping[str, int] = field(default_factory=dict)

    def steps(self, row: int) -> int | None:
        """Steps of a row up to the last real one; None of vectors. Padding is no content."""
        if self.mask is None:
            return None
        return int(np.flatnonzero(self.mask[row]).max(initial=-1)) + 1


def plan(
    spec: OwnFile,
    cohort: Cohort,
    space: Space,
    rows: Rows,
    rules: Mapping[str, object],
    timing: str,
) -> Plan:
    """Return the work of a modality that is in memory.

    An item is named by its stay and its content: equal rows of several cohorts share one vector,
    and other rows of the same stay never stand in for it.

    Raises:
        DataError: No row belongs to a stay of the cohort.
    """
    if not rows.stays and not rows.absent:
        raise no_match(spec, cohort, rows.ignored)
    work = []
    items: dict[str, list[str]] = {}
    for row, stay in enumerate(rows.stays):
        steps = rows.steps(row)
        content = np.ascontiguousarray(rows.values[row][:steps], dtype="<f4")
        digest = hashlib.sha256(content.tobytes())
        if rows.mask is not None:
            digest.update(rows.mask[row][:steps].tobytes())
        if row in rows.rejects:
            digest.update(rows.rejects[row][1].encode())
        stamp = digest.hexdigest()
        items[stay] = [f"{stay}:{stamp[:16]}"]
        work.append(Work(items[stay][0], stamp, row))
    row_bytes = max(1, rows.values[:1].nbytes)
    return Plan(
        space=space,
        work=work,
        links=links(cohort, items, rows.absent),
        rules={**rules, "prediction_time": timing},
        provenance=provenance(spec, rows.ignored, rows.unused),
        encode=_Encoder(rows),
        shard_items=max(1, min(4096, SHARD_BYTES // row_bytes)),
        timing=timing_of(timing, rows.unused),
    )


def provenance(spec: OwnFile, ignored: int, unused: Mapping[str, int]) -> dict[str, object]:
    """What is recorded of a file: its name, and how many of its rows are not used."""
    return {"file": spec.file.name, "rows_of_no_stay": ignored, "rows_not_used": dict(unused)}


def timing_of(timing: str, unused: Mapping[str, int]) -> str:
    """What is known of the times, with the rows that are not used because of theirs."""
    counts = [f"{reason} {count:,}" for reason, count in unused.items() if count]
    return f"{timing}; rows not used: {', '.join(counts)}" if counts else timing


def links(
    cohort: Cohort, items: Mapping[str, Sequence[str]], absent: Mapping[str, str]
) -> pa.Table:
    """Point every stay at its items, or say why it has none; stays are named as text."""
    ids = cohort.stays["stay_id"]
    names = [str(value) for value in ids.to_pylist()]
    linked = [list(items.get(name, ())) for name in names]
    why = [
        None if some else absent.get(name, NO_ROW) for name, some in zip(names, linked, strict=True)
    ]
    return pa.table(
        {
            "stay_id": ids,
            "items": pa.array(linked, pa.list_(pa.string())),
            "has": pa.array([bool(some) for some in linked], pa.bool_()),
            "why_no": pa.array(why, pa.string()),
        }
    )


def no_match(spec: OwnFile, cohort: Cohort, ignored: int) -> DataError:
    """The error of a file that names no stay of the cohort."""
    first = cohort.stays["stay_id"][0].as_py()
    own = ""
    if spec.file.is_file() and spec.file.suffix != ".npz":
        head = collect(spec.file, scan(spec.file).select(pl.col(spec.id).drop_nulls().head(1)))
        own = f", that of the file {head.item()!r}" if len(head) else ""
    return DataError(
        f"{spec.file}: none of its {ignored} rows that remain after the filters belongs to "
        f"one of the {cohort.stays.num_rows} stays of the cohort {cohort.name!r} (whose first "
        f"stay_id is {first!r}{own}). Does the column {spec.id!r} hold the stay_id, written alike?"
    )


class _Encoder:
    """Cuts rows out of memory; what is wrong with one becomes its reject."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def __call__(self, work: Sequence[Work]) -> EncodedShard:
        rejects = self._rows.rejects
        good = [item for item in work if item.payload not in rejects]
        index = np.array([item.payload for item in good], dtype=np.int64)
        arrays: dict[str, npt.NDArray[np.generic]] = {"values": self._rows.values[index]}
        if self._rows.mask is not None:
            arrays["mask"] = self._rows.mask[index]
        return EncodedShard(
            item_ids=[item.item_id for item in good],
            source_hashes=[item.stamp for item in good],
            arrays=arrays,
            facts={},
            rejects=[
                Reject(item.item_id, *rejects[item.payload])
                for item in work
                if item.payload in rejects
            ],
        )


__all__ = [
    "AFTER_PREDICTION",
    "ALL_EMPTY",
    "BEFORE_ENTRY",
    "INFINITE",
    "NOT_A_NUMBER",
    "NOT_A_TIME",
    "NO_ROW",
    "NO_TIME",
    "Fault",
    "Rows",
    "links",
    "no_match",
    "plan",
    "provenance",
    "timing_of",
]
