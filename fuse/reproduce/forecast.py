"""What a plan would cost: runs, those that are finished, and minutes, measured on some stays."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...cache.layout import RUNS
from ...errors import CM2Error
from ..config import FuseConfig
from ..identity import identify
from ..rundir import RunDir
from .expand import Plan
from .train import runs_of

_SAME_COST = {
    *("seed", "drop", "drop_train", "task"),
    *("lr", "lr_copula", "weight_decay", "dropout", "lambda_cop"),
}


def forecast(plan: Plan, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Say what every line would take, without training it.

    Args:
        plan: What would be trained.
        seeds: Seeds of every line.

    Returns:
        By line: data, task, setting, method, mode, tries, runs, finished, seconds per epoch (a few
        epochs on some stays, timed here), minutes (of what is not finished, at most: every epoch
        of every run), or the reason why it cannot be trained.
    """
    known: dict[str, float] = {}
    rows = []
    for room in plan.rooms:
        for entry in room.entries:
            runs = runs_of(entry, seeds)
            row: dict[str, Any] = {
                "data": room.dataset,
                "task": room.task,
                "setting": room.setting.title,
                "method": entry.line.title,
                "mode": entry.tries[0].mode,
                "tries": len(entry.tries),
                "runs": len(runs),
            }
            try:
                left = [config for config in runs if not _finished(config, room.cache)]
                seconds = _seconds(entry.tries[0], room.cache, known)
                row["finished"] = len(runs) - len(left)
                row["s/epoch"] = round(seconds, 3)
                row["minutes at most"] = round(
                    sum(seconds * config.passes for config in left) / 60, 2
                )
            except CM2Error as error:
                row["cannot be trained"] = str(error)
            rows.append(row)
    return rows


def hours(rows: Sequence[dict[str, Any]]) -> float:
    """Add the minutes of a forecast up."""
    return float(sum(row.get("minutes at most", 0.0) for row in rows)) / 60


def _finished(config: FuseConfig, cache: Path) -> bool:
    return RunDir(cache / RUNS / identify(config, cache).name).finished


def _seconds(config: FuseConfig, cache: Path, known: dict[str, float]) -> float:
    from ..data import load
    from ..training.estimate import SAMPLE, seconds_per_epoch
    from ..training.trainer import STREAMED_SAMPLE

    shape = config.model_dump(mode="json", exclude=_SAME_COST)
    told = json.dumps([str(cache), shape], sort_keys=True)
    if told not in known:
        identity = identify(config, cache)
        known[told] = seconds_per_epoch(
            identity,
            load(cache, identity.config, identity.cohort),
            STREAMED_SAMPLE if config.mode == "stream" else SAMPLE,
        )
    return known[told]


__all__ = ["forecast", "hours"]
