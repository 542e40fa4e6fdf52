"""A plan over rows in memory: one vector or series per stay, known by its content."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ...cache.cohort import Cohort
from ...cache.store import EncodedShard, Reject, Space
from ...errors import DataError
from ..work import Plan, Work
from .spec import OwnFile

SHARD_BYTES = 64 << 20
NO_ROW = "no_row"
ALL_EMPTY = "all_empty"
AFTER_PREDICTION = "after_prediction_time"
"""Reason codes: the file does not name the stay; names it without a value; only names it later."""


@dataclass(frozen=True)
class Rows:
    """What a file holds of the stays that it names.

    Args:
        stays: Text of the stay_id of each of n rows.
        values: float32 [n, D] or [n, T, D], finite where not rejected.
        mask: Real steps, bool [n, T]; None for vectors.
        rejects: Row -> class and message of what is wrong with it.
        absent: stay_id -> reason code, of stays that have nothing.
        ignored: Rows of the file that belong to no stay of the cohort.
    """

    stays: Sequence[str]
    values: npt.NDArray[np.float32]
    mask: npt.NDArray[np.bool_] | None
    rejects: Mapping[int, tuple[str, str]]
    absent: Mapping[str, str]
    ignored: int

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
            digest.update(rows.rejects[row][0].encode())
        stamp = digest.hexdigest()
        items[stay] = [f"{stay}:{stamp[:16]}"]
        work.append(Work(items[stay][0], stamp, row))
    row_bytes = max(1, rows.values[:1].nbytes)
    return Plan(
        space=space,
        work=work,
        links=links(cohort, items, rows.absent),
        rules={**rules, "prediction_time": timing},
        provenance={"file": spec.file.name, "rows_of_no_stay": rows.ignored},
        encode=_Encoder(rows),
        shard_items=max(1, min(4096, SHARD_BYTES // row_bytes)),
        timing=timing,
    )


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
    return DataError(
        f"{spec.file}: none of its {ignored} rows that remain after the filters belongs to one of "
        f"the {cohort.stays.num_rows} stays of the cohort {cohort.name!r} (whose first stay_id is "
        f"{first}). Does the column {spec.id!r} hold the stay_id?"
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
                Reject(item.item_id, "nonfinite", *rejects[item.payload])
                for item in work
                if item.payload in rejects
            ],
        )


__all__ = ["AFTER_PREDICTION", "ALL_EMPTY", "NO_ROW", "Rows", "links", "no_match", "plan"]
