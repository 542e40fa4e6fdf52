"""Options of late fusion."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from .base import NoHead


class LateOptions(NoHead):
    """How the words of the modalities become one."""

    later: ClassVar[tuple[str, ...]] = ("combine", "events")

    combine: Literal["mean", "stacking"] = Field(
        "mean",
        description="mean: the mean probability of what is there; stacking: logistic regression of "
        "what the modalities say, one for each pattern of availability, fitted to the validation "
        "stays once the epoch is chosen.",
    )
    events: int = Field(
        10,
        ge=1,
        description="Stacking: events, and stays without one, that a pattern needs for weights of "
        "its own; rarer patterns share weights, with one level for each modality that is there.",
    )


__all__ = ["LateOptions"]
