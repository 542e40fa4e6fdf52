"""The series of a stay: cleaned measurements of 17 variables on a regular grid, not normalised."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from ...cache.cohort import Cohort
from ...cache.store import EncodedShard, Space
from ..config import ExtractConfig
from ..sources import Source
from ..sources.catalogue import Preset, columns, variables
from ..work import Plan, Work
from . import events
from .grid import columns_of, last_in_bin
from .plausibility import plausibility

SHARD_ITEMS = 2048
NO_MEASUREMENT = "no_measurement"
"""Reason code: none of the variables was measured before the end of the series."""


def space(config: ExtractConfig) -> Space:
    """Return what makes two series comparable: preset, step and end of the grid, the variables."""
    return Space(
        modality="ehr",
        view="series",
        parts={
            "preset": config.preset,
            "step_hours": float(config.step_hours),
            "until_hours": float(config.until_hours),
            "rules": events.RULES_VERSION,
            "normal": {variable.name: variable.normal for variable in variables()},
        },
        columns=columns(config.preset),
    )


def plan(source: Source, cohort: Cohort, config: ExtractConfig) -> Plan:
    """Return the work of the modality `ehr`: one series per stay with any measurement.

    Args:
        source: The data set; its chart tables are read unless the cache holds their measurements.
        cohort: Stays, one series each.
        config: Preset and grid.

    Raises:
        DataError: A table is missing or damaged.
        SchemaError: A column is missing or unreadable.
    """
    stays = pl.DataFrame(
        pl.from_arrow(
            cohort.stays.select(["stay_id", "subject_id", "hadm_id", "intime", "outtime"])
        )
    )
    found = events.load(source, stays, config.cache, config.preset)
    provenance = {"dataset": source.dataset, "tables": events.provenance(source)}
    return plan_of(found, stays["stay_id"].to_list(), config, provenance)


def plan_of(
    found: pl.DataFrame, stays: list[int], config: ExtractConfig, provenance: Mapping[str, object]
) -> Plan:
    """Return the work of series whose measurements are at hand.

    Args:
        found: stay_id, hours, variable, value; one row per stay, time and variable, sorted.
        stays: Every stay of the cohort.
        config: Preset and grid.
        provenance: Where the measurements come from, for the record.
    """
    found = found.filter(pl.col("hours") <= config.until_hours)
    stay_ids = np.sort(np.asarray(stays, dtype=np.int64))
    cells = last_in_bin(found, stay_ids, config.step_hours, config.until_hours)
    stamps = _stamps(found)
    counts = dict(found.group_by("stay_id").len().iter_rows())
    work = [
        Work(str(stay), stamps[stay], row, {"measurements": counts[stay]})
        for row, stay in enumerate(stay_ids.tolist())
        if stay in stamps
    ]
    seen = plausibility(found, cells, config.preset)
    return Plan(
        space=space(config),
        work=work,
        links=_links(stays, set(stamps)),
        rules={"one_series_per_stay": True, "until_hours": float(config.until_hours)},
        provenance={**provenance, "plausibility": seen},
        encode=_Encoder(cells, config.preset),
        shard_items=SHARD_ITEMS,
        plausibility=seen,
    )


class _Encoder:
    """Turns rows of the grid into a shard; holds the cells of all stays, ``[N, T, 17]``."""

    def __init__(self, cells: npt.NDArray[np.float32], preset: Preset) -> None:
        self._cells = cells
        self._preset = preset

    def __call__(self, work: Sequence[Work]) -> EncodedShard:
        rows = np.array([item.payload for item in work], dtype=np.int64)
        return EncodedShard(
            item_ids=[item.item_id for item in work],
            source_hashes=[item.stamp for item in work],
            arrays={"values": columns_of(self._cells[rows], self._preset)},
            facts={"measurements": [item.facts["measurements"] for item in work]},
            rejects=[],
        )


def _stamps(found: pl.DataFrame) -> dict[int, str]:
    """Return a hash of the measurements of each stay."""
    ids = found["stay_id"].to_numpy()
    stays, starts = np.unique(ids, return_index=True)
    ends = np.append(starts[1:], len(ids))
    parts = [
        np.ascontiguousarray(found[column].to_numpy(), dtype=dtype)
        for column, dtype in (("hours", "<f8"), ("variable", "u1"), ("value", "<f8"))
    ]
    stamps: dict[int, str] = {}
    for stay, start, end in zip(stays.tolist(), starts.tolist(), ends.tolist(), strict=True):
        digest = hashlib.sha256()
        for part in parts:
            digest.update(part[start:end].tobytes())
        stamps[stay] = digest.hexdigest()
    return stamps


def _links(stay_ids: list[int], present: set[int]) -> pa.Table:
    has = [stay in present for stay in stay_ids]
    return pa.table(
        {
            "stay_id": pa.array(stay_ids, pa.int64()),
            "items": pa.array(
                [[str(stay)] if there else [] for stay, there in zip(stay_ids, has, strict=True)],
                pa.list_(pa.string()),
            ),
            "has": pa.array(has, pa.bool_()),
            "why_no": pa.array([None if there else NO_MEASUREMENT for there in has], pa.string()),
        }
    )


__all__ = ["NO_MEASUREMENT", "SHARD_ITEMS", "plan", "plan_of", "space"]
