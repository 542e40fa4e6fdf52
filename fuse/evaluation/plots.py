"""Figures of the report about probabilities: ROC, PR, calibration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from .bands import Bands
from .calibration import calibration_curve
from .cells import SMALLEST, evened
from .discrimination import Curve, Floats, threshold_curve
from .svg import COLOR, SERIES, draw, unit_square

_SIZE = (3.9, 3.5)
_MOST_POINTS = 400
_DASHES: list[Any] = [(0, (4, 1.5)), (0, (1.5, 1.5)), (0, (6, 1.5, 1.5, 1.5))]


def roc(y: NDArray[np.int64], scores: Sequence[Floats], band: Bands | None) -> str:
    """Draw ROC curves, the first model in front with its band.

    Args:
        y: Labels.
        scores: Probabilities of each model for the same stays.
        band: Band of the first model.
    """

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], "--", color=COLOR["muted"], linewidth=1, gid="chance")
        if band is not None:
            axes.fill_between(
                band.grid, band.roc_low, band.roc_high, color=SERIES[0], alpha=0.18, linewidth=0
            )
        for i in reversed(range(len(scores))):
            curve = threshold_curve(y, scores[i])
            x, height = _rates(curve)
            _line(axes, x, height, i, gid=f"curve{i}")
        unit_square(axes, "1 − specificity", "Sensitivity")
        axes.set_aspect("equal")

    return draw("roc", "ROC curves with a bootstrap band for this run", _SIZE, paint)


def precision_recall(y: NDArray[np.int64], scores: Sequence[Floats], band: Bands | None) -> str:
    """Draw precision against recall, with the prevalence as the line of chance; see `roc`."""

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        prevalence = float(np.mean(y))
        axes.axhline(prevalence, linestyle="--", color=COLOR["muted"], linewidth=1, gid="chance")
        if band is not None:
            axes.fill_between(
                band.grid, band.pr_low, band.pr_high, color=SERIES[0], alpha=0.18, linewidth=0
            )
        for i in reversed(range(len(scores))):
            curve = threshold_curve(y, scores[i])
            precision = curve.true_positives / (curve.true_positives + curve.false_positives)
            recall = curve.true_positives / curve.true_positives[-1]
            x, height = _thin(np.append(0, recall), np.append(precision[:1], precision))
            _line(axes, x, height, i, gid=f"curve{i}", drawstyle="steps-pre")
        unit_square(axes, "Recall", "Precision")
        axes.set_aspect("equal")

    return draw("pr", "Precision against recall with a bootstrap band", _SIZE, paint)


def calibration(y: NDArray[np.int64], p: Floats, smallest: int = SMALLEST) -> str:
    """Draw observed against predicted frequency with Wilson intervals, and how p is spread.

    Groups of fewer than five stays are left out.

    Args:
        y: Labels.
        p: Probabilities.
        smallest: What neighbouring bars hold together, see `cells`.
    """

    def paint(figure: Figure) -> None:
        axes, below = figure.subplots(2, 1, height_ratios=(3.4, 1))
        axes.plot([0, 1], [0, 1], "--", color=COLOR["muted"], linewidth=1, gid="ideal")
        curve = calibration_curve(y, p, bins=max(1, min(10, len(y) // 10)))
        kept = curve.counts >= SMALLEST
        x, height, n = curve.predicted[kept], curve.observed[kept], curve.counts[kept]
        low, high = _wilson(height, n)
        axes.vlines(x, low, high, color=SERIES[0], linewidth=1.2, alpha=0.6)
        axes.plot(x, height, "o-", color=SERIES[0], markersize=4.5, linewidth=1.2, gid="curve0")
        unit_square(axes, "", "Observed frequency")
        axes.tick_params(labelbottom=False)
        counts, edges = np.histogram(p, bins=20, range=(0, 1))
        shown = evened(counts, smallest)
        below.bar(edges[:-1], shown, 0.046, align="edge", color=SERIES[0], alpha=0.85)
        unit_square(below, "Predicted probability", "Stays")
        below.set_ylim(0, max(shown.max() * 1.1, 1))
        below.set_yticks([0, max(round(shown.max()), 1)])
        figure.align_ylabels([axes, below])

    return draw("calibration", "Observed against predicted frequency", (3.9, 3.9), paint)


def _rates(curve: Curve) -> tuple[Floats, Floats]:
    return _thin(
        np.append(0, curve.false_positives / curve.false_positives[-1]),
        np.append(0, curve.true_positives / curve.true_positives[-1]),
    )


def _thin(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    # long curves need no more points than the eye can tell apart
    if len(x) <= _MOST_POINTS:
        return x, y
    keep = np.unique(np.linspace(0, len(x) - 1, _MOST_POINTS).astype(int))
    return x[keep], y[keep]


def _line(axes: Axes, x: Floats, y: Floats, i: int, **style: Any) -> None:
    # the run itself solid and heavy, the others thin and each with its own dashes
    look = {"linewidth": 1.3, "linestyle": _DASHES[i % len(_DASHES)]} if i else {"linewidth": 2.2}
    axes.plot(x, y, color=SERIES[i % len(SERIES)], **look, **style)


def _wilson(rate: Floats, n: NDArray[np.int64]) -> tuple[Floats, Floats]:
    # score interval of a proportion (Wilson, 1927)
    z = 1.959963984540054
    middle = (rate + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2))
    return middle - half, middle + half
