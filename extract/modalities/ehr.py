"""The series of a stay: cleaned measurements on a grid or at their own times, not normalised."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from ...cache.cohort import Cohort
from ...cache.store import EncodedShard, Space
from ..config import ExtractConfig
from ..sources import Source
from ..sources.catalogue import Catalogue
from ..work import Plan, Work
from . import events
from .grid import Placed, columns_of, names, place
from .plausibility import plausibility

SHARD_ITEMS = 2048
OWN_TIMES_SHARD_ITEMS = 256
PLAUSIBLE_STEP_HOURS = 2.0
NO_MEASUREMENT = "no_measurement"
"""Reason code: none of the variables was measured before the end of the series."""


def space(config: ExtractConfig, catalogue: Catalogue) -> Space:
    """Return what makes two series comparable: preset, step and end of the grid, the variables."""
    return Space(
        modality="ehr",
        view="series",
        parts={
            "preset": catalogue.preset,
            "step_hours": float(config.step_hours),
            "until_hours": float(config.until_hours),
            "rules": events.RULES_VERSION,
            "normal": {variable.name: variable.normal for variable in catalogue.variables},
            **({"variables": catalogue.own} if catalogue.own else {}),
        },
        columns=names(catalogue.columns(), config.step_hours),
    )


def plan(source: Source, cohort: Cohort, config: ExtractConfig, catalogue: Catalogue) -> Plan:
    """Return the work of the modality `ehr`: one series per stay with any measurement.

    Args:
        source: The data set; its chart tables are read unless the cache holds their measurements.
        cohort: Stays, one series each.
        config: Grid.
        catalogue: Item map and variables.

    Raises:
        DataError: A table is missing or damaged.
        SchemaError: A column is missing or unreadable.
    """
    stays = pl.DataFrame(
        pl.from_arrow(
            cohort.stays.select(["stay_id", "subject_id", "hadm_id", "intime", "outtime"])
        )
    )
    found = events.load(source, stays, config.cache, catalogue)
    provenance = {"dataset": source.dataset, "tables": events.provenance(source)}
    return plan_of(found, stays["stay_id"].to_list(), config, catalogue, provenance)


def plan_of(
    found: pl.DataFrame,
    stays: list[int],
    config: ExtractConfig,
    catalogue: Catalogue,
    provenance: Mapping[str, object],
) -> Plan:
    """Return the work of series whose measurements are at hand.

    Args:
        found: stay_id, hours, variable, value; one row per stay, time and variable, sorted.
        stays: Every stay of the cohort.
        config: Grid.
        catalogue: The variables.
        provenance: Where the measurements come from, for the record.
    """
    found = found.filter(pl.col("hours") <= config.until_hours)
    stay_ids = np.sort(np.asarray(stays, dtype=np.int64))
    stamps = _stamps(found)
    counts = dict(found.group_by("stay_id").len().iter_rows())
    work = [
        Work(str(stay), stamps[stay], stay, {"measurements": counts[stay]})
        for stay in stay_ids.tolist()
        if stay in stamps
    ]
    step, until, width = config.step_hours, config.until_hours, len(catalogue.variables)
    grid = place(found, stay_ids, step or PLAUSIBLE_STEP_HOURS, until, width)
    seen = plausibility(found, grid.cells, catalogue)
    encode: Callable[[Sequence[Work]], EncodedShard] = (
        _GridEncoder(grid, stay_ids, catalogue)
        if step
        else _OwnTimesEncoder(found, until, catalogue)
    )
    return Plan(
        space=space(config, catalogue),
        work=work,
        links=_links(stays, set(stamps)),
        rules={"one_series_per_stay": True, "until_hours": float(config.until_hours)},
        provenance={**provenance, "plausibility": seen},
        encode=encode,
        shard_items=SHARD_ITEMS if step else OWN_TIMES_SHARD_ITEMS,
        plausibility=seen,
    )


class _GridEncoder:
    """Turns stays into a shard; holds the cells of all stays."""

    def __init__(self, grid: Placed, stay_ids: npt.NDArray[np.int64], catalogue: Catalogue) -> None:
        self._grid, self._stay_ids, self._catalogue = grid, stay_ids, catalogue

    def __call__(self, work: Sequence[Work]) -> EncodedShard:
        rows = np.searchsorted(self._stay_ids, [item.payload for item in work])
        mine = Placed(self._grid.cells[rows], self._grid.mask[rows], None)
        return _shard(work, {"values": columns_of(mine, self._catalogue)})


class _OwnTimesEncoder:
    """Turns stays into a shard as long as its longest series; holds the measurements of all."""

    def __init__(self, found: pl.DataFrame, until_hours: float, catalogue: Catalogue) -> None:
        self._found, self._until_hours, self._catalogue = found, until_hours, catalogue

    def __call__(self, work: Sequence[Work]) -> EncodedShard:
        stays = np.array([item.payload for item in work], dtype=np.int64)
        order = np.argsort(stays)
        mine = self._found.filter(pl.col("stay_id").is_in(stays))
        width = len(self._catalogue.variables)
        placed = place(mine, stays[order], 0.0, self._until_hours, width)
        back = np.argsort(order)
        values = columns_of(placed, self._catalogue)[back]
        return _shard(work, {"values": values, "mask": placed.mask[back]})


def _shard(work: Sequence[Work], arrays: dict[str, npt.NDArray[np.generic]]) -> EncodedShard:
    return EncodedShard(
        item_ids=[item.item_id for item in work],
        source_hashes=[item.stamp for item in work],
        arrays=arrays,
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
