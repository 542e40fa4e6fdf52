"""Options of ShaSpec."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from .base import Options


class ShaSpecOptions(Options):
    """What stands in for an absent modality, and the weights of the losses."""

    stand_in: Literal["mean", "first"] = Field(
        "mean",
        description="For an absent modality: the mean of the shared features that are there, or "
        "the first of them (the public code).",
    )
    weight_align: float = Field(
        0.1, ge=0, description="Weight of the distance of the shared features."
    )
    weight_classify: float = Field(
        0.02, ge=0, description="Weight of telling the modality from its specific features."
    )

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "original": {"options": {"stand_in": "first"}}
    }


__all__ = ["ShaSpecOptions"]
