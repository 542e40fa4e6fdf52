"""Fusion methods: one interface, one file each, one registry."""

from __future__ import annotations

from .availability import Availability
from .cm2 import CM2
from .concat import Concat
from .daft import DAFT
from .interface import FusionModel
from .late import Late
from .medfuse import MedFuse
from .mmtm import MMTM
from .single import Single
from .unified import Unified, UnifiedDynamic

MODELS: dict[str, type[FusionModel]] = {
    "cm2": CM2,
    "concat": Concat,
    "single": Single,
    "availability": Availability,
    "late": Late,
    "unified": Unified,
    "unified_dynamic": UnifiedDynamic,
    "medfuse": MedFuse,
    "mmtm": MMTM,
    "daft": DAFT,
}
