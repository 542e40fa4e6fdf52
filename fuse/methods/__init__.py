"""The registry of methods: where each one's network is, and what it declares. Imports no torch.

A method is one file in `fuse/models/` and one entry here. What it declares beyond a name (options,
presets, what a preset violates) is a subclass of `Options`.
"""

from __future__ import annotations

from collections.abc import Iterable

from ...errors import ConfigError, did_you_mean
from .availability import AvailabilityOptions
from .base import Method, NoHead, Options, Recorded
from .cm2 import CM2Options
from .concat import ConcatOptions
from .daft import DAFTOptions
from .drfuse import DrFuseOptions
from .flexmoe import FlexMoEOptions
from .interleaved import InterleavedOptions
from .late import LateOptions
from .lsmt import LSMTOptions
from .medfuse import MedFuseOptions
from .mmtm import MMTMOptions
from .own import OWN, load_file
from .recipes import PAPER_RECIPE
from .shaspec import ShaSpecOptions
from .transformer import TransformerOptions
from .whole import BoostingOptions, LogisticOptions

METHODS: dict[str, Method] = {
    "cm2": Method("cm2:CM2", CM2Options),
    "concat": Method("concat:Concat", ConcatOptions),
    "transformer": Method("transformer:TokenTransformer", TransformerOptions),
    "single": Method("single:Single", NoHead),
    "availability": Method("availability:Availability", AvailabilityOptions),
    "logistic": Method("logistic:Logistic", LogisticOptions),
    "boosting": Method("boosting:Boosting", BoostingOptions),
    "late": Method("late:Late", LateOptions),
    "unified": Method("unified:Unified", NoHead),
    "unified_dynamic": Method("unified:UnifiedDynamic", NoHead),
    "medfuse": Method("medfuse:MedFuse", MedFuseOptions),
    "mmtm": Method("mmtm:MMTM", MMTMOptions),
    "daft": Method("daft:DAFT", DAFTOptions),
    "drfuse": Method("drfuse:DrFuse", DrFuseOptions),
    "lsmt": Method("lsmt:LSMT", LSMTOptions),
    "interleaved": Method("interleaved:Interleaved", InterleavedOptions),
    "shaspec": Method("shaspec:ShaSpec", ShaSpecOptions),
    "flexmoe": Method("flexmoe:FlexMoE", FlexMoEOptions),
}


def canonical(name: str) -> str:
    """Name of a method as a configuration has it; `FILE.py:CLASS` is loaded.

    Raises:
        ConfigError: There is no such method; the nearest name is offered.
    """
    if name in METHODS or "@" in name:
        return name
    if ":" in name:
        return load_file(name)
    raise ConfigError(unknown("model", name, METHODS))


def find(name: str) -> Method:
    """Find a method by name.

    A method of the user's own that a run names and this process has not loaded takes any options:
    its predictions can be judged all the same.

    Raises:
        ConfigError: There is none; the nearest name is offered.
    """
    name = canonical(name)
    return METHODS.get(name) or OWN.get(name) or Method("", Recorded)


def trained_by_steps() -> list[str]:
    """Names of the methods that learn step by step; the others are fitted as a whole."""
    return [name for name, method in METHODS.items() if not method.options().candidates()]


def short(name: str) -> str:
    """Name of a method for tables and folders: of a method of the user's own the class."""
    return name.partition("@")[0].rpartition(":")[2]


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Say that a name is not known, and which one was probably meant.

    Args:
        kind: What the name stands for.
        name: What was found.
        known: What is offered.
    """
    known = list(known)
    hint = did_you_mean(name, known)
    return f"Unknown {kind} {name!r}.{hint} Known: {', '.join(known) or 'none'}."


__all__ = [
    "METHODS",
    "PAPER_RECIPE",
    "Method",
    "Options",
    "Recorded",
    "canonical",
    "find",
    "short",
    "trained_by_steps",
    "unknown",
]
