"""Options of MedFuse."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from .base import Options
from .recipes import PUBLISHED_RECIPE


class MedFuseOptions(Options):
    """Depth of the sequence model and which tokens it is shown."""

    layers: int = Field(
        1, ge=1, le=4, description="Layers of the LSTM: two in the paper's text, one in its code."
    )
    type_embedding: bool = Field(
        default=False, description="Add a learned vector of its modality to every token."
    )
    two_tokens: bool = Field(
        default=False,
        description="Defect of the three-modal public code: a third token is never read.",
    )

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "reference": PUBLISHED_RECIPE | {"lr": 9.382e-5, "options": {"two_tokens": True}},
        "original": {
            "optimizer": "adam",
            "lr": 1e-4,
            "weight_decay": 0.0,
            "batch_size": 16,
            "epochs": 50,
            "options": {"layers": 2},
        },
    }
    violates: ClassVar[Mapping[str, Mapping[str, str]]] = {
        name: {
            "sensitivity": "a report changes nothing: the packed length is two",
            "gradients": "the encoder of the report is never reached",
        }
        for name in ("reference", "two_tokens=true")
    }


__all__ = ["MedFuseOptions"]
