"""What one option was worth: the mean over all others, for each of its values and by seed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from scipy.special import stdtrit

from .axis import shown
from .index import Row, score


def main_effects(found: Sequence[Row], names: Sequence[str]) -> list[dict[str, Any]]:
    """Average the finished runs over everything but one option, for one option after another.

    All settings share their seeds, so for each seed the mean of a value is compared with the mean
    of all values; the interval of the difference is Student's over seeds, 95 %. It tells of luck
    in training, not in patients: the validation stays are the same throughout. Settings in which
    the option changes nothing are left out.

    Args:
        found: Rows of runs.
        names: Options, the lines of the grid.

    Returns:
        option, value, settings, mean, difference, low, high (None with one seed).
    """
    rows = [r for r in found if r["status"] == "finished" and score(r) is not None]
    result = []
    for name in names:
        able = [row for row in rows if row[name] is not None]
        seeds = sorted({row["seed"] for row in able})
        overall = {seed: _mean(able, seed) for seed in seeds}
        values = {shown(row[name]): row[name] for row in able}
        for text, _ in sorted(values.items(), key=lambda item: _rank(item[1])):
            part = [row for row in able if shown(row[name]) == text]
            own = {seed: _mean(part, seed) for seed in sorted({r["seed"] for r in part})}
            apart = [value - overall[seed] for seed, value in own.items()]
            half = half_width(apart)
            difference = statistics.fmean(apart)
            result.append(
                {
                    "option": name,
                    "value": text,
                    "settings": len({r["setting"] for r in part}),
                    "mean": statistics.fmean(own.values()),
                    "difference": difference,
                    "low": None if half is None else difference - half,
                    "high": None if half is None else difference + half,
                }
            )
    return result


def _mean(rows: Sequence[Row], seed: int) -> float:
    return statistics.fmean(float(score(r) or 0.0) for r in rows if r["seed"] == seed)


def half_width(values: Sequence[float]) -> float | None:
    """Half of Student's 95 % interval of a mean over seeds; None with one seed."""
    n = len(values)
    if n < 2:
        return None
    return float(stdtrit(n - 1, 0.975)) * statistics.stdev(values) / math.sqrt(n)


def _rank(value: Any) -> tuple[int, float, str]:
    if isinstance(value, int | float):
        return 0, float(value), ""
    return 1, 0.0, shown(value)


__all__ = ["half_width", "main_effects"]
