"""Figures of the report about how well the copula fits, how it came about, and what draws say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .cells import SMALLEST, evened
from .plots_copula import pair_density, side_by_side
from .svg import COLOR, SERIES, draw

Epochs = Sequence[Mapping[str, Any]]
_GRID = (np.arange(60) + 0.5) / 60


def uniformity(distances: Mapping[str, Sequence[float]], bounds: Mapping[str, float]) -> str:
    """Draw the distance of u to uniform by coordinate, and what chance explains.

    Args:
        distances: By modality, Kolmogorov-Smirnov distances of its coordinates.
        bounds: By modality, the bound that holds for all of them together.
    """

    def paint(figure: Figure) -> None:
        panels = np.atleast_1d(figure.subplots(1, len(distances), sharey=True))
        for axes, (name, values) in zip(panels, distances.items(), strict=True):
            over = np.asarray(values) > bounds.get(name, np.inf)
            place = np.arange(len(values)) + 1
            for chosen, color in ((~over, SERIES[0]), (over, SERIES[1])):
                axes.plot(
                    place[chosen], np.asarray(values)[chosen], "o", color=color, markersize=3.5
                )
            if name in bounds:
                axes.axhline(bounds[name], color=COLOR["muted"], linestyle="--", linewidth=1)
            axes.set_title(name)
            axes.set_xlabel("Coordinate")
            axes.set_ylim(0, None)
        panels[0].set_ylabel("Distance to uniform")

    return draw("uniformity", "Distance of u to uniform by coordinate", (3.9, 2.4), paint)


def families(found: Mapping[str, float], own: str) -> str:
    """Draw the held-out log density of each family; the run's own in another colour."""
    names = sorted(found, key=lambda name: found[name])

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for i, name in enumerate(names):
            color = SERIES[1] if name == own else SERIES[0]
            axes.hlines(i, 0, found[name], color=color, linewidth=2)
            axes.plot(found[name], i, "o", color=color, markersize=5)
        axes.axvline(0, color=COLOR["muted"], linewidth=1)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(-0.6, len(names) - 0.4)
        axes.set_xlabel("Held-out log density per coordinate, nats")
        axes.xaxis.set_major_locator(MaxNLocator(4))  # labels of more would touch
        axes.margins(x=0.12)

    return draw("families", "Held-out log density by family", (3.9, 2.4), paint)


def sizes(found: Mapping[str, Mapping[str, Any]], own: int) -> str:
    """Draw the held-out log density of mixtures by K, less that of the run's K.

    Args:
        found: By modality, what `mixture_size.held_out_by_size` returns.
        own: The run's K, marked.
    """

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for i, (name, one) in enumerate(found.items()):
            K = np.array([int(size) for size in one["sizes"]])
            y, low, high = (
                np.array([entry[part] for entry in one["sizes"].values()])
                for part in ("difference", "low", "high")
            )
            place, color = K + 0.08 * (i - (len(found) - 1) / 2), SERIES[i % len(SERIES)]
            axes.errorbar(
                *(place, y, [y - low, high - y]), color=color, elinewidth=0.8, capsize=2, label=name
            )
            axes.plot(place[y.argmax()], y.max(), "o", color=color, markersize=6)
        axes.axvline(own, color=COLOR["muted"], linestyle=":", linewidth=1.2)
        axes.axhline(0, color=COLOR["muted"], linewidth=0.7)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(xlabel="K", ylabel=f"Held-out log density\nabove K = {own}, nats")
        axes.legend(frameon=False, fontsize=7)

    return draw("sizes", "Held-out log density of the marginals by K", (3.9, 2.5), paint)


def chosen_epochs(history: Epochs, wanted: Sequence[int] = ()) -> list[Mapping[str, Any]]:
    """The epochs with a copula that are nearest to those wanted; else the first, middle and last.

    Args:
        history: The epochs.
        wanted: Epochs from 1.
    """
    rows = [row for row in history if any(key.startswith("copula_") for key in row)]
    if not rows:
        return []
    if wanted:
        epochs = np.array([row["epoch"] for row in rows])
        places = {int(np.abs(epochs - epoch).argmin()) for epoch in wanted}
    else:
        places = {0, (len(rows) - 1) // 2, len(rows) - 1}
    return [rows[i] for i in sorted(places)]


def parameters_at(row: Mapping[str, Any], pair: tuple[str, str]) -> dict[str, Any]:
    """Natural parameters of the copula of two modalities after an epoch.

    Args:
        row: A line of the history.
        pair: The modalities.
    """
    found: dict[str, Any] = {}
    for key, value in row.items():
        name = key.removeprefix("copula_")
        if name == key:
            continue
        if not name.startswith("correlation"):
            found[name] = value
        elif name == f"correlation_{pair[0]}_{pair[1]}":
            found["correlation"] = [[1.0, value], [value, 1.0]]
    return found


def densities(
    history: Epochs,
    family: str,
    pair: tuple[str, str],
    name: str = "epochs",
    wanted: Sequence[int] = (),
    width: float = 3.9,
) -> str | None:
    """Draw the copula density of two modalities after some epochs; None without a record.

    Args:
        history: The epochs.
        family: Name of the family.
        pair: The modalities.
        name: Distinct within the page.
        wanted: See `chosen_epochs`.
        width: In inches.
    """
    panels = {
        f"Epoch {row['epoch']}": pair_density(family, parameters_at(row, pair), 2, (0, 1), _GRID)
        for row in chosen_epochs(history, wanted)
    }
    alt = f"Copula density of {pair[0]} and {pair[1]} after some epochs"
    return side_by_side(name, alt, pair, panels, width) if panels else None


def imputed(row: Mapping[str, Any], smallest: int = SMALLEST) -> str:
    """Draw how probabilities are spread for stays that lack a modality.

    Args:
        row: As `imputed.imputed` gives it.
        smallest: What neighbouring bins hold together, see `cells`.
    """
    edges = np.linspace(0, 1, len(row["means"]) + 1)

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        # more draws than four stays have come from five stays at least
        draws = (smallest - 1) * row["draws"] + 1
        for i, (key, least, style) in enumerate(
            (("means", smallest, "-"), ("every_draw", draws, "--"))
        ):
            counts = evened(row[key], least)
            axes.stairs(
                counts / counts.sum(), edges, color=SERIES[i], linestyle=style, linewidth=1.7
            )
        axes.set(xlabel="Predicted probability", ylabel="Share", xlim=(0, 1))
        axes.set_ylim(0, None)

    name = f"imputed-{row['modality']}"
    return draw(name, f"Predictions of stays without {row['modality']}", (3.9, 2.3), paint)


__all__ = [
    "chosen_epochs",
    "densities",
    "families",
    "imputed",
    "parameters_at",
    "sizes",
    "uniformity",
]
