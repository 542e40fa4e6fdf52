"""A threshold fixed on validation stays, and what it does on others.

Net benefit over all thresholds is the decision curve (Vickers and Elkin, 2006).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...errors import ConfigError
from .bootstrap import resamples, units_of
from .discrimination import checked, threshold_curve
from .metrics import with_interval

Floats = NDArray[np.float64]

RULES = ("youden", "sensitivity=SHARE", "specificity=SHARE", "p=VALUE")
GRID = np.round(np.arange(0.01, 0.61, 0.01), 2)
"""Thresholds of the decision curve: what a clinician might act on."""


def parse_rule(rule: str) -> tuple[str, float]:
    """Read a rule of `choose`: its kind, and what it aims at (of youden 0).

    Raises:
        ConfigError: Another rule.
    """
    kind, _, text = rule.partition("=")
    try:
        aim = float(text) if text else None
    except ValueError:
        aim = -1.0
    known = kind in ("youden", "sensitivity", "specificity", "p")
    if not known or (kind == "youden") != (aim is None) or (aim is not None and not 0 <= aim <= 1):
        raise ConfigError(f"--threshold is one of {', '.join(RULES)}; found {rule!r}.")
    return kind, aim or 0.0


def choose(rule: str, y: ArrayLike, p: ArrayLike) -> float:
    """Fix a threshold on validation stays; alarms are probabilities at or above it.

    Args:
        rule: `youden` (largest sensitivity + specificity), `sensitivity=0.9` (the highest threshold
            that reaches it), `specificity=0.9` (the lowest that keeps it), or `p=0.2` itself.
        y: Labels of the validation stays, ``(n,)``.
        p: Probabilities.

    Raises:
        ConfigError: Another rule, or stays that do not have both classes.
    """
    kind, aim = parse_rule(rule)
    if kind == "p":
        return aim
    if len(np.unique(np.asarray(y))) < 2:
        raise ConfigError(
            "A threshold cannot be fixed: the validation stays have one class or none. Give one by "
            "--threshold p=VALUE."
        )
    labels, scores, _ = checked(y, p, probability=True)
    curve = threshold_curve(labels, scores)
    sensitivity = curve.true_positives / labels.sum()
    negatives = (1 - labels).sum()
    specificity = (negatives - curve.false_positives) / negatives  # 1 - 7/100 is less than 0.93
    if kind == "youden":
        at = int(np.argmax(sensitivity + specificity))
    elif kind == "sensitivity":
        at = int(np.argmax(sensitivity >= aim))
    else:
        reached = np.flatnonzero(specificity >= aim)
        if not len(reached):
            return float(np.nextafter(1.0, 2.0))  # no alarm at all
        at = int(reached[-1])
    return float(curve.thresholds[at])


def operating_point(
    y: ArrayLike,
    p: ArrayLike,
    threshold: float,
    groups: ArrayLike | None,
    *,
    replicates: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Judge alarms at a threshold, each figure with its 95 % bootstrap interval.

    Args:
        y: Labels, ``(n,)``.
        p: Probabilities.
        threshold: Alarm at or above it.
        groups: Patient of each stay; None resamples stays.
        replicates: Bootstrap resamples.
        seed: Names the resamples.

    Returns:
        threshold, counts tp, fp, tn, fn, and sensitivity, specificity, ppv, npv, f1,
        alarms_per_100 (per 100 stays) as value, low, high; null where undefined.
    """
    labels, scores, _ = checked(y, p, probability=True)
    alarm, event = scores >= threshold, labels == 1
    cells = np.stack([alarm & event, alarm & ~event, ~alarm & ~event, ~alarm & event], 1)
    table = cells.astype(np.float64)
    drawn = _resampled(table, groups, replicates, seed)
    points, boot = _figures(table.sum(0, keepdims=True)), _figures(drawn)
    result: dict[str, Any] = {"threshold": threshold}
    result |= {k: int(v) for k, v in zip(("tp", "fp", "tn", "fn"), table.sum(0), strict=True)}
    for name, point in points.items():
        value = None if np.isnan(point[0]) else float(point[0])
        found = with_interval(value, boot[name])
        if value is None:
            found["reason"] = "nothing to divide by"
        result[name] = found
    return result


def decision_curve(
    y: ArrayLike,
    p: ArrayLike,
    groups: ArrayLike | None,
    *,
    replicates: int = 1000,
    seed: int = 0,
) -> dict[str, list[float]]:
    """Net benefit of acting on a model, on everyone, and on no one (0), over thresholds.

    Net benefit = (true alarms - false alarms * t / (1 - t)) / n: one unit is one true alarm.

    Args:
        y: Labels, ``(n,)``.
        p: Probabilities.
        groups: Patient of each stay; None resamples stays.
        replicates: Bootstrap resamples.
        seed: Names the resamples.

    Returns:
        threshold, model, low, high (95 % band), all.
    """
    labels, scores, _ = checked(y, p, probability=True)
    cost = GRID / (1 - GRID)
    alarm = scores[:, None] >= GRID
    event = labels[:, None] == 1
    gain = np.where(event, 1.0, -cost)  # (n, T) of an alarm
    benefit = np.where(alarm, gain, 0.0)
    table = np.concatenate([benefit, np.ones((len(labels), 1))], 1)
    drawn = _resampled(table, groups, replicates, seed)
    share = drawn[:, :-1] / drawn[:, -1:]
    low, high = np.quantile(share, [0.025, 0.975], axis=0) if replicates else (benefit.mean(0),) * 2
    return {
        "threshold": GRID.tolist(),
        "model": benefit.mean(0).tolist(),
        "low": low.tolist(),
        "high": high.tolist(),
        "all": gain.mean(0).tolist(),
    }


def _resampled(table: Floats, groups: ArrayLike | None, replicates: int, seed: int) -> Floats:
    """Sums of rows over resampled patients, ``(R, columns)``."""
    unit = units_of(groups, len(table))
    sums = np.zeros((int(unit.max()) + 1, table.shape[1]))
    np.add.at(sums, unit, table)
    parts = [counts @ sums for counts in resamples(len(sums), replicates, seed)]
    return np.concatenate(parts) if parts else np.empty((0, table.shape[1]))


def _figures(cells: Floats) -> dict[str, Floats]:
    """Figures of tp, fp, tn, fn by row; NaN where undefined."""
    tp, fp, tn, fn = cells.T
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "sensitivity": tp / (tp + fn),
            "specificity": tn / (tn + fp),
            "ppv": tp / (tp + fp),
            "npv": tn / (tn + fn),
            "f1": 2 * tp / (2 * tp + fp + fn),
            "alarms_per_100": 100 * (tp + fp) / cells.sum(1),
        }


__all__ = ["GRID", "RULES", "choose", "decision_curve", "operating_point", "parse_rule"]
