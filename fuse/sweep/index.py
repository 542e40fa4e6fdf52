"""What the runs of a sweep have come to: one row per run, and the settings by rank.

Everything is read from the runs, so it can be made anew at any time.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ...cache import atomic
from ..rundir import INFO, RunDir
from ..training.history import SCORES, best_epoch
from .axis import shown
from .book import INDEX, Roll, SweepDir

Row = dict[str, Any]


def read_run(run: RunDir, until: int | None = None) -> Row:
    """Say what one run has come to.

    Args:
        run: The run, perhaps not begun.
        until: Judge it by its first so many epochs only.

    Returns:
        status (waiting, running, stopped, finished), val_auroc, val_aupr and val_loss of its best
        epoch, best_epoch, epochs, seconds, weights (whether they are kept). Of a finished run a
        part of which is fitted to validation, AUROC and AUPR are the cross-fitted ones.
    """
    row: Row = {"status": "waiting", **dict.fromkeys(SCORES), "best_epoch": 0, "epochs": 0}
    row |= {"seconds": 0.0, "weights": False}
    if not (run.path / INFO).is_file():
        return row
    info = run.info
    row |= {"status": info["status"], "seconds": float(info.get("seconds", 0.0))}
    row["weights"] = row["status"] == "finished" and info.get("weights") != "dropped"
    if row["status"] == "finished" and until is None and "best" in info:
        row |= info["best"] | {name: int(info[name]) for name in ("best_epoch", "epochs")}
        return row
    history = run.history[:until]
    best = best_epoch(history, run.config.warmup) if history else 0
    row |= {"best_epoch": best, "epochs": len(history)}
    if best:
        row |= {name: history[best - 1][name] for name in SCORES}
    return row


def rows(sweep: SweepDir, roll: Roll | None = None) -> list[Row]:
    """Say what every run has come to, in the order of the sweep.

    What the sweep gave up is stopped to it, even where another goes on with the run.
    """
    roll = roll or sweep.roll()
    failures, given_up = sweep.failures(), sweep.given_up()
    found = []
    for member in roll.members:
        row = {"setting": member.setting, **roll.values[member.setting]}
        row |= {"seed": member.seed, "fold": member.fold, "run": member.run.path.name}
        row |= read_run(member.run)
        row["error"] = failures.get(member.run.path.name)
        if row["error"] is not None and row["status"] != "finished":
            row["status"] = "failed"
        elif row["run"] in given_up and row["status"] != "finished":
            row["status"] = "stopped"
        found.append(row)
    return found


def write_index(sweep: SweepDir, found: Sequence[Row]) -> pa.Table:
    """Store the rows as `index.parquet`; values of an option that differ in kind become text."""
    columns: dict[str, Any] = {}
    for name in dict.fromkeys(key for row in found for key in row):
        values = [row.get(name) for row in found]
        kinds = {type(value) for value in values if value is not None}
        plain = len(kinds) <= 1 and kinds <= {str, int, float, bool}
        kind = pa.string() if name == "error" or not kinds else None
        if name in SCORES:
            kind = pa.float64()
        columns[name] = pa.array(
            values if plain else [None if v is None else shown(v) for v in values], kind
        )
    table = pa.table(columns)
    atomic.write_parquet(sweep.path / INDEX, table)
    return table


@dataclass(frozen=True)
class Standing:
    """One setting among the others.

    Attributes:
        setting: Its number.
        score: What it is ranked by: mean over its runs of the validation AUROC, or of the
            negative loss where that is undefined.
        scores: The same of each run.
        complete: Whether every run of it is there.
    """

    setting: int
    score: float
    scores: tuple[float, ...]
    complete: bool


def score(row: Row) -> float | None:
    """What a run is ranked by; None if it has no epoch that could be chosen."""
    if row["val_loss"] is None:
        return None
    return float(row["val_auroc"] if row["val_auroc"] is not None else -row["val_loss"])


def ranking(found: Sequence[Row], finished: bool = True) -> list[Standing]:
    """Order settings by their score, best first; ties by their order in the sweep.

    A setting one of whose runs failed has no rank: the mean over the lucky ones would flatter it.

    Args:
        found: Rows of runs.
        finished: Count finished runs only.
    """
    by_setting: dict[int, list[Row]] = {}
    for row in found:
        by_setting.setdefault(row["setting"], []).append(row)
    result = []
    for setting, part in by_setting.items():
        there = [r for r in part if r["status"] == "finished" or not finished]
        values = [value for r in there if (value := score(r)) is not None]
        if values and not any(r["status"] == "failed" for r in part):
            mean = statistics.fmean(values)
            result.append(Standing(setting, mean, tuple(values), len(values) == len(part)))
    return sorted(result, key=lambda one: (-one.score, one.setting))


__all__ = ["Row", "Standing", "ranking", "read_run", "rows", "score", "write_index"]
