"""Options of `availability`, which has no encoder and is fitted as a whole."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from .base import Options
from .whole import WholeOptions


class AvailabilityOptions(Options):
    """No values are read, so nothing of the encoders and their training can be chosen."""

    unread: ClassVar[tuple[str, ...]] = WholeOptions.unread

    prior: float = Field(
        1.0,
        gt=0,
        description="Stays at the rate of all that are added to those of each pattern, so that a "
        "rare one is not certain.",
    )

    def candidates(self) -> int:
        """One solution."""
        return 1


__all__ = ["AvailabilityOptions"]
