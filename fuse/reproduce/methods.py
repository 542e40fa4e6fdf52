"""Every method in one room, on any cache: the table that is not the paper's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

from ...errors import ConfigError
from ..config import MODELS, unknown
from ..drop import Drop
from .experiments import TITLES, Experiment, Line, Setting, method, variant


def _of(name: str, title: str, **choice: Any) -> Line:
    """A method with one of its own options set."""
    key = "+".join([name, *(f"model.{option}={value}" for option, value in choice.items())])
    return Line(key, f"{TITLES.get(name, name)}, {title}", {"model": name, "options": choice})


VARIANTS = (
    variant("cm2+align=none", "CM2, no alignment", align="none"),
    variant("cm2+align=cosine", "CM2, cosine", align="cosine"),
    variant("cm2+align=kl", "CM2, KL", align="kl"),
    variant("cm2+align=infonce", "CM2, InfoNCE", align="infonce"),
    variant("cm2+impute=marginal", "CM2, marginal draws", impute="marginal"),
    variant("cm2+impute=blank", "CM2, empty inputs", impute="blank"),
)
"""Members of the family of CM2 that stand beside its defaults."""

PLAIN = (
    _of("concat", "missing mean", missing="mean"),
    _of("concat", "missing learned", missing="learned"),
    _of("concat", "missing blank", missing="blank"),
    _of("concat", "modality dropout", modality_dropout=0.3),
    _of("late", "stacking", combine="stacking"),
)
"""Choices of the plain methods that stand beside their defaults."""


def methods_experiment(drops: Sequence[str], rows: Sequence[str]) -> Experiment:
    """Make the table of all methods.

    Args:
        drops: Conditions of their own beside that of nothing withheld: NAME=SHARE,… or
            NAME=SHARE:severity, several shares parted by commas.
        rows: `partial`, `matched` or both, for the condition of nothing withheld.

    Raises:
        ConfigError: Anything else.
    """
    others = (method(name) for name in MODELS if name != "cm2")
    lines = (*others, *PLAIN, *VARIANTS, method("cm2"))
    settings = []
    for kind in rows:
        if kind not in ("partial", "matched"):
            raise ConfigError(unknown("kind of rows", kind, ("partial", "matched")))
        settings.append(Setting(kind, cast(Literal["partial", "matched"], kind), lines))
    for drop in _shares(drops):
        title = f"{drop.share:.0%} of {drop.name} withheld "
        title += "by severity" if drop.by == "severity" else "at random"
        text = f"{drop.name}={drop.share:g}" + (":severity" if drop.by == "severity" else "")
        settings.append(Setting(title, "partial", lines, drop=(text,)))
    return Experiment("methods", "Every method in one room", tuple(settings), tasks=())


def _shares(drops: Sequence[str]) -> list[Drop]:
    found = []
    for text in drops:
        name, _, shares = text.partition("=")
        try:
            found += [Drop.parse(f"{name}={share}") for share in shares.split(",")]
        except ValueError as error:
            raise ConfigError(f"--drop {text}: {error}") from None
    return found


__all__ = ["PLAIN", "VARIANTS", "methods_experiment"]
