"""One model judged on some stays: every metric with its interval, ready for JSON.

Definitions: `discrimination` (AUROC, average precision), `calibration` (Brier, ECE, slope),
`bootstrap` (resampling by patient), `significance` (differences between models).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from ...errors import ConfigError, DataError
from .bootstrap import METRICS, Replicates, bootstrap
from .calibration import (
    ECE_BINS,
    CalibrationCurve,
    CalibrationFit,
    brier,
    calibration_curve,
    calibration_fit,
    ece,
)
from .discrimination import Curve, auroc, average_precision, checked, threshold_curve
from .significance import DeLong, Difference, delong, holm, interval, paired_bootstrap

Unit = Literal["patient", "stay"]

POINTS = {"auroc": auroc, "aupr": average_precision, "brier": brier, "ece": ece}
"""Name of each metric in files and tables to its function of labels and probabilities."""


def summary(
    y: ArrayLike,
    p: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    replicates: int = 1000,
    seed: int = 0,
    unit: str = "patient",
) -> dict[str, Any]:
    """Judge probabilities against labels: metrics, 95 % bootstrap intervals, calibration.

    Args:
        y: Labels, 0 or 1, shape ``(n,)``.
        p: Probabilities, ``(n,)``.
        groups: Patient of each stay, ``(n,)``; needed for `unit` "patient".
        replicates: Bootstrap resamples; 0 leaves every interval null.
        seed: Names the resamples.
        unit: What is drawn with replacement: "patient" or "stay".

    Returns:
        JSON-able: n, positives, one {"value", "low", "high"} for each metric (null with a "reason"
        where undefined), "calibration" {"slope", "intercept"}, "bootstrap".
    """
    labels = checked(y, p, probability=True)[0]
    positives = int(labels.sum())
    drawn = bootstrap(y, [p], _groups(groups, unit), replicates=replicates, seed=seed)[0]
    fit = calibration_fit(y, p)
    result: dict[str, Any] = {"n": len(labels), "positives": positives}
    for name in METRICS:
        result[name] = with_interval(
            None
            if name in ("auroc", "aupr") and positives in (0, len(labels))
            else POINTS[name](y, p),
            drawn.values[name],
        )
    result["calibration"] = {"slope": fit.slope, "intercept": fit.intercept}
    result["bootstrap"] = {
        "replicates": replicates,
        "unit": unit,
        "seed": seed,
        "degenerate": drawn.degenerate,
    }
    return result


def macro(
    metric: Callable[[ArrayLike, ArrayLike], float | None], y: ArrayLike, p: ArrayLike
) -> float | None:
    """Average a metric over the targets for which it is defined; None if there is none.

    Args:
        metric: Function of labels and probabilities.
        y: Labels, ``(n, C)``; NaN where unknown.
        p: Probabilities, ``(n, C)``.
    """
    values = []
    for labels, scores in zip(np.asarray(y, float).T, np.asarray(p).T, strict=True):
        known = ~np.isnan(labels)
        if known.any() and (value := metric(labels[known], scores[known])) is not None:
            values.append(value)
    return float(np.mean(values)) if values else None


def with_interval(value: float | None, replicates: Any) -> dict[str, Any]:
    """Join a value and its percentile interval; a "reason" stands beside what is null.

    Args:
        value: The metric on all stays; None where undefined.
        replicates: The metric over replicates, ``(R,)``; NaN where undefined.
    """
    if value is None:
        return {"value": None, "low": None, "high": None, "reason": "only one class is present"}
    bounds = interval(np.asarray(replicates))
    if bounds is None:
        reason = (
            "more than half of the resamples hold one class only"
            if len(replicates)
            else "no resamples were asked for"
        )
        return {"value": value, "low": None, "high": None, "reason": reason}
    return {"value": value, "low": bounds[0], "high": bounds[1]}


def _groups(groups: ArrayLike | None, unit: str) -> ArrayLike | None:
    if unit not in ("patient", "stay"):
        raise ConfigError(f"Unknown unit {unit!r}: resample by 'patient' or by 'stay'.")
    if unit == "patient" and groups is None:
        raise DataError("Resampling by patient needs the patient of each stay; or use unit='stay'.")
    return groups if unit == "patient" else None


__all__ = [
    "ECE_BINS",
    "METRICS",
    "POINTS",
    "CalibrationCurve",
    "CalibrationFit",
    "Curve",
    "DeLong",
    "Difference",
    "Replicates",
    "Unit",
    "auroc",
    "average_precision",
    "bootstrap",
    "brier",
    "calibration_curve",
    "calibration_fit",
    "delong",
    "ece",
    "holm",
    "macro",
    "paired_bootstrap",
    "summary",
    "threshold_curve",
    "with_interval",
]
