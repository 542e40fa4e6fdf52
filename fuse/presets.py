"""Presets: named sets of options. Given options win; the options are recorded, not the name.

corrected   the defaults
paper       the settings that the paper states, on correct mathematics
reference   what the published code computes: the paper's settings and every published defect
original    what a rival's own publication describes, where that differs

Which of them a method has, and what they set, stands in `methods`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from .methods import PAPER_RECIPE, find, unknown

if TYPE_CHECKING:
    from .config import FuseConfig

COMMON: dict[str, Mapping[str, Any]] = {"corrected": {}, "paper": PAPER_RECIPE}
"""Presets of every method that has no own of that name."""


def presets(model: str) -> dict[str, Mapping[str, Any]]:
    """Every preset of a method by name, the default first."""
    return {**COMMON, **find(model).options.presets}


def resolve(given: Mapping[str, Any]) -> dict[str, Any]:
    """Lay given options over those of the preset that they name.

    Args:
        given: Options by field name, nested ones as mappings; `preset` names the preset of the
            method that they name. `model` may be a mapping of the method's `name` and its options.

    Returns:
        Options without `preset`.

    Raises:
        ConfigError: An unknown preset or method.
    """
    given = _unfold(given)
    name, model = str(given.pop("preset", None) or "corrected"), str(given.get("model", "cm2"))
    if name == "corrected":
        return given
    offered = presets(model)
    if name not in offered:
        raise ConfigError(unknown(f"preset of {model}", name, offered))
    return _over(offered[name], given)


def _unfold(given: Mapping[str, Any]) -> dict[str, Any]:
    """Turn a table `model` with a name and options into the two fields `model` and `options`."""
    result = dict(given)
    if isinstance(table := result.get("model"), Mapping):
        inner = dict(table)
        result["model"] = inner.pop("name", "cm2")
        result["options"] = _over(inner, result.get("options", {}))
    return result


def weights(config: FuseConfig) -> str:
    """Say what the weight of the copula is on the paper's scale."""
    width = config.copula_dim or config.hidden
    return (
        f"lambda_cop = {config.lambda_cop:g} on the mean over {width} coordinates is the paper's "
        f"lambda = {config.lambda_cop / width:g} on their sum."
    )


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for name, value in above.items():
        under = merged.get(name)
        if isinstance(value, Mapping) and isinstance(under, Mapping):
            merged[name] = _over(under, value)
        else:
            merged[name] = value
    return merged


__all__ = ["COMMON", "presets", "resolve", "weights"]
