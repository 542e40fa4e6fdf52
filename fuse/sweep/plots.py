"""Figures of the report of a sweep: heat maps, one option at a time, parallel coordinates."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..evaluation.svg import COLOR, DIVERGING, SERIES, draw
from .axis import shown
from .effects import half_width

_MOST_TICKS = 9

Point = tuple[dict[str, Any], tuple[float, ...]]
"""Values of a setting and the score of each of its runs, in the order of seeds and folds."""


def heat_map(
    name: str,
    title: str,
    points: Sequence[Point],
    whole: Sequence[Point],
    across: str,
    down: str,
    span: tuple[float, float],
) -> str:
    """Draw the mean score by two options, averaged over the others.

    Args:
        name: Distinct within the page.
        title: What the map is of.
        points: Settings.
        whole: Settings of all maps, which have the same cells.
        across: Option along x.
        down: Option along y.
        span: Lowest and highest score of all maps, for one scale.
    """
    columns, lines = _levels(whole, across), _levels(whole, down)

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        for i, line in enumerate(lines):
            for j, column in enumerate(columns):
                found = [s for v, s in points if v[down] == line and v[across] == column]
                if not found:
                    continue
                mean = statistics.fmean(map(statistics.fmean, found))
                shade = _shade(mean, span)
                axes.add_patch(_cell(j, i, shade))
                ink = COLOR["paper" if shade in DIVERGING[:2] + DIVERGING[-2:] else "ink"]
                text = f"{mean:.3f}".lstrip("0")
                axes.text(j, i, text, color=ink, ha="center", va="center", fontsize=7)
        axes.set(xlim=(-0.5, len(columns) - 0.5), ylim=(-0.5, len(lines) - 0.5))
        axes.set_xticks(range(len(columns)), [_label(v) for v in columns])
        axes.set_yticks(range(len(lines)), [_label(v) for v in lines])
        axes.set(xlabel=across, ylabel=down, title=title)
        axes.grid(visible=False)

    size = (1.0 + 0.5 * len(columns), 0.9 + 0.34 * len(lines))
    return draw(name, f"Mean score by {across} and {down}, {title}", size, paint)


def by_option(name: str, points: Sequence[Point], option: str, lines: str | None) -> str:
    """Draw the score of every setting against one numeric option, and means as lines.

    A mean is taken run by run over the settings, so that its bar, Student's 95 % interval over
    seeds (and folds), tells of luck in training alone; two of them would say nothing.

    Args:
        name: Distinct within the page.
        points: Settings.
        option: Option along x, all values numbers.
        lines: Option of which each value is a line, or None.
    """
    groups = _levels(points, lines) if lines else [None]
    values = [float(v[option]) for v, _ in points]
    log = min(values) > 0 and max(values) / min(values) >= 30

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        for i, group in enumerate(groups):
            color = SERIES[i % len(SERIES)]
            part = [(float(v[option]), s) for v, s in points if lines is None or v[lines] == group]
            x, y = zip(*((value, statistics.fmean(s)) for value, s in part), strict=True)
            axes.plot(x, y, ".", color=color, alpha=0.35, markersize=4)
            levels = sorted(set(x))
            by_run = [_means([s for value, s in part if value == level]) for level in levels]
            means = [statistics.fmean(values) for values in by_run]
            bars = [half_width(values) if len(values) > 2 else None for values in by_run]
            axes.errorbar(
                levels,
                means,
                None if any(bar is None for bar in bars) else np.array(bars, float),
                fmt="o-",
                color=color,
                markersize=4,
                capsize=2,
                elinewidth=0.8,
                label=None if group is None else shown(group),
            )
        if log:
            axes.set_xscale("log")
        levels = sorted(set(values))
        if len(levels) <= _MOST_TICKS:
            axes.set_xticks(levels, [_label(level) for level in levels])
            axes.minorticks_off()
        low, high = (edge(statistics.fmean(s) for _, s in points) for edge in (min, max))
        room = 0.15 * (high - low) + 1e-3
        axes.set(xlabel=option, ylabel="score", ylim=(low - room, high + room))
        if lines:
            axes.legend(title=lines, frameon=False, fontsize=7, title_fontsize=7)

    return draw(name, f"Score by {option}", (4.2, 2.9), paint)


def parallel(points: Sequence[Point], names: Sequence[str]) -> str:
    """Draw every setting as a line through its values and its score, the best ones in front."""
    levels = {name: _levels(points, name) for name in names}
    ranked = sorted(((v, statistics.fmean(s)) for v, s in points), key=lambda point: point[1])
    scores = [score for _, score in ranked]
    span = (scores[0], scores[-1])

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        for values, score in ranked:
            y = [_place(levels[n].index(values[n]), len(levels[n])) for n in names]
            y.append((score - span[0]) / (span[1] - span[0]) if span[1] > span[0] else 0.5)
            top = score >= np.quantile(scores, 0.9)
            color = SERIES[1] if top else COLOR["muted"]
            axes.plot(y, color=color, linewidth=1.4 if top else 0.6, alpha=0.9 if top else 0.35)
        for i, name in enumerate(names):
            for k, value in enumerate(levels[name]):
                place = _place(k, len(levels[name]))
                axes.text(i, place, f" {_label(value)}", fontsize=6.5, va="center")
        _score_axis(axes, len(names), span)
        axes.set_xticks(range(len(names) + 1), [*names, "score"])
        axes.set_yticks([])
        axes.set(xlim=(-0.2, len(names) + 0.5), ylim=(-0.06, 1.06))

    width = max(5.0, 1.4 * (len(names) + 1))
    return draw("parallel", "Every setting as a line; the best tenth in front", (width, 3.2), paint)


def _means(scores: Sequence[tuple[float, ...]]) -> list[float]:
    """Mean over settings, run by run."""
    return [statistics.fmean(run) for run in zip(*scores, strict=True)]


def _score_axis(axes: Axes, at: int, span: tuple[float, float]) -> None:
    for place, value in ((0.0, span[0]), (1.0, span[1])):
        axes.text(at, place, f" {value:.3f}", fontsize=6.5, va="center")


def _cell(x: int, y: int, color: str) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, facecolor=color, linewidth=0)


def _shade(value: float, span: tuple[float, float]) -> str:
    low, high = span
    share = 0.5 if math.isclose(low, high) else (value - low) / (high - low)
    return DIVERGING[round(share * (len(DIVERGING) - 1))]


def _levels(points: Sequence[Point], name: str) -> list[Any]:
    found = {shown(values[name]): values[name] for values, _ in points}
    return sorted(
        found.values(),
        key=lambda v: (0, float(v), "") if isinstance(v, int | float) else (1, 0.0, shown(v)),
    )


def _label(value: object) -> str:
    """Write a value in three digits: more of a log range would run into its neighbour."""
    return f"{value:.3g}" if isinstance(value, float) else shown(value)


def _place(k: int, n: int) -> float:
    return 0.5 if n == 1 else k / (n - 1)


__all__ = ["Point", "by_option", "heat_map", "parallel"]
