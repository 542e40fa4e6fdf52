"""Fusion methods: one interface, one file each, one registry."""

from __future__ import annotations

from .cm2 import CM2
from .concat import Concat
from .interface import FusionModel
from .single import Single

MODELS: dict[str, type[FusionModel]] = {
    "cm2": CM2,
    "concat": Concat,
    "single": Single,
}
