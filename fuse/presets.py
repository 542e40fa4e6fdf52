"""Presets: named sets of options. Given options win; the options are recorded, not the name.

corrected   the defaults
paper       the settings that the paper states, on correct mathematics
reference   what the published code computes: the paper's settings and every published defect

The paper's weight of the copula multiplies a sum over the 256 coordinates, `lambda_cop` their
mean: 1e-6 becomes 2.56e-4.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import ConfigError
from .config import FuseConfig, unknown
from .published import Published

PAPER_LAMBDA, PAPER_WIDTH = 1e-6, 256

PAPER: dict[str, Any] = {
    "copula": "gumbel",
    "K": 3,
    "mixture_weights": "mlp",
    "lambda_cop": PAPER_LAMBDA * PAPER_WIDTH,
    "copula_dim": 0,
    "impute": "marginal",
    "availability_bits": False,
    "hidden": PAPER_WIDTH,
    "fusion_hidden": 512,
    "fusion_layers": 2,
    "dropout": 0.3,
    "epochs": 100,
    "patience": 15,
    "batch_size": 32,
    "optimizer": "adam",
    "lr": 1e-4,
    "lr_copula": 1e-4,
    "weight_decay": 0.0,
    "scheduler": "plateau",
    "clip": 0.0,
    "temperature": 1e-3,
}

REFERENCE: dict[str, Any] = PAPER | {
    "mixture_weights": "logits",
    "coupling": "joint",
    "objective": "paper",
    "draws": 1,
    "fusion_layers": 1,
    "beta2": 0.9,
    "temperature": 1e-4,
    "published": dict.fromkeys(Published.model_fields, True),
}

PRESETS: dict[str, dict[str, Any]] = {"corrected": {}, "paper": PAPER, "reference": REFERENCE}


def resolve(given: Mapping[str, Any]) -> dict[str, Any]:
    """Lay given options over those of the preset that they name.

    Args:
        given: Options by field name, nested ones as mappings; `preset` names the preset.

    Returns:
        Options without `preset`.

    Raises:
        ConfigError: An unknown preset.
    """
    name = str(given.get("preset") or "corrected")
    if name not in PRESETS:
        raise ConfigError(unknown("preset", name, tuple(PRESETS)))
    return _over(PRESETS[name], {k: v for k, v in given.items() if k != "preset"})


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


__all__ = ["PRESETS", "resolve", "weights"]
