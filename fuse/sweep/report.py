"""One offline HTML page about a sweep. It asks nothing of any network and runs no script."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ...errors import DataError
from ..evaluation.page import fill, write
from .book import SweepDir
from .index import ranking, rows
from .plots import Point, by_option, heat_map, parallel
from .reading import read

_MOST_MAPS, _BEST = 8, 20


def write_report(sweep: SweepDir, out: Path) -> Path:
    """Write the page.

    Args:
        sweep: A sweep, finished or not.
        out: The file to write.

    Returns:
        `out`.

    Raises:
        DataError: No setting is complete yet.
    """
    return write(fill(Path(__file__).parent / "sweep.html.j2", content(sweep)), out)


def content(sweep: SweepDir) -> dict[str, Any]:
    """Gather everything that the page shows."""
    roll = sweep.roll()
    complete = [one for one in ranking(rows(sweep, roll)) if one.complete]
    if not complete:
        raise DataError(
            f"No setting of {sweep.path} is complete yet: give its `cm2 sweep` command again."
        )
    points: list[Point] = [(roll.values[one.setting], one.scores) for one in complete]
    names = [n for n in roll.values[0] if len({str(v[n]) for v, _ in points}) > 1]
    result = read(sweep, _BEST)
    options = list(roll.values[0])
    return {
        "task": sweep.record["spec"]["base"].get("task", "ihm"),
        "identity": sweep.identity[:12],
        "spec": sweep.record["spec"],
        "options": options,
        "result": result,
        "maps": [Markup(svg) for svg in _maps(points, names)],
        "lines": [Markup(svg) for svg in _lines(points, names)],
        "parallel": Markup(parallel(points, names)) if names else None,
        "stopped": result["runs"].get("stopped", 0),
    }


def _maps(points: list[Point], names: list[str]) -> list[str]:
    """The weight of the copula by K for each family; or the first two options of numbers."""
    numeric = [n for n in names if _numeric(points, n)]
    across, down = ("lambda_cop", "K") if {"lambda_cop", "K"} <= set(numeric) else (None, None)
    if across is None and len(numeric) >= 2:
        across, down = numeric[:2]
    if across is None or down is None:
        return []
    shown = [(v, s) for v, s in points if v[across] is not None and v[down] is not None]
    scores = [statistics.fmean(score) for _, score in shown]
    span = (min(scores), max(scores))
    families = sorted({str(v["copula"]) for v, _ in shown}) if "copula" in names else [""]
    maps = []
    for i, family in enumerate(families[:_MOST_MAPS]):
        part = [(v, s) for v, s in shown if not family or str(v["copula"]) == family]
        maps.append(heat_map(f"map{i}", family or "all", part, shown, across, down, span))
    return maps


def _lines(points: list[Point], names: list[str]) -> list[str]:
    drawn = []
    for i, name in enumerate(n for n in names if _numeric(points, n)):
        part = [(v, s) for v, s in points if v[name] is not None]
        lines = "copula" if "copula" in names else None
        drawn.append(by_option(f"line{i}", part, name, lines))
    return drawn


def _numeric(points: list[Point], name: str) -> bool:
    values = [v[name] for v, _ in points if v[name] is not None]
    return bool(values) and all(
        isinstance(v, int | float) and not isinstance(v, bool) for v in values
    )


__all__ = ["content", "write_report"]
