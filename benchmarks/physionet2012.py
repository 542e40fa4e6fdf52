"""What alignment, imputation and the rivals are worth on real data: PhysioNet 2012 (set A).

Vital signs and laboratory values of 4,000 intensive-care stays as two modalities, hospital death as
the task; as time series and as summary features; all laboratory values, or a share of them withheld
at random or from those at little risk. Every method has the same splits, budget and seeds, and is
compared with concatenation on the same test stays.

    python -m benchmarks.physionet2012 --data FOLDER --cache C --seeds 0:2
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import numpy as np
import polars as pl

from cm2 import open_cache, write_cache
from cm2.fuse.config import FuseConfig
from cm2.fuse.evaluation.compare import compare
from cm2.fuse.evaluation.evaluate import evaluate
from cm2.fuse.evaluation.layout import layout_rows
from cm2.fuse.group import RunGroup
from cm2.fuse.methods import find
from cm2.fuse.training.groups import fuse_group, parse_seeds

VITALS = "HR SysABP DiasABP MAP NISysABP NIDiasABP NIMAP RespRate Temp GCS Urine FiO2 MechVent SaO2"
LABS = (
    "ALP ALT AST Albumin BUN Bilirubin Cholesterol Creatinine Glucose HCO3 HCT K Lactate Mg Na "
    "PaCO2 PaO2 Platelets TroponinI TroponinT WBC pH"
)
STEP, HOURS = 2, 48
BUDGET = {
    "task": "death",
    "hidden": 64,
    "fusion_hidden": 64,
    "lr": 1e-3,
}
METHODS: dict[str, dict[str, object]] = {
    "vitals alone": {"model": "single", "modalities": ("vitals",)},
    "availability alone": {"model": "availability"},
    "concat": {"model": "concat"},
    "late fusion": {"model": "late"},
    "Unified": {"model": "unified"},
    "Unified, dynamic": {"model": "unified_dynamic"},
    "MedFuse": {"model": "medfuse"},
    "MMTM": {"model": "mmtm"},
    "DAFT": {"model": "daft"},
    "DrFuse": {"model": "drfuse"},
    "LSMT": {"model": "lsmt"},
    "Interleaved": {"model": "interleaved"},
    "ShaSpec": {"model": "shaspec"},
    "Flex-MoE": {"model": "flexmoe"},
    "cm2, no alignment": {"align": "none"},
    "cm2, cosine": {"align": "cosine"},
    "cm2, KL": {"align": "kl"},
    "cm2, InfoNCE": {"align": "infonce"},
    "cm2, copula 0.01": {},
    "cm2, copula 0.1": {"lambda_cop": 0.1},
    "cm2, copula, marginal draws": {"impute": "marginal"},
    "cm2, copula, conditional draws": {"impute": "conditional"},
}
WITHHELD: dict[str, tuple[str, ...]] = {
    "all labs": (),
    "half of the labs withheld at random": ("labs=0.5",),
    "half of the labs withheld by severity": ("labs=0.5:severity",),
    "30 % of the labs withheld at random": ("labs=0.3",),
    "30 % of the labs withheld by severity": ("labs=0.3:severity",),
    "70 % of the labs withheld at random": ("labs=0.7",),
    "70 % of the labs withheld by severity": ("labs=0.7:severity",),
}


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
    """Train what is not trained yet, judge, and print one table for each condition."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--seeds", default="0:2")
    parser.add_argument("--views", default="series,summary")
    parser.add_argument("--withheld", default=",".join(WITHHELD), help="conditions")
    parser.add_argument("--methods", default=";".join(METHODS), help="separated by semicolons")
    parser.add_argument("--epochs", type=int, default=20, help="at most; patience is five")
    parser.add_argument("--format", default="md")
    options = parser.parse_args()
    seeds = parse_seeds(options.seeds)
    for view in options.views.split(","):
        cache = options.cache / view
        build(options.data, cache, view)
        for title in options.withheld.split(","):
            drop, groups = WITHHELD[title], list[RunGroup]()
            names = options.methods.split(";")
            for name in names:
                method = METHODS[name]
                alone = "modalities" in method  # it reads no labs that could be withheld
                unread = find(str(method.get("model", "cm2"))).options.unread
                budget = {k: v for k, v in BUDGET.items() if k not in unread}
                budget |= {"epochs": options.epochs, "patience": min(5, options.epochs)}
                config = FuseConfig.of({**budget, **method, "drop": () if alone else drop})
                group = fuse_group(config, cache, seeds)
                evaluate(group, cache, "test")
                groups.append(group)
                epochs = [run.info["epochs"] for run in group.members]
                print(f"{view}, {title}, {name}: epochs {epochs}", flush=True)
            baseline = groups[names.index("concat")]
            rows = compare(groups, baseline, "test", metrics=("auroc", "aupr", "brier"))
            paths = {str(g.path): name for g, name in zip(groups, names, strict=True)}
            for row in rows:
                row["name"] = paths[row["run"]]
                row["baseline"] = "concat"
            print(f"\n### {view}, {title}\n\n{layout_rows(rows, options.format)}\n", flush=True)


if __name__ == "__main__":
    main()
