"""Judge the setting that a sweep chooses on the test stays, and no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...cache.fingerprint import fingerprint
from ...errors import ConfigError
from ...progress import Progress, Stop, never, silent
from ..group import RunGroup
from .book import CHOSEN, SweepDir
from .index import ranking, rows

_ENDED = ("finished", "stopped", "failed")


def judge_chosen(
    sweep: SweepDir,
    *,
    device: str = "auto",
    replicates: int = 1000,
    progress: Progress = silent,
    stop: Stop | None = None,
) -> tuple[RunGroup, dict[str, Any]]:
    """Make the best setting by validation a group of runs, and judge it on the test stays.

    Its runs become runs like any other: no sweep drops their weights. Those whose weights another
    sweep has dropped are trained again first. Every look is counted in run.json.

    Args:
        sweep: A sweep that has ended.
        device: Where a run is trained again.
        replicates: Bootstrap resamples.
        progress: Counts epochs of runs that are trained again.
        stop: Asked after each of them.

    Returns:
        The group, and its metrics on the test stays.

    Raises:
        ConfigError: Runs are missing, so that nothing can be chosen yet.
    """
    from ..evaluation.evaluate import evaluate
    from ..evaluation.group import judge_group
    from ..training.trainer import fuse

    roll = sweep.roll()
    found = rows(sweep, roll)
    left = sum(row["status"] not in _ENDED for row in found)
    complete = [one for one in ranking(found) if one.complete]
    if left or not complete:
        raise ConfigError(
            f"{left} of {len(found)} runs of {sweep.path} are not finished and {len(complete)} "
            "settings are complete: nothing can be chosen yet. Give its `cm2 sweep` command again."
        )
    members = roll.of(complete[0].setting)
    cache = cache_of(sweep)
    runs = [
        fuse(
            m.run.config, cache, m.run.path, device=device, progress=progress, stop=stop or never()
        )
        for m in members
    ]
    folds = runs[0].config.folds
    pooled = folds > 0 and len({member.fold for member in members}) == folds
    content = {
        "identity": fingerprint([run.info["identity"] for run in runs]),
        "kind": "folds" if pooled else "seeds",
        "folds": folds,
        "sweep": sweep.identity,
        "tries": len(roll.values),
    }
    group = RunGroup.write(sweep.path / CHOSEN, {run.path: run.config for run in runs}, content)
    judge_group(group, "val", replicates=replicates)
    return group, evaluate(group, cache, "test", replicates=replicates)


def cache_of(sweep: SweepDir) -> Path:
    """The cache in which the runs of a sweep lie."""
    return sweep.roll().members[0].run.path.parents[1]


__all__ = ["cache_of", "judge_chosen"]
