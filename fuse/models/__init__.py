"""Fusion methods: one interface, one file each, one registry."""

from __future__ import annotations

from .concat import Concat
from .interface import FusionModel
from .single import Single

MODELS: dict[str, type[FusionModel]] = {
    "concat": Concat,
    "single": Single,
}
