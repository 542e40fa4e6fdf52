"""Figures of the report about consequences: acting on the model, and withholding a modality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from .svg import COLOR, SERIES, draw

_METRICS = {"auroc": "AUROC", "aupr": "AUPR"}


def decision(curve: Mapping[str, Sequence[float]], prevalence: float) -> str:
    """Draw net benefit over thresholds: the model, acting on all, acting on none.

    Args:
        curve: As `thresholds.decision_curve` gives it.
        prevalence: Share of stays with an event: the largest net benefit there is.
    """
    x, own, everyone = (np.asarray(curve[name]) for name in ("threshold", "model", "all"))

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        axes.fill_between(x, curve["low"], curve["high"], color=SERIES[0], alpha=0.15, linewidth=0)
        axes.plot(x, own, color=SERIES[0], linewidth=2, gid="model")
        axes.plot(x, everyone, color=SERIES[1], linestyle="--", linewidth=1.3, gid="all")
        axes.axhline(0, color=COLOR["muted"], linestyle=":", linewidth=1.2)
        axes.set(xlabel="Threshold probability", ylabel="Net benefit per stay")
        low = min(float(np.min(curve["low"])), 0.0)
        high = max(float(np.max(curve["high"])), prevalence)  # resampled stays may have more events
        axes.set_ylim(max(low, -0.5 * prevalence) - 0.02 * prevalence, high + 0.08 * prevalence)
        axes.set_xlim(float(x[0]), float(x[-1]))

    return draw("decision", "Net benefit over thresholds", (3.9, 3.0), paint)


def missingness(rows: Sequence[Mapping[str, Any]], whole: Mapping[str, Any]) -> str:
    """Draw metrics over the share of stays that lose a modality.

    Args:
        rows: As `missingness.missingness` gives them.
        whole: By metric the value with nothing withheld.
    """
    names = list(dict.fromkeys(row["modality"] for row in rows))

    def paint(figure: Figure) -> None:
        for axes, metric in zip(
            np.atleast_1d(figure.subplots(2, 1, sharex=True)), _METRICS, strict=True
        ):
            for i, name in enumerate(names):
                own = sorted((r for r in rows if r["modality"] == name), key=lambda r: r["share"])
                own = [row for row in own if row["withheld"] and row[metric]["value"] is not None]
                start = whole[metric]["value"]
                points = ([(0.0, start)] if start is not None else []) + [
                    (row["share"], row[metric]["value"]) for row in own
                ]
                color = SERIES[i % len(SERIES)]
                if points:  # none of one class
                    axes.plot(
                        *zip(*points, strict=True), "o-", color=color, markersize=4, linewidth=1.5
                    )
                ends = [(r["share"], r[metric]["low"], r[metric]["high"]) for r in own]
                ends = [end for end in ends if end[1] is not None]
                if ends:
                    at, low, high = zip(*ends, strict=True)
                    place = np.asarray(at) + 0.012 * i
                    axes.vlines(place, low, high, color=color, linewidth=1, alpha=0.5)
            axes.set_title(_METRICS[metric])
            axes.set_xlim(-0.04, 1.06)
        axes.set_xlabel("Share of stays that lose the modality")

    return draw("missingness", "AUROC and AUPR over the share withheld", (3.9, 3.2), paint)


__all__ = ["decision", "missingness"]
