"""Options of `availability`: none, and no encoder to set up."""

from __future__ import annotations

from typing import ClassVar

from .base import Options


class AvailabilityOptions(Options):
    """No values are read, so nothing of the encoders can be chosen."""

    unread: ClassVar[tuple[str, ...]] = ("hidden", "fusion_hidden", "series_encoder", "dropout")


__all__ = ["AvailabilityOptions"]
