"""How far a sweep is: a live table on a terminal, plain lines elsewhere; on stderr."""

from __future__ import annotations

import math
import sys
import time
from typing import TYPE_CHECKING, Self

from ..console import SECONDS_BETWEEN_LINES

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

    from ..fuse.sweep.progress import Snapshot


class Board:
    """Shows runs done and failed, time left, and the best settings so far.

    Args:
        quiet: Show nothing.
    """

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet
        self._start, self._last = time.monotonic(), -math.inf
        self._heard, self._line = self._start, ""
        self._snapshot: Snapshot | None = None
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if not self._quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            console = Console(stderr=True)
            self._live = Live(console=console, refresh_per_second=1, get_renderable=self.table)
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, snapshot: Snapshot) -> None:
        """Show where the sweep stands; elsewhere than on a terminal every ten seconds only."""
        self._snapshot, self._heard = snapshot, time.monotonic()
        if self._quiet or self._live is not None:
            return  # the live table looks by itself
        line, ended = summary(snapshot), snapshot.done == snapshot.total
        if line != self._line and (ended or self._heard - self._last >= SECONDS_BETWEEN_LINES):
            print(line, file=sys.stderr, flush=True)
            self._line, self._last = line, self._heard

    def table(self) -> RenderableType:
        """What stands on the terminal now: a bar with times, and the best settings under it."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        one, now = self._snapshot, time.monotonic()
        if one is None:
            return Text("sweep: the grid is laid out")
        parts = [f"{duration(now - self._start)} passed"]
        if one.per_hour is not None:
            parts.append(f"{one.per_hour:,.0f} runs/h")
        if one.seconds_left is not None:
            parts.append(f"{duration(max(0.0, one.seconds_left - now + self._heard))} left")
        bar = Table.grid(padding=(0, 2))
        bar.add_row(
            ProgressBar(total=max(one.total, 1), completed=one.done, width=40),
            Text(", ".join(parts)),
        )
        head = Group(Text(f"sweep: {_count(one)}"), bar)
        if not one.leaders:
            return head
        best = Table(box=None, pad_edge=False, header_style="bold")
        for title in ("", "validation", "sd", "runs"):
            best.add_column(title, justify="right")
        for name in one.leaders[0].values:
            best.add_column(name)
        for rank, leader in enumerate(one.leaders, 1):
            spread = "" if leader.spread is None else f"{leader.spread:.3f}"
            figures = (str(rank), f"{leader.score:.3f}", spread, str(leader.runs))
            best.add_row(*figures, *leader.values.values())
        return Group(head, best)


def summary(one: Snapshot) -> str:
    """Where the sweep stands, in one line."""
    parts = [f"sweep: {_count(one)}"]
    if one.seconds_left is not None and one.done < one.total:
        parts.append(f"{duration(one.seconds_left)} left")
    if one.leaders:
        first = one.leaders[0]
        words = " ".join(f"{name}={value}" for name, value in first.values.items())
        parts.append(f"best {first.score:.3f} {words}".rstrip())
    return ", ".join(parts)


def _count(one: Snapshot) -> str:
    parts = [f"{one.done:,}/{one.total:,} runs"]
    if one.stage:
        parts.append(one.stage)
    if one.failed:
        parts.append(f"{one.failed:,} failed")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """Seconds as hours, minutes or seconds, whichever reads best."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


__all__ = ["Board", "duration", "summary"]
