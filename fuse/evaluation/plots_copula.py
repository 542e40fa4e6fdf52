"""Figures of the report about dependence: the learned density beside what was observed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ..copula import get_copula
from .discrimination import Floats
from .svg import DIVERGING, draw, unit_square

# steps of density, symmetric as ratios; independence (density 1) is the middle colour
_BELOW = np.array([0.4, 0.6, 0.75, 0.87, 0.96])
_STEPS = np.concatenate([_BELOW, 1 / _BELOW[::-1]])
EDGES = np.concatenate([[0.0], _STEPS, [1e9]])
LEGEND = tuple(f"{step:.2g}" for step in _STEPS)
_COLORS: dict[str, Any] = {
    "cmap": ListedColormap(DIVERGING),
    "norm": BoundaryNorm(EDGES, len(DIVERGING)),
}
_ENOUGH = 5  # mean count of a bin below which bins are joined two by two


def pair_density(
    family: str, parameters: Mapping[str, Any], M: int, pair: tuple[int, int], u: Floats
) -> Floats:
    """Evaluate the learned copula density of two margins on a grid, averaged over coordinates.

    Args:
        family: Name of the family.
        parameters: Natural parameters as stored in learned.json; a leading axis is coordinates.
        M: Number of modalities.
        pair: Positions of the two modalities.
        u: Grid in (0, 1), shape ``(G,)``.

    Returns:
        Shape ``(G, G)``: first margin by rows, second by columns.
    """
    copula = get_copula(family)
    params = {k: torch.tensor(v, dtype=torch.float64) for k, v in parameters.items()}
    params = copula.marginal(params, pair)
    grid = torch.from_numpy(u)
    points = torch.stack(torch.meshgrid(grid, grid, indexing="ij"), dim=-1)  # (G, G, 2)
    by_coordinate = any(v.ndim > (2 if k == "correlation" else 0) for k, v in params.items())
    if by_coordinate:  # parameters (D, ...) against points (G, G, 1, 2)
        points = points[:, :, None]
    density = copula.log_density(points.log(), torch.log1p(-points), params).exp()
    density = density.mean(-1) if by_coordinate else density
    return np.asarray(density.broadcast_to(len(u), len(u)).numpy(), dtype=np.float64)


def dependence(
    name: str, names: Sequence[str], density: Floats, counts: NDArray[np.int64] | None
) -> str:
    """Draw the learned density of a pair of modalities, and the observed histogram beside it.

    Args:
        name: Distinct within the page.
        names: The two modalities.
        density: As `pair_density` gives it.
        counts: Observed counts, bins of the first margin by rows; None if there are too few.
    """

    def paint(figure: Figure) -> None:
        panels = figure.subplots(1, 1 if counts is None else 2, squeeze=False)[0]
        _show(panels[0], "Learned density", density)
        if counts is not None:
            joined = _coarser(counts)
            share = joined / joined.sum() * joined.size
            bins = np.linspace(0, 1, len(joined) + 1)
            panels[1].pcolormesh(bins, bins, share.T, edgecolors="none", **_COLORS)
            panels[1].set_title("Observed, validation")
        _label(panels, names)

    alt = f"Copula density of {names[0]} and {names[1]}: learned and observed"
    return draw(name, alt, (2.6 * (1 if counts is None else 2), 2.9), paint)


def side_by_side(
    name: str, alt: str, names: Sequence[str], panels: Mapping[str, Floats], width: float = 3.9
) -> str:
    """Draw some densities of the same two modalities.

    Args:
        name: Distinct within the page.
        alt: See `draw`.
        names: The two modalities.
        panels: By title a density as `pair_density` gives it.
        width: Of all of them together, in inches.
    """

    def paint(figure: Figure) -> None:
        axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for one, (title, density) in zip(axes, panels.items(), strict=True):
            _show(one, title, density)
        _label(axes, names)
        for one in axes:
            one.set_xticks([0, 0.5, 1], ["0", ".5", "1"])

    return draw(name, alt, (width, 0.7 + (width - 1) / len(panels)), paint)


def _show(axes: Axes, title: str, density: Floats) -> None:
    edges = np.linspace(0, 1, len(density) + 1)
    middle = (edges[:-1] + edges[1:]) / 2
    axes.contourf(middle, middle, density.T, levels=EDGES, **_COLORS)
    axes.set_title(title)


def _label(panels: Sequence[Axes], names: Sequence[str]) -> None:
    for axes in panels:
        unit_square(axes, f"u of {names[0]}", f"u of {names[1]}" if axes is panels[0] else "")
        axes.set(xlim=(0, 1), ylim=(0, 1))
        axes.set_aspect("equal")
        axes.grid(visible=False)


def _coarser(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    if counts.mean() >= _ENOUGH or len(counts) % 2:
        return counts
    half = len(counts) // 2
    joined: NDArray[np.int64] = counts.reshape(half, 2, half, 2).sum(axis=(1, 3))
    return joined
