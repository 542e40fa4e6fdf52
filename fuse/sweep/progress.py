"""How far a sweep is, for whoever watches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Leader:
    """One of the best settings so far.

    Attributes:
        values: What it sets, of the options that the sweep varies.
        score: Mean over its runs of what settings are ranked by, on the validation stays.
        spread: Standard deviation over its runs; None with one.
        runs: Finished runs.
    """

    values: Mapping[str, str]
    score: float
    spread: float | None
    runs: int


@dataclass(frozen=True)
class Snapshot:
    """How far a sweep is.

    Attributes:
        done: Runs that are finished, of this call's part.
        total: Runs of this call's part.
        failed: Runs that failed.
        leaders: The best settings so far, best first.
        seconds_left: Estimate from the runs of this call, or None.
        per_hour: Runs of this call per hour, or None before the first.
        stage: What is going on, such as `epochs to 9`.
    """

    done: int
    total: int
    failed: int
    leaders: tuple[Leader, ...] = ()
    seconds_left: float | None = None
    per_hour: float | None = None
    stage: str = ""


Watch = Callable[[Snapshot], None]


def unwatched(snapshot: Snapshot) -> None:
    """Show nothing."""


__all__ = ["Leader", "Snapshot", "Watch", "unwatched"]
