"""Models against a baseline on the same stays: paired bootstrap, DeLong, Holm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...errors import ConfigError
from ..config import unknown
from .bootstrap import METRICS
from .contenders import judged
from .metrics import delong, holm, with_interval
from .paired import Contender, labels, paired

SPLITS = ("val", "test", "all")
"""What is judged; `<split>@<cohort>` are the stays of another cohort."""


def compare(
    models: Sequence[Contender],
    baseline: Contender,
    split: str = "test",
    *,
    metrics: Sequence[str] = ("auroc", "aupr"),
    replicates: int = 1000,
) -> list[dict[str, Any]]:
    """Judge models and their differences from a baseline on the stays that all have.

    Differences are model minus baseline. Patients are resampled, the same for every model; a
    group's metric is the mean over its seeds inside each resample, and folds count as one
    prediction per stay. A task of several labels is judged by the mean over them. Holm's family is
    every comparison returned: all models but the baseline times all metrics.

    Args:
        models: Judged runs, groups, or predictions from outside; the baseline may be among them.
        baseline: What they are compared with; a run or a group.
        split: Which stored predictions are read.
        metrics: Names out of `METRICS`; the first one is the primary.
        replicates: Bootstrap resamples.

    Returns:
        One row for each model and metric: run, name, baseline, split, metric, n, positives, seeds,
        value, low, high, sd (over seeds), and for all but the baseline difference,
        difference_low, difference_high, p_bootstrap, p_delong (AUROC of one target and one seed,
        stays of a patient clustered), p_holm (of p_bootstrap), comparisons (size of the family).

    Raises:
        ConfigError: An unknown split or metric, or runs of different tasks.
        DataError: Predictions are missing, no stay is common, or targets differ.
    """
    if split.partition("@")[0] not in SPLITS:
        raise ConfigError(unknown("split", split, SPLITS))
    for name in metrics:
        if name not in METRICS:
            raise ConfigError(unknown("metric", name, METRICS))
    own = baseline.path.resolve()
    order = [*(model for model in models if model.path.resolve() != own), baseline]
    data = paired([baseline, *order[:-1]], split)
    p = [*data.p[1:], data.p[0]]
    names = labels(order)
    found = [judged(data.y, one, data.subjects, replicates=replicates) for one in p]
    rows = []
    for metric in metrics:
        last = found[-1][metric]
        for i, model in enumerate(order):
            one = found[i][metric]
            row: dict[str, Any] = {
                "run": str(model.path),
                "name": names[i],
                "baseline": names[-1],
                "split": split,
                "metric": metric,
                "n": len(data.y),
                "positives": int((data.y == 1).any(1).sum()),
                "seeds": len(p[i]),
                **with_interval(one.value, one.replicates),
                "sd": one.sd,
            }
            if i < len(order) - 1:
                difference = one.difference(last)
                plain = metric == "auroc" and data.y.shape[1] == len(p[i]) == len(p[-1]) == 1
                test = (
                    delong(data.y[:, 0], p[i][0][:, 0], p[-1][0][:, 0], data.subjects)
                    if plain
                    else None
                )
                row |= {
                    "difference": difference.value,
                    "difference_low": difference.low,
                    "difference_high": difference.high,
                    "p_bootstrap": difference.p,
                    "p_delong": None if test is None else test.p,
                }
            rows.append(row)
    compared = [row for row in rows if "difference" in row]
    for row, adjusted in zip(compared, holm([r["p_bootstrap"] for r in compared]), strict=True):
        row |= {"p_holm": adjusted, "comparisons": len(compared)}
    return rows


__all__ = ["compare"]
