"""The paper's figures from trained runs, on one offline page with their numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..evaluation import plots_copula
from ..evaluation.layout import TITLES
from ..evaluation.page import fill
from ..evaluation.plots_fit import densities
from ..evaluation.svg import COLOR, SERIES, draw
from ..evaluation.understanding import kendall
from ..group import RunGroup
from ..rundir import RunDir
from .dependence import PAPER_EPOCHS, PREFIX, TAU
from .expand import Room
from .judge import METRICS
from .rows import Row
from .show import Result, copula_table, footnotes, head, score_table

_GRID = (np.arange(80) + 0.5) / 80
_WIDTH = 7.6  # inches, of a whole figure
Card = tuple[str, str]
"""What a figure shows, and the SVG."""


def page(result: Result) -> str:
    """Draw a figure of the paper.

    Args:
        result: An experiment whose `figure` says what is drawn.

    Returns:
        HTML that loads nothing and runs no script.
    """
    experiment = result.plan.experiment
    cards = _CARDS[experiment.figure]
    shown = copula_table if experiment.of_copula else score_table
    rooms = []
    for i, (room, rows) in enumerate(zip(result.plan.rooms, result.rows, strict=True)):
        header, cells = shown(result.plan, rows)
        rooms.append(
            {
                "title": room.title,
                "cards": [(title, Markup(svg)) for title, svg in cards(f"room{i}", room, rows)],
                "header": header,
                "cells": cells,
                "notes": footnotes(rows),
            }
        )
    content = {
        "name": experiment.name,
        "title": experiment.title,
        "head": head(result)[1:],
        "densities": experiment.figure in ("densities", "epochs"),
        "steps": plots_copula.LEGEND,
        "rooms": rooms,
    }
    return fill(Path(__file__).parent / "figure.html.j2", content)


def _groups(rows: Sequence[Row]) -> dict[str, RunGroup]:
    """Groups of a room by method, in the order of its lines."""
    paths = {row["method"]: row["group"] for row in rows if row["group"]}
    return {name: RunGroup.open(Path(path)) for name, path in paths.items()}


def middle(runs: Sequence[RunDir]) -> RunDir:
    """The run whose Kendall's tau is the median, the lower one of two: no mixture of seeds."""
    return sorted(runs, key=_tau)[(len(runs) - 1) // 2]


def _tau(run: RunDir) -> float:
    found = kendall(run.learned or {})
    return float(np.mean(list(found.values()))) if found else 0.0


def _by_family(name: str, room: Room, rows: Sequence[Row]) -> list[Card]:
    chosen = {method: middle(group.members) for method, group in _groups(rows).items()}
    facts = {method: run.learned for method, run in chosen.items()}
    learned = {method: one for method, one in facts.items() if one is not None}
    if not learned:
        return []
    names = next(iter(learned.values()))["modalities"]
    cards = []
    for a, b in combinations(range(len(names)), 2):
        panels = {
            f"{method}, τ {kendall(one)[f'{names[a]} and {names[b]}']:.2f}": (
                plots_copula.pair_density(
                    one["family"], one["parameters"], len(names), (a, b), _GRID
                )
            )
            for method, one in learned.items()
        }
        pair, title = (names[a], names[b]), f"{names[a]} and {names[b]}"
        alt = f"Fitted copula densities of {title}"
        svg = plots_copula.side_by_side(f"{name}-{a}-{b}", alt, pair, panels, _WIDTH)
        seeds = ", ".join(f"{method}: {run.config.seed}" for method, run in chosen.items())
        cards.append((f"{title}; the seed with the median τ ({seeds})", svg))
    return cards


def _some_epochs(name: str, room: Room, rows: Sequence[Row]) -> list[Card]:
    cards = []
    for i, (method, group) in enumerate(_groups(rows).items()):
        run = middle(group.members)
        facts = run.learned or {}
        pair = tuple(facts.get("modalities", ())[:2])
        if len(pair) < 2:
            continue
        svg = densities(run.history, facts["family"], pair, f"{name}-{i}", PAPER_EPOCHS, _WIDTH)
        if svg is not None:
            cards.append((f"{method}, seed {run.config.seed} (its τ is the median)", svg))
    return cards


def _course(name: str, room: Room, rows: Sequence[Row]) -> list[Card]:
    cards = []
    for i, (method, group) in enumerate(_groups(rows).items()):
        own = [row for row in rows if row["method"] == method]
        names = list(dict.fromkeys(row["quantity"] for row in own))
        paint = _painter(names, own, [run.history for run in group.members])
        title = f"{method}: every seed thin, their mean thick; dashed: the paper's last epoch"
        size = (_WIDTH, 2.8)
        cards.append((title, draw(f"{name}-{i}", f"Dependence over epochs, {method}", size, paint)))
    return cards


def _painter(
    names: Sequence[str], rows: Sequence[Row], histories: Sequence[Sequence[Mapping[str, Any]]]
) -> Callable[[Figure], None]:
    def paint(figure: Figure) -> None:
        panels = np.atleast_1d(figure.subplots(1, len(names)))
        for axes, quantity in zip(panels, names, strict=True):
            key = quantity if quantity == TAU else f"{PREFIX}{quantity}"
            for history in histories:
                points = [(row["epoch"], row[key]) for row in history if row.get(key) is not None]
                if points:
                    axes.plot(*zip(*points, strict=True), color=SERIES[0], linewidth=0.8, alpha=0.5)
            mine = [row for row in rows if row["quantity"] == quantity]
            means = [(row["epoch"], row["value"]) for row in mine if row["epoch"] != "last"]
            if means:
                axes.plot(*zip(*means, strict=True), color=SERIES[0], linewidth=2)
            for row in mine:
                if row["paper"] is not None:
                    axes.axhline(row["paper"], color=COLOR["muted"], linestyle="--", linewidth=1)
            last = next((row["value"] for row in mine if row["epoch"] == "last"), None)
            label = {"theta": "θ", "nu": "ν", TAU: "Kendall’s τ"}.get(quantity, quantity)
            axes.set_title(label if last is None else f"{label}, {last:.3f} at the end")
            axes.set_xlabel("Epoch")
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))

    return paint


def _values(name: str, room: Room, rows: Sequence[Row]) -> list[Card]:
    place = {
        entry.line.key: entry.line.options["K"]
        for entry in room.entries
        if "K" in entry.line.options
    }

    def paint(figure: Figure) -> None:
        panels = figure.subplots(1, len(METRICS))
        for axes, metric in zip(panels, METRICS, strict=True):
            found = [
                row
                for row in rows
                if row["metric"] == metric and row["key"] in place and row["low"] is not None
            ]
            x = [place[row["key"]] for row in found]
            y, low, high = (
                np.array([row[part] for row in found], float) for part in ("value", "low", "high")
            )
            axes.errorbar(x, y, [y - low, high - y], fmt="o-", color=SERIES[0], capsize=2)
            axes.set(title=TITLES[metric], xlabel="K")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))

    title = "Test stays, 95 % intervals: patients resampled"
    return [(title, draw(name, "AUROC and AUPR by K", (_WIDTH, 2.8), paint))]


_CARDS: dict[str, Callable[[str, Room, Sequence[Row]], list[Card]]] = {
    "densities": _by_family,
    "course": _course,
    "epochs": _some_epochs,
    "values": _values,
}

__all__ = ["middle", "page"]
