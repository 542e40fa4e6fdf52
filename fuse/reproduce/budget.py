"""How many settings of a method validation chooses from: as many for one as for another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..config import FuseConfig
from ..sweep.axis import Axis, parse, shown
from ..sweep.grid import expand, sample

SPACE = ("lr=1e-4..1e-2", "weight_decay=1e-6..1e-2", "dropout=0:0.5")
"""What is drawn from where nothing else is named: options that the methods share."""

_SEED = 0


def space(tune: Sequence[Axis], tries: int | None) -> tuple[Axis, ...]:
    """What settings are drawn from.

    Args:
        tune: What the user names.
        tries: Settings of every method, or None.
    """
    return tuple(tune) or (tuple(map(parse, SPACE)) if tries is not None and tries > 1 else ())


def settings(
    options: Mapping[str, Any], tune: Sequence[Axis], tries: int | None
) -> tuple[FuseConfig, ...]:
    """List the settings of one method.

    With a number of tries these are the setting that the method has by itself, and others drawn
    at random; the same draws for every method that reads the same options.

    Args:
        options: Options of the method.
        tune: Options that vary, of those that the method reads.
        tries: Number of settings; None for every combination.

    Raises:
        ConfigError: The options cannot be meant.
    """
    own = FuseConfig.of(options)
    if not tune:
        return (own,)
    if tries is None:
        return tuple(one.config for one in expand(options, tune).settings)
    drawn = (one.config for one in sample(options, tune, tries, _SEED).settings)
    return (own, *(config for config in drawn if config != own))[:tries]


def told(tune: Sequence[Axis]) -> str:
    """Write the options that vary and their values in one line."""
    parts = []
    for axis in tune:
        values = " | ".join(map(shown, axis.values))
        if axis.span is not None:
            low, high = map(shown, axis.span)
            values = f"{low} to {high}" + (" (log)" if axis.log else "")
        parts.append(f"{axis.name} {values}")
    return ", ".join(parts)


__all__ = ["SPACE", "settings", "space", "told"]
