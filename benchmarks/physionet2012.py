"""Caches of real data for `cm2 reproduce methods`: PhysioNet 2012 (set A).

Vital signs and laboratory values of 4,000 intensive-care stays as two modalities, hospital death as
the task; as time series and as summary features.

    python -m benchmarks.physionet2012 --data FOLDER --cache C
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import numpy as np
import polars as pl

from cm2 import open_cache, write_cache

VITALS = "HR SysABP DiasABP MAP NISysABP NIDiasABP NIMAP RespRate Temp GCS Urine FiO2 MechVent SaO2"
LABS = (
    "ALP ALT AST Albumin BUN Bilirubin Cholesterol Creatinine Glucose HCO3 HCT K Lactate Mg Na "
    "PaCO2 PaO2 Platelets TroponinI TroponinT WBC pH"
)
STEP, HOURS = 2, 48
COMMAND = (
    "cm2 reproduce methods --cache {cache} --task death --modalities vitals,labs "
    "--drop labs=0.3,0.7 --drop labs=0.3:severity,0.7:severity --seeds 0:2 --epochs 20 "
    "--set hidden=64 --set fusion_hidden=64 --set lr=1e-3 --set patience=5"
)


def grids(table: pl.DataFrame, ids: list[int], names: list[str]) -> np.ndarray:
    """Means of each variable in steps of two hours, ``(stays, 24, variables)``, NaN if none."""
    steps = HOURS // STEP
    result = np.full((len(ids), steps, len(names)), np.nan, np.float32)
    part = table.filter(pl.col("parameter").is_in(names) & (pl.col("minute") < 60 * HOURS))
    part = part.group_by("record_id", pl.col("minute") // (60 * STEP), "parameter").agg(
        pl.col("value").mean()
    )
    row, column = ({v: i for i, v in enumerate(known)} for known in (ids, names))
    for record, step, name, value in part.iter_rows():
        if record in row:
            result[row[record], int(step), column[name]] = value
    return result


def summaries(grid: np.ndarray) -> np.ndarray:
    """Mean, smallest, largest and last value of each variable, ``(stays, 4 * variables)``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of variables that were never measured
        parts = [np.nanmean(grid, 1), np.nanmin(grid, 1), np.nanmax(grid, 1)]
    last = np.full(grid.shape[::2], np.nan, np.float32)
    for step in range(grid.shape[1]):
        last = np.where(np.isnan(grid[:, step]), last, grid[:, step])
    return np.concatenate([*parts, last], axis=1)


def build(data: Path, cache: Path, view: str) -> None:
    """Write the cache of one view unless it is there."""
    if (cache / "cohorts").is_dir():
        return
    table = pl.read_parquet(data / "set-a.parquet").filter(pl.col("value") >= 0)
    outcomes = pl.read_csv(data / "outcomes-a.csv").sort("RecordID")
    age = table.filter(pl.col("parameter") == "Age").select(
        stay_id=pl.col("record_id").cast(pl.Int64), age="value"
    )
    stays = outcomes.select(
        stay_id=pl.col("RecordID").cast(pl.Int64),
        subject_id=pl.col("RecordID").cast(pl.Int64),
        y_death=pl.col("In-hospital_death"),
    ).join(age.unique("stay_id"), on="stay_id", how="left")
    ids = stays["stay_id"].to_list()
    arrays = {}
    for name, variables in {"vitals": VITALS, "labs": LABS}.items():
        grid = grids(table, ids, variables.split())
        arrays[name] = grid if view == "series" else summaries(grid)
    write_cache(cache, stays, arrays)
    print({m: int(a.shape[1]) for m, a in arrays.items()}, len(open_cache(cache).stays), "stays")


def main() -> None:
    """Write the caches that are not there yet, and say which command trains on them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--views", default="series,summary")
    options = parser.parse_args()
    for view in options.views.split(","):
        build(options.data, options.cache / view, view)
        print(COMMAND.format(cache=options.cache / view))


if __name__ == "__main__":
    main()
