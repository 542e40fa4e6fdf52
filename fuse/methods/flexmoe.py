"""Options of Flex-MoE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from .base import Options


class FlexMoEOptions(Options):
    """Size of the mixture of experts, and the weights of what its router learns from."""

    experts: int = Field(
        16,
        ge=1,
        le=256,
        description="Experts; one belongs to each combination of modalities, 2^M - 1 for M.",
    )
    top: int = Field(4, ge=1, description="Experts that a token is sent to.")
    tokens: int = Field(4, ge=1, le=64, description="Tokens of a modality; 16 in the publication.")
    layers: int = Field(1, ge=1, le=12, description="Layers of attention and experts.")
    weight_route: float = Field(
        0.01, ge=0, description="Weight of sending a stay that lacks something to its own expert."
    )
    weight_balance: float = Field(
        0.01, ge=0, description="Weight of an even use of the experts by complete stays."
    )
    complete_first: int = Field(
        0, ge=0, description="Epochs at the start that learn from complete stays only."
    )

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "original": {
            "hidden": 128,
            "lr": 1e-4,
            "batch_size": 8,
            "options": {"tokens": 16, "complete_first": 5},
        }
    }
    unread: ClassVar[tuple[str, ...]] = ("fusion_hidden",)
    small: ClassVar[Mapping[str, Any]] = {"experts": 8, "top": 2, "tokens": 2}


__all__ = ["FlexMoEOptions"]
