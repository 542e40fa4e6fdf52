"""What is known of a stay when it begins: age, sex, kind of admission, unit, way to the unit.

Nothing that is known later stands here: no discharge place, no length of stay, no diagnosis code.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from ...cache.cohort import Cohort
from ...cache.store import EncodedShard, Space
from ..sources import Source
from ..work import Plan, Work

VERSION = 1
"""Raised whenever the same admission would give another vector."""
SHARD_ITEMS = 4096

# Group -> pattern of the words of the releases; the first that fits counts.
_ADMISSIONS: Mapping[str, str] = {
    "observation": r"OBSERV",
    "emergency": r"EMER",
    "urgent": r"URGENT",
    "elective": r"ELECTIVE|SURGICAL SAME DAY",
}
# A unit may be of two kinds: MICU/SICU is medical and surgical.
_UNITS: Mapping[str, str] = {
    "medical": r"\bMICU\b|\bMedical",
    "surgical": r"\bSICU\b|/SICU|\bSurgical",
    "coronary": r"\bCCU\b|\bCoronary",
    "cardiac_surgery": r"\bCSRU\b|\bCVICU\b|Cardiac Vascular",
    "trauma": r"\bTSICU\b|\bTrauma",
    "neuro": r"\bNeuro",
}
_NOT_ALSO_SURGICAL = re.compile(r"Trauma|TSICU|Neuro")
UNKNOWN = "unknown"

COLUMNS = (
    "age",
    "sex->female",
    *(f"admission->{name}" for name in _ADMISSIONS),
    *(f"unit->{name}" for name in _UNITS),
    "hours_before_icu",
    *(f"mask->{name}" for name in ("age", "sex", "admission", "unit", "hours_before_icu")),
)
"""Names of the values; where a mask is 0 the fact is not known and its values are 0."""


def plan(source: Source, cohort: Cohort) -> Plan:
    """Return the work of the modality `static`: one vector for every stay.

    Args:
        source: The data set.
        cohort: The stays.

    Raises:
        DataError: The table of admissions is missing or damaged.
    """
    values = facts(source, cohort)
    ids = cohort.stays["stay_id"].to_pylist()
    work = [
        Work(str(stay), hashlib.sha256(row.tobytes()).hexdigest(), place)
        for place, (stay, row) in enumerate(zip(ids, values, strict=True))
    ]
    links = pa.table(
        {
            "stay_id": cohort.stays["stay_id"],
            "items": pa.array([[item.item_id] for item in work], pa.list_(pa.string())),
            "has": pa.array([True] * len(work), pa.bool_()),
            "why_no": pa.array([None] * len(work), pa.string()),
        }
    )
    return Plan(
        space=Space("static", "vector", {"rules": VERSION}, COLUMNS),
        work=work,
        links=links,
        rules={"known": "at ICU entry"},
        provenance={
            "dataset": source.dataset,
            "tables": [source.table(table_name(source)).inventory()],
        },
        encode=_Encoder(values),
        shard_items=SHARD_ITEMS,
    )


def facts(source: Source, cohort: Cohort) -> npt.NDArray[np.float32]:
    """The facts of every stay in the order of the cohort, [N, len(COLUMNS)]."""
    admissions = source.admissions.select("hadm_id", "admittime").unique("hadm_id", keep="any")
    columns = ["stay_id", "hadm_id", "intime", "age", "sex", "unit"]
    table = pl.DataFrame(pl.from_arrow(cohort.stays.select(columns)))
    table = table.join(admissions, on="hadm_id", how="left", maintain_order="left")
    table = table.join(_types(source), on="hadm_id", how="left", maintain_order="left")
    hours = (pl.col("intime") - pl.col("admittime")).dt.total_microseconds() / 3.6e9
    values = np.zeros((table.height, len(COLUMNS)), np.float32)
    place = {name: column for column, name in enumerate(COLUMNS)}
    rows = table.select("age", "sex", "admission_type", "unit", hours.alias("hours")).iter_rows()
    for row, (age, sex, admission, unit, before) in zip(values, rows, strict=True):
        if age is not None:
            row[place["age"]], row[place["mask->age"]] = age, 1
        if sex in ("F", "M"):
            row[place["sex->female"]], row[place["mask->sex"]] = sex == "F", 1
        if admission is not None:
            row[place["mask->admission"]] = 1
            for name in admission_groups(admission):
                row[place[f"admission->{name}"]] = 1
        if unit != UNKNOWN:
            row[place["mask->unit"]] = 1
            for name in unit_groups(unit):
                row[place[f"unit->{name}"]] = 1
        if before is not None:
            row[place["hours_before_icu"]], row[place["mask->hours_before_icu"]] = before, 1
    return values


def admission_groups(word: str) -> tuple[str, ...]:
    """The group of a kind of admission as a release writes it; () for one of another kind."""
    found = (name for name, pattern in _ADMISSIONS.items() if re.search(pattern, word.upper()))
    return tuple(found)[:1]


def unit_groups(word: str) -> tuple[str, ...]:
    """The groups of a care unit as a release writes it; () for one of another kind."""
    found = [name for name, pattern in _UNITS.items() if re.search(pattern, word)]
    if _NOT_ALSO_SURGICAL.search(word):
        found = [name for name in found if name != "surgical"]
    return tuple(found)


def table_name(source: Source) -> str:
    """Name of the table of admissions in a release."""
    return "admissions" if source.dataset == "mimic3" else "hosp/admissions"


def _types(source: Source) -> pl.DataFrame:
    """hadm_id, admission_type; the type null where the table has no such column."""
    table = source.table(table_name(source))
    if not table.has("admission_type"):
        return pl.DataFrame(schema={"hadm_id": pl.Int64, "admission_type": pl.String})
    found = table.read({"hadm_id": "id", "admission_type": "text"})
    return found.unique("hadm_id", keep="any").sort("hadm_id")


class _Encoder:
    """Hands out rows of the facts of all stays, [N, D]."""

    def __init__(self, values: npt.NDArray[np.float32]) -> None:
        self._values = values

    def __call__(self, work: Sequence[Work]) -> EncodedShard:
        rows = np.array([item.payload for item in work], np.int64)
        return EncodedShard(
            item_ids=[item.item_id for item in work],
            source_hashes=[item.stamp for item in work],
            arrays={"values": self._values[rows]},
            facts={},
            rejects=[],
        )


__all__ = ["COLUMNS", "VERSION", "admission_groups", "facts", "plan", "table_name", "unit_groups"]
