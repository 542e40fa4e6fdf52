"""What a method is, for people: its options, its presets, how many parameters it has."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from ..cache.cohort import Cohort
from ..errors import ConfigError
from .config import FuseConfig
from .data import load
from .identity import identify
from .inference import build
from .methods import canonical, find, short
from .models import model_class
from .presets import presets
from .rows import FusionData


def describe(name: str) -> dict[str, Any]:
    """Describe a method.

    Args:
        name: Its name, or FILE.py:CLASS.

    Returns:
        model, what, needs, absent modality, reference; options by name with default, choices and
        meaning; presets by name with what they set.

    Raises:
        ConfigError: There is no such method.
    """
    name = canonical(name)
    kind, options = model_class(name), find(name).options
    return {
        "model": short(name),
        "what": (kind.__doc__ or "").splitlines()[0].removesuffix("."),
        "needs": kind.needs,
        "absent modality": kind.absence,
        "reference": kind.reference,
        "options": {
            option: {
                "default": _text(field.default),
                "choices": _choices(field.annotation, field.metadata),
                "meaning": field.description or "",
            }
            for option, field in options.model_fields.items()
        },
        "presets": {preset: _flat(values) for preset, values in presets(name).items()},
    }


def rows_of(cache: Path, cohort: str = "default") -> FusionData:
    """Rows of a cohort with all its modalities, as a model sees them.

    Raises:
        DataError: There is no such cohort, or it links no modality.
    """
    opened = Cohort.open(cache, cohort)
    config = FuseConfig.of({"cohort": cohort, "task": next(iter(opened.tasks))})
    identity = identify(config, cache)
    return load(cache, identity.config, identity.cohort)


def served(name: str, data: FusionData) -> dict[str, Any]:
    """Say whether a method can be trained on a cohort, with all its modalities.

    Args:
        name: The method, with its options at their defaults.
        data: The rows of the cohort.

    Returns:
        parameters: how many it learns, or a dash; this cache: yes or no; not served: by preset
        (corrected is the usual one) the reason why not.
    """
    few = model_class(name).most_modalities or len(data.specs)
    specs = data.specs[:few]
    refused = {}
    count: int | str = "–"
    for preset in presets(name):
        try:
            model = build(specs, FuseConfig.of({"model": name, "preset": preset}))
        except ConfigError as error:
            refused[preset] = str(error)
            continue
        if preset == "corrected":
            count = sum(math.prod(parameter.shape) for parameter in model.parameters())
        if reason := model.lacks(data.parts()):
            refused[preset] = reason
    told = "no" if "corrected" in refused else "yes"
    if told == "yes" and few < len(data.specs):
        told += f", {few} of {len(data.specs)} modalities at a time"
    return {"parameters": count, "this cache": told, "not served": refused}


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _choices(annotation: Any, limits: Sequence[Any]) -> str:
    if annotation is bool:
        return "true|false"
    if names := [str(part) for part in get_args(annotation)]:
        return "|".join(names)
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    bounds = [
        f"{words[key]} {getattr(part, key)}"
        for part in limits
        for key in words
        if getattr(part, key, None) is not None
    ]
    return ", ".join([getattr(annotation, "__name__", str(annotation)), *bounds])


def _flat(values: Mapping[str, Any], table: str = "") -> dict[str, str]:
    result: dict[str, str] = {}
    for name, value in values.items():
        name = "model" if name == "options" and not table else name
        if isinstance(value, Mapping):
            result.update(_flat(value, f"{table}{name}."))
        else:
            result[table + name] = _text(value)
    return result


__all__ = ["describe", "rows_of", "served"]
