"""Options of MMTM."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from .base import Options
from .recipes import PUBLISHED_RECIPE


class MMTMOptions(Options):
    """The block's details, in which paper and public code differ."""

    gate_scale: float = Field(
        1.0,
        gt=0,
        le=4,
        description="Factor of every gate; 2 in the paper, so that a gate can be 1.",
    )
    squeeze_act: Literal["relu", "none"] = Field(
        "relu", description="After the squeeze; none in the paper, relu in its public code."
    )
    pairing: Literal["joint", "pairwise"] = Field(
        "joint",
        description="One block over all modalities, or one for each auxiliary with the anchor, "
        "in turn; the same for two modalities.",
    )
    predict: Literal["joint", "mean"] = Field(
        "joint",
        description="The joint classifier (MedFuse's form), or the mean logit of the branches that "
        "are there and nothing else (the paper).",
    )
    crossed_steps: bool = Field(
        default=False,
        description="Defect of the public code: the anchor's own loss steps the encoder of the "
        "first auxiliary.",
    )

    missing: Literal["skip", "blank"] = Field(
        "skip",
        description="An absent modality is left out, or an empty input takes its place (the public "
        "code); either way its own classifier is not judged by it.",
    )

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "reference": PUBLISHED_RECIPE
        | {
            "lr": 4.355e-5,
            "scheduler": "none",  # made, and never stepped
            "published": {"validation_in_normaliser": True},  # its loop alone trains first
            "options": {"pairing": "pairwise", "crossed_steps": True, "missing": "blank"},
        },
        "original": {
            "optimizer": "adam",
            "lr": 1e-4,
            "weight_decay": 1e-4,
            "options": {"gate_scale": 2.0, "squeeze_act": "none", "predict": "mean"},
        },
    }
    violates: ClassVar[Mapping[str, Mapping[str, str]]] = {
        name: {"steps": "the series' loss steps the image's encoder"}
        for name in ("reference", "crossed_steps=true")
    }
    unread: ClassVar[tuple[str, ...]] = ("fusion_hidden",)
    later: ClassVar[tuple[str, ...]] = ("missing",)


__all__ = ["MMTMOptions"]
