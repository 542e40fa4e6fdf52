"""Presets of CM2. Its options are those of a run: every one has an option of the command line.

The paper's weight of the copula multiplies a sum over the 256 coordinates, `lambda_cop` their
mean: 1e-6 becomes 2.56e-4.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ..published import Published
from .base import Options
from .recipes import PAPER_RECIPE

PAPER_LAMBDA, PAPER_WIDTH = 1e-6, 256

PAPER: dict[str, Any] = PAPER_RECIPE | {
    "copula": "gumbel",
    "K": 3,
    "mixture_weights": "mlp",
    "lambda_cop": PAPER_LAMBDA * PAPER_WIDTH,
    "copula_dim": 0,
    "impute": "marginal",
    "availability_bits": False,
    "fusion_hidden": 512,
    "fusion_layers": 2,
    "lr_copula": 1e-4,
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


class CM2Options(Options):
    """None beside those of a run."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": PAPER, "reference": REFERENCE}
    violates: ClassVar[Mapping[str, Mapping[str, str]]] = {
        "reference": {
            "sensitivity": "two_tokens: a report changes nothing",
            "draws": "imputed_unread: no draw reaches the prediction",
            "gradients": "constant_start and two_tokens: idle weights",
        }
    }


__all__ = ["PAPER", "REFERENCE", "CM2Options"]
