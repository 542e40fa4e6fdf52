"""Judge a group of runs: mean over seeds with their spread, or folds pooled."""

from __future__ import annotations

from typing import Any

from ..group import RunGroup
from .contenders import judged
from .metrics import with_interval
from .paired import paired


def judge_group(
    group: RunGroup,
    split: str,
    *,
    external: str | None = None,
    replicates: int = 1000,
    unit: str = "patient",
) -> dict[str, Any]:
    """Judge the stored predictions of all members together, and store the metrics.

    Args:
        group: Its members have predictions of the split.
        split: `val` or `test`, or `<split>@<cohort>` for stays of another cohort; in a
            cross-validation every stay is in each of them once.
        external: Name of the other cohort, for the record.
        replicates: Bootstrap resamples.
        unit: What is resampled, "patient" or "stay".

    Returns:
        task, split, external, kind, seeds, folds, n, positives, and by metric value (mean over
        seeds), low, high (mean over seeds inside each resample), sd and values (over seeds).

    Raises:
        DataError: Predictions are missing, or the members judged different stays.
    """
    data = paired([group], split)
    groups = data.subjects if unit == "patient" else None
    result: dict[str, Any] = {
        "task": group.members[0].config.task,
        "split": split,
        "external": external,
        "kind": group.kind,
        "seeds": [runs[0].config.seed for runs in group.replicates],
        "folds": group.members[0].config.folds,
        "n": len(data.y),
        "positives": int((data.y == 1).any(1).sum()),
    }
    found = judged(data.y, data.p[0], groups, replicates=replicates)
    for metric, one in found.items():
        result[metric] = {
            **with_interval(one.value, one.replicates),
            "sd": one.sd,
            "values": list(one.by_seed),
        }
    result["bootstrap"] = {"replicates": replicates, "unit": unit}
    group.write_metrics(split, result)
    return result


__all__ = ["judge_group"]
