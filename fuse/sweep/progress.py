"""How far a sweep is, for whoever watches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Snapshot:
    """How far a sweep is.

    Attributes:
        done: Runs that are finished, of this call's part.
        total: Runs of this call's part.
        failed: Runs that failed.
        best: The best setting so far, as `label (score over runs)`; empty before there is one.
        seconds_left: Estimate from the runs of this call, or None.
        stage: What is going on, such as `epochs to 9`.
    """

    done: int
    total: int
    failed: int
    best: str = ""
    seconds_left: float | None = None
    stage: str = ""


Watch = Callable[[Snapshot], None]


def unwatched(snapshot: Snapshot) -> None:
    """Show nothing."""


__all__ = ["Snapshot", "Watch", "unwatched"]
