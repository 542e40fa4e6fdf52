"""Options of DAFT: in the form of MedFuse, and as published."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from .base import Options
from .recipes import PUBLISHED_RECIPE


class DAFTOptions(Options):
    """What is modulated, where the scale is counted from, and how narrow its network is."""

    modulated: Literal["series", "map"] = Field(
        "series",
        description="What is scaled and shifted: the states of the series (the form of MedFuse), "
        "or the cells of the film's feature map, which needs a store of --level grid (the "
        "publication).",
    )

    scale_from: Literal["one", "zero"] = Field(
        "one",
        description="The scale is a deviation from 1, or the number itself: without biases it "
        "starts near 0 and silences the anchor (the public code).",
    )
    scale_act: Literal["linear", "sigmoid", "tanh"] = Field(
        "linear", description="Activation of the scale."
    )
    modulate: Literal["both", "scale", "shift"] = Field(
        "both", description="What the states are given."
    )
    bottleneck: int = Field(
        0,
        ge=0,
        le=4096,
        description="Width of the network that makes scale and shift; 0 is a seventh of what it "
        "reads, 16 at least; the public code has 75 whatever that is.",
    )

    missing: Literal["skip", "blank"] = Field(
        "skip",
        description="An absent modality modulates nothing, or an empty input takes its place (the "
        "public code).",
    )

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "reference": PUBLISHED_RECIPE
        | {
            "lr": 6.493e-5,
            "scheduler": "none",  # made, and never stepped
            "options": {"scale_from": "zero", "bottleneck": 75, "missing": "blank"},
        },
        "original": {"options": {"modulated": "map", "scale_from": "zero"}},
    }
    violates: ClassVar[Mapping[str, Mapping[str, str]]] = {
        "modulate=scale": {"sensitivity": "without the anchor there is nothing to scale"}
    }
    unread: ClassVar[tuple[str, ...]] = ("fusion_hidden",)
    later: ClassVar[tuple[str, ...]] = ("missing", "modulated")


__all__ = ["DAFTOptions"]
