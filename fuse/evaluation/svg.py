"""Figures as inline SVG: colours follow the page's light or dark theme, bytes are reproducible.

matplotlib draws with stand-in colours; each is replaced by a CSS variable of the page. Text stays
text. Nothing in the result refers to anything outside it.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

_NAMES = ("ink", "muted", "grid", "paper", *(f"c{i}" for i in range(1, 7)))
_NAMES += tuple(f"d{i}" for i in range(11))  # diverging, d5 is the middle
COLOR = {name: f"#01{i:02x}fe" for i, name in enumerate(_NAMES)}
"""Name of a CSS variable of the page to the colour that stands for it while drawing."""

SERIES = tuple(COLOR[f"c{i}"] for i in range(1, 7))
DIVERGING = tuple(COLOR[f"d{i}"] for i in range(11))

_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.edgecolor": COLOR["muted"],
    "axes.labelcolor": COLOR["ink"],
    "axes.titlecolor": COLOR["ink"],
    "axes.facecolor": "none",
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": COLOR["grid"],
    "grid.linewidth": 0.6,
    "xtick.color": COLOR["muted"],
    "ytick.color": COLOR["muted"],
    "xtick.labelcolor": COLOR["ink"],
    "ytick.labelcolor": COLOR["ink"],
    "text.color": COLOR["ink"],
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
    "svg.image_inline": True,
}


def draw(name: str, alt: str, size: tuple[float, float], paint: Callable[[Figure], None]) -> str:
    """Draw one figure and return it as an SVG element for an HTML page.

    Args:
        name: Distinct within the page; prefixes every id.
        alt: What the figure shows, for those who do not see it.
        size: Width and height in inches.
        paint: Draws on the figure it is given.
    """
    sink = io.StringIO()
    with rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        paint(figure)
        figure.savefig(sink, format="svg")
    return _inline(sink.getvalue(), name, alt)


def _inline(text: str, name: str, alt: str) -> str:
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)  # holds date and URLs
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text).replace("xlink:href", "href")
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", text)
    text = re.sub(r"'?DejaVu Sans'?[^;\"]*", "system-ui, sans-serif", text)
    for variable, color in COLOR.items():
        text = text.replace(color, f"var(--{variable})")
    box = re.search(r'viewBox="[^"]*"', text)
    assert box is not None
    label = alt.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    opening = f'<svg class="figure" role="img" aria-label="{label}" {box[0]}>'
    return re.sub(r"^<svg[^>]*>", lambda _: opening, text).strip()


def unit_square(axes: Axes, x: str, y: str) -> None:
    """Set both axes to [0, 1] with equal scale and label them."""
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=x, ylabel=y)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".5", ".75", "1"])
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".5", ".75", "1"])
