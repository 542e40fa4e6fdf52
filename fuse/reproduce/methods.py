"""Every method in one room, on any cache: the table that is not the paper's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

from ...errors import ConfigError
from ..config import MODELS, unknown
from ..drop import Drop
from .experiments import Experiment, Setting, method, variant

VARIANTS = (
    variant("cm2+align=none", "CM2, no alignment", align="none"),
    variant("cm2+align=cosine", "CM2, cosine", align="cosine"),
    variant("cm2+align=kl", "CM2, KL", align="kl"),
    variant("cm2+align=infonce", "CM2, InfoNCE", align="infonce"),
    variant("cm2+impute=marginal", "CM2, marginal draws", impute="marginal"),
)
"""Members of the family of CM2 that stand beside its defaults."""


def methods_experiment(drops: Sequence[str], rows: Sequence[str]) -> Experiment:
    """Make the table of all methods.

    Args:
        drops: Conditions of their own beside that of nothing withheld: NAME=SHARE,… or
            NAME=SHARE:severity, several shares parted by commas.
        rows: `partial`, `matched` or both, for the condition of nothing withheld.

    Raises:
        ConfigError: Anything else.
    """
    lines = (*(method(name) for name in MODELS if name != "cm2"), *VARIANTS, method("cm2"))
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


__all__ = ["VARIANTS", "methods_experiment"]
