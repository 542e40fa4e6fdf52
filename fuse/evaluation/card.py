"""A model card: the facts of the report in Markdown, to stand beside published weights.

After Mitchell et al., *Model Cards for Model Reporting*, 2019. Aggregates only.
"""

from __future__ import annotations

from pathlib import Path

import jinja2

from ..rundir import RunDir
from .report import content


def model_card(run: RunDir, cache: Path | None) -> str:
    """Write the card of a finished run.

    Args:
        run: The run; it is shown on test stays if it was judged there, else on validation.
        cache: Its cache, for attrition and the origin of weights; None leaves those out.

    Returns:
        Markdown.

    Raises:
        ConfigError: The run is not finished, or the cache is not the run's.
    """
    from ..models import model_class

    run.require_finished()
    method = model_class(run.config.model)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=False,  # Markdown, not a page
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["percent"] = lambda share, digits: f"{100 * share:.{digits}f} %"
    environment.globals["number"] = _number
    page = content(run, cache, ())
    absence = method.absence.replace("--impute", f"impute = {run.config.impute}")
    return environment.get_template("card.md.j2").render(
        reference=method.reference, absence=absence, **page
    )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


__all__ = ["model_card"]
