"""Options of concatenation."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .base import Options


class ConcatOptions(Options):
    """What stands in for an absent modality, and how absence is learned from."""

    missing: Literal["zero", "mean", "learned", "blank"] = Field(
        "zero",
        description="In place of an absent embedding: zeros, the mean of the training stays that "
        "have it (renewed after each epoch), a learned vector, or the embedding of an empty input.",
    )
    bits: bool = Field(default=True, description="Read which modalities there are.")
    modality_dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Chance that a modality of a stay is withheld in training; one is always left.",
    )


__all__ = ["ConcatOptions"]
