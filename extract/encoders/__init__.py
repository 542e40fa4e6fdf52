"""Encoders by name, and where their weights come from."""

from __future__ import annotations

ENCODED: dict[str, tuple[str, ...]] = {
    "cxr": (
        *("resnet34", "resnet18", "resnet50", "densenet121"),
        *("resnet8", "resnet8_gn", "resnet18_gn", "resnet34_gn"),
        *("vit_s_16", "vit_b_16"),
    ),
    "report": ("tinybert", "minilm"),
    "note": ("tinybert", "minilm"),
}
"""Modalities that an encoder turns into vectors, with the encoders offered for each."""

__all__ = ["ENCODED"]
