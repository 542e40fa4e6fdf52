"""How many films and reports there are to encode, and how long that takes; none is opened."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from ..cache.cohort import Cohort
from ..errors import CM2Error
from .config import ExtractConfig
from .encoders import ENCODED, weights
from .estimate import Estimate
from .modalities import cxr, reports
from .modalities.linking import link, stays_of
from .selection import select
from .sources import Source
from .sources.mimic_cxr import films as listed_films
from .sources.mimic_cxr import reports as report_paths

# Measured on one core: a film of full size is read and encoded in about 0.1 s.
_ITEMS_PER_SECOND = {"cxr": 10.0, "report": 60.0}
_BYTES_PER_ITEM = {"cxr": 512 * 4.0, "report": 4 * (312 * 4 + 200 * 4.0)}
_SHARD_ITEMS = {"cxr": cxr.SHARD_ITEMS, "report": reports.SHARD_ITEMS}


def items(source: Source, config: ExtractConfig, modality: str) -> Estimate:
    """Estimate the modality `cxr` or `report` of the cohort, or of the stays it would have.

    Args:
        source: The data set; what is missing is reported, not raised.
        config: Window, weights, cohort.
        modality: cxr or report.
    """
    missing = []
    try:
        encoded = [name for name in config.modality if name in ENCODED]
        weights.choose(config.weights, modality, encoded, synthetic=source.synthetic)
    except CM2Error:
        missing.append(f"--weights {modality}=PATH")
    try:
        table = listed_films(source.root)
        linked = link(_stays(source, config), table, config.until_hours)
        linked = linked.drop_nulls("dicom_id")
        if modality == "report":
            linked = report_paths(source.root, linked)
        rows, paths = table.height, [Path(path) for path in linked["path"].unique()]
    except CM2Error as error:
        missing.append(str(error))
        rows, paths = 0, []
    there = [path for path in paths if path.is_file()]
    if len(there) < len(paths):
        missing.append(f"{len(paths) - len(there):,} of {len(paths):,} files")
    shards = -(-len(there) // _SHARD_ITEMS[modality])
    return Estimate(
        modality=modality,
        rows=rows,
        read_bytes=sum(path.stat().st_size for path in there),
        items=len(there),
        write_bytes=round(len(there) * _BYTES_PER_ITEM[modality]),
        files=2 * shards + 8,
        minutes=round(len(there) / _ITEMS_PER_SECOND[modality] / 60, 1),
        missing="; ".join(missing),
    )


def _stays(source: Source, config: ExtractConfig) -> pl.DataFrame:
    if Cohort.exists(config.cache, config.cohort):
        return stays_of(Cohort.open(config.cache, config.cohort))
    return select(source)[0].select("stay_id", "subject_id", "intime")


__all__ = ["items"]
