"""Options that change nothing under others: what is the same training has one spelling.

`combinations` refuses what a user cannot have meant. In a grid such a combination is ordinary:
six families times five weights hold five equal independent ones, which are trained once.
"""

from __future__ import annotations

from .combinations import FROM_COPULA, OF_CM2
from .config import FuseConfig
from .methods import find


def unread(model: str) -> tuple[str, ...]:
    """Name the general options that a method does not read.

    Args:
        model: Name of the method.
    """
    return (*(() if model == "cm2" else OF_CM2), *find(model).options.unread)


def inert(config: FuseConfig) -> tuple[str, ...]:
    """Name the options that do not change a bit of what is learned or predicted.

    The weight of the copula under `align = none` is none of them while gradients are clipped: the
    gradient of the dependence has a part in the norm.

    Args:
        config: The others.
    """
    if config.model != "cm2":
        return unread(config.model)
    drawn = config.impute in FROM_COPULA or config.objective == "elbo"
    names = [] if drawn else ["draws"]
    if config.objective != "penalised" or config.published.formulas:
        return tuple(names)
    if config.copula == "independence":
        return (*names, "lambda_cop", "lr_copula", "copula_params")
    if config.align != "copula" and not config.clip and config.impute not in FROM_COPULA:
        names.append("lambda_cop")
    return tuple(names)


def canonical(config: FuseConfig) -> FuseConfig:
    """Set inert options to their defaults."""
    fields = type(config).model_fields
    update = {name: fields[name].default for name in inert(config)}
    if all(getattr(config, name) == value for name, value in update.items()):
        return config
    try:
        return FuseConfig.model_validate(config.model_dump() | update)
    except ValueError:  # a default that the others do not admit: the spelling stays
        return config


__all__ = ["canonical", "inert", "unread"]
