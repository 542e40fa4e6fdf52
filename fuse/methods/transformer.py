"""Options of the masked-token transformer."""

from __future__ import annotations

from pydantic import Field

from .base import Options


class TransformerOptions(Options):
    """Depth, and how absence is learned from."""

    layers: int = Field(2, ge=1, le=12, description="Layers of attention.")
    modality_dropout: float = Field(
        0.3,
        ge=0,
        lt=1,
        description="Chance that a modality of a stay is withheld in training; one is always left.",
    )


__all__ = ["TransformerOptions"]
