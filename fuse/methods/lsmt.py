"""Options of LSMT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from .base import Options


class LSMTOptions(Options):
    """How a time series becomes tokens, and the size of both networks."""

    series: Literal["perceiver", "lstm", "transformer"] = Field(
        "perceiver",
        description="Tokens of a time series: latents of a Perceiver as published, or the states "
        "of an encoder after each step (the paper's Table 10).",
    )
    latents: int = Field(
        16, ge=1, le=512, description="Latents of a Perceiver; 64 in the publication."
    )
    depth: int = Field(2, ge=1, le=12, description="Blocks of a Perceiver; 9 in the publication.")
    layers: int = Field(
        2, ge=1, le=12, description="Layers of the joint Transformer; 4 in the publication."
    )
    token_mask: bool = Field(
        default=True,
        description="Leave the tokens of absent modalities and padding unread; the publication "
        "reads them as zeros.",
    )
    doubled: bool = Field(
        default=False,
        description="Quirk of the public code: tokens count twice, with one run of positions.",
    )

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "original": {
            "hidden": 384,
            "lr": 4e-5,
            "batch_size": 150,
            "scheduler": "cosine",
            "epochs": 300,
            "patience": 300,
            "options": {
                "latents": 64,
                "depth": 9,
                "layers": 4,
                "token_mask": False,
                "doubled": True,
            },
        }
    }
    violates: ClassVar[Mapping[str, Mapping[str, str]]] = {
        name: {"padding": reason}
        for name, reason in (
            ("original", "padding is read, and its tokens are counted"),
            ("token_mask=false", "padding is read"),
            ("doubled=true", "a token's position counts the padding before it"),
        )
    }
    unread: ClassVar[tuple[str, ...]] = ("fusion_hidden", "series_encoder")
    small: ClassVar[Mapping[str, Any]] = {"latents": 3, "depth": 1, "layers": 1}


__all__ = ["LSMTOptions"]
