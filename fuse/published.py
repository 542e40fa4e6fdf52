"""The defects of the published code in stage two, each a switch that is off by default.

What each one computes is in `models/published.py`, its evidence in docs/mathematics.md. They exist
so that published numbers can be understood; no other preset than `reference` sets one.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Published(BaseModel):
    """One boolean per defect. Frozen; unknown names are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    formulas: bool = Field(
        default=False,
        description="Gumbel's distribution function in place of its density, a Frank density that "
        "is none, and arguments standardised over the batch for Frank and Gaussian.",
    )
    diagonal_components: bool = Field(
        default=False, description="Component k of a modality meets only component k of the others."
    )
    constant_start: bool = Field(
        default=False,
        description="All components start equal, so they stay equal and K has no effect.",
    )
    averaged_draws: bool = Field(
        default=False,
        description="A draw from a mixture is the weighted mean of its components' draws.",
    )
    detached_draws: bool = Field(default=False, description="Draws carry no gradient.")
    imputed_unread: bool = Field(default=False, description="The fusion skips what was imputed.")
    two_tokens: bool = Field(
        default=False, description="The fusion reads the first two modalities; a report is ignored."
    )
    imputed_likelihood: bool = Field(
        default=False, description="Imputed values enter the likelihood as if they were data."
    )
    raw_space: bool = Field(
        default=False,
        description="The copula reads the normalised embeddings themselves, not white coordinates.",
    )
    validate_first: bool = Field(
        default=False,
        description="Each epoch validates before it trains; the last training is not judged.",
    )
    validation_in_normaliser: bool = Field(
        default=False, description="Normalisers are fitted to training and validation stays."
    )
