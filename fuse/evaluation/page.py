"""Templates as offline HTML pages: one style, every value but the figures escaped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from ...cache import atomic


def fill(
    template: Path,
    content: Mapping[str, Any],
    filters: Mapping[str, Callable[..., str]] | None = None,
) -> str:
    """Fill a template.

    Args:
        template: The file; it puts `css` into its head.
        content: What it names.
        filters: Functions that it calls.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template.parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= dict(filters or {})
    css = (Path(__file__).parent / "report.css").read_text("utf-8")
    return environment.get_template(template.name).render(css=Markup(css), **content)


def write(page: str, out: Path) -> Path:
    """Write a page whole; its folder is made if absent.

    Returns:
        `out`.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_bytes(out, page.encode())
    return out


__all__ = ["fill", "write"]
