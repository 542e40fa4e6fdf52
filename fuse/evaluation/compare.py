"""Runs against a baseline on the same stays: paired bootstrap, DeLong, Holm."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import ConfigError, DataError
from ..config import unknown
from ..identity import modality_names
from ..rundir import RunDir
from .bootstrap import METRICS, bootstrap
from .layout import layout_rows
from .metrics import POINTS, delong, holm, paired_bootstrap, with_interval

_log = logging.getLogger("cm2.fuse.evaluation")


@dataclass(frozen=True)
class Aligned:
    """Predictions of several runs for the stays that all of them have.

    Args:
        y: Labels, ``(n,)``.
        subjects: Patient of each stay, ``(n,)``.
        p: Probabilities by run, each ``(n,)``.
        left_out: By run, how many judged stays the others lack.
    """

    y: NDArray[np.int64]
    subjects: NDArray[Any]
    p: list[NDArray[np.float64]]
    left_out: list[int]


def compare(
    runs: Sequence[RunDir],
    baseline: RunDir,
    split: str = "test",
    *,
    metrics: Sequence[str] = ("auroc", "aupr"),
    replicates: int = 1000,
) -> list[dict[str, Any]]:
    """Judge runs and their differences from a baseline on the stays that all have.

    Differences are run minus baseline. Patients are resampled, the same for every run. Holm's
    family is every comparison returned: all runs but the baseline times all metrics.

    Args:
        runs: Judged runs of one task; the baseline may be among them.
        baseline: What they are compared with.
        split: Which stored predictions are read.
        metrics: Names out of `METRICS`; the first one is the primary.
        replicates: Bootstrap resamples.

    Returns:
        One row for each run and metric: run, name, baseline, split, metric, n, positives, value,
        low, high, and for all but the baseline difference, difference_low, difference_high,
        p_bootstrap, p_delong (AUROC only, stays of a patient clustered), p_holm (of p_bootstrap),
        comparisons (size of the family).

    Raises:
        ConfigError: An unknown metric, or runs of different tasks.
        DataError: Predictions are missing, no stay is common, or targets differ.
    """
    for name in metrics:
        if name not in METRICS:
            raise ConfigError(unknown("metric", name, METRICS))
    order = [*(run for run in runs if run.path != baseline.path), baseline]
    names = labels(order)
    data = aligned(order, split)
    drawn = bootstrap(data.y, data.p, data.subjects, replicates=replicates)
    one_class = data.y.sum() in (0, len(data.y))
    rows = []
    for metric in metrics:
        values = [
            None if one_class and metric in ("auroc", "aupr") else POINTS[metric](data.y, p)
            for p in data.p
        ]
        for i, run in enumerate(order):
            row: dict[str, Any] = {
                "run": str(run.path),
                "name": names[i],
                "baseline": names[-1],
                "split": split,
                "metric": metric,
                "n": len(data.y),
                "positives": int(data.y.sum()),
                **with_interval(values[i], drawn[i].values[metric]),
            }
            if i < len(order) - 1:
                gap = values[i] - values[-1] if values[i] is not None else None  # type: ignore[operator]
                found = paired_bootstrap(drawn[i].values[metric], drawn[-1].values[metric], gap)
                test = (
                    delong(data.y, data.p[i], data.p[-1], data.subjects)
                    if metric == "auroc"
                    else None
                )
                row |= {
                    "difference": found.value,
                    "difference_low": found.low,
                    "difference_high": found.high,
                    "p_bootstrap": found.p,
                    "p_delong": None if test is None else test.p,
                }
            rows.append(row)
    compared = [row for row in rows if "difference" in row]
    for row, p in zip(compared, holm([row["p_bootstrap"] for row in compared]), strict=True):
        row |= {"p_holm": p, "comparisons": len(compared)}
    return rows


def aligned(runs: Sequence[RunDir], split: str) -> Aligned:
    """Read the predictions of several runs for the stays that all of them judged.

    Args:
        runs: At least one run.
        split: Which stored predictions.

    Raises:
        ConfigError: The runs have different tasks.
        DataError: Predictions are missing, no stay is common, or target or patient of a stay
            differs between runs.
    """
    tasks = sorted({run.config.task for run in runs})
    if len(tasks) > 1:
        raise ConfigError(f"Runs of different tasks cannot be compared: {', '.join(tasks)}.")
    tables = []
    for run in runs:
        table = run.predictions(split)
        columns = (table[name].to_pylist() for name in ("stay_id", "y", "p", "subject_id"))
        tables.append({row[0]: row[1:] for row in zip(*columns, strict=True) if row[1] is not None})
    common = sorted(set.intersection(*(set(table) for table in tables)))
    left_out = [len(table) - len(common) for table in tables]
    if not common:
        raise DataError(
            f"The runs share no judged {split} stay: "
            + ", ".join(f"{run.path} has {len(t)}" for run, t in zip(runs, tables, strict=True))
            + ". Compare runs of one cohort."
        )
    for run, table in zip(runs, tables, strict=True):
        apart = sum(
            table[i][0] != tables[0][i][0] or table[i][2] != tables[0][i][2] for i in common
        )
        if apart:
            raise DataError(
                f"{apart} of {len(common)} common stays have another target or patient in "
                f"{run.path} than in {runs[0].path}. Compare runs of one cohort and its labels."
            )
    if any(left_out):
        _log.warning(
            f"Compared on the {len(common)} {split} stays that all runs have; left out: "
            + ", ".join(f"{n} of {run.path.name}" for run, n in zip(runs, left_out, strict=True))
        )
    rows = [tables[0][i] for i in common]
    return Aligned(
        np.array([row[0] for row in rows], np.int64),
        np.array([row[2] for row in rows]),
        [np.array([table[i][1] for i in common]) for table in tables],
        left_out,
    )


def labels(runs: Sequence[RunDir]) -> list[str]:
    """Name runs for people: the model, and whatever else of the configuration tells them apart."""
    names = [_base(run) for run in runs]
    configs = [run.config.model_dump() for run in runs]
    for i, name in enumerate(list(names)):
        twins = [j for j, other in enumerate(runs) if _base(other) == name]
        parts = [
            f"{key} {value}"
            for key, value in configs[i].items()
            if key != "modalities" and any(configs[j][key] != value for j in twins)
        ]
        names[i] = ", ".join([name, *parts[:4]])
    return names


def _base(run: RunDir) -> str:
    name = {"cm2": "CM2"}.get(run.config.model, run.config.model)
    return f"{name} ({'+'.join(modality_names(run.config))})"


__all__ = ["Aligned", "aligned", "compare", "labels", "layout_rows"]
