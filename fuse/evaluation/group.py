"""Judge a group of runs: mean over seeds with their spread, or folds pooled."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from ...errors import DataError
from ..group import RunGroup
from .contenders import judged
from .metrics import with_interval
from .targets import matrix, target_names


def judge_group(
    group: RunGroup, split: str, *, replicates: int = 1000, unit: str = "patient"
) -> dict[str, Any]:
    """Judge the stored predictions of all members together, and store the metrics.

    Args:
        group: Its members have predictions of the split.
        split: `val` or `test`; in a cross-validation every stay is in each of them once.
        replicates: Bootstrap resamples.
        unit: What is resampled, "patient" or "stay".

    Returns:
        task, split, kind, seeds, folds, n, positives, and by metric value (mean over seeds), low,
        high (mean over seeds inside each resample), sd and values (over seeds).

    Raises:
        DataError: Predictions are missing, or the members judged different stays.
    """
    tables = group.predictions(split)
    names = target_names(tables[0])
    y, first, subjects = matrix(tables[0], names)
    p = [first] + [aligned(table, tables[0], names) for table in tables[1:]]
    known = ~np.isnan(y).all(1)
    groups = subjects[known] if unit == "patient" else None
    result: dict[str, Any] = {
        "task": group.members[0].config.task,
        "split": split,
        "kind": group.kind,
        "seeds": [runs[0].config.seed for runs in group.replicates],
        "folds": group.members[0].config.folds,
        "n": int(known.sum()),
        "positives": int((y == 1).any(1).sum()),
    }
    found = judged(y[known], [one[known] for one in p], groups, replicates=replicates)
    for metric, one in found.items():
        result[metric] = {
            **with_interval(one.value, one.replicates),
            "sd": one.sd,
            "values": list(one.by_seed),
        }
    result["bootstrap"] = {"replicates": replicates, "unit": unit}
    group.write_metrics(split, result)
    return result


def aligned(table: pa.Table, reference: pa.Table, names: list[str]) -> Any:
    """Probabilities of a table in the order of another one's stays, ``(n, C)``.

    Raises:
        DataError: They do not hold the same stays.
    """
    ours, theirs = (list(dict.fromkeys(t["stay_id"].to_pylist())) for t in (table, reference))
    if set(ours) != set(theirs):
        raise DataError(
            f"The members of a group judged different stays: {len(ours)} and {len(theirs)}, "
            f"{len(set(ours) & set(theirs))} in common. Train and judge the group again."
        )
    place = {stay: i for i, stay in enumerate(ours)}
    return matrix(table, names)[1][[place[stay] for stay in theirs]]


__all__ = ["aligned", "judge_group"]
