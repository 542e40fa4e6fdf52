"""The registry of methods: where each one's network is, and what it declares. Imports no torch.

A method is one file in `fuse/models/` and one entry here. What it declares beyond a name (options,
presets, what a preset violates) is a subclass of `Options`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from ...errors import ConfigError
from .availability import AvailabilityOptions
from .base import NoHead, Options, Recorded
from .cm2 import CM2Options
from .daft import DAFTOptions
from .drfuse import DrFuseOptions
from .flexmoe import FlexMoEOptions
from .interleaved import InterleavedOptions
from .lsmt import LSMTOptions
from .medfuse import MedFuseOptions
from .mmtm import MMTMOptions
from .recipes import PAPER_RECIPE
from .shaspec import ShaSpecOptions


@dataclass(frozen=True)
class Method:
    """One entry of the registry.

    Attributes:
        home: Module below `fuse.models` and class of the network, `module:Class`.
        options: What the method declares.
    """

    home: str
    options: type[Options] = Options

    @property
    def presets(self) -> tuple[str, ...]:
        """Names of the presets, the default first."""
        return tuple(dict.fromkeys(("corrected", *self.options.presets)))


METHODS: dict[str, Method] = {
    "cm2": Method("cm2:CM2", CM2Options),
    "concat": Method("concat:Concat"),
    "single": Method("single:Single", NoHead),
    "availability": Method("availability:Availability", AvailabilityOptions),
    "late": Method("late:Late", NoHead),
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


def find(name: str) -> Method:
    """Find a method by name.

    Raises:
        ConfigError: There is none; the nearest name is offered.
    """
    if name not in METHODS:
        raise ConfigError(unknown("model", name, METHODS))
    return METHODS[name]


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Say that a name is not known, and which one was probably meant.

    Args:
        kind: What the name stands for.
        name: What was found.
        known: What is offered.
    """
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"Unknown {kind} {name!r}.{hint} Known: {', '.join(known) or 'none'}."


__all__ = ["METHODS", "PAPER_RECIPE", "Method", "Options", "Recorded", "find", "unknown"]
