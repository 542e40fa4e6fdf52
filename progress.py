"""How long work reports itself and is asked to stop, without knowing any terminal.

Workers take a `Progress` and a `Stop`. The command line passes a bar on stderr and a stop that
listens to signals and to `--time-limit`; a Python caller may pass nothing.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType
from typing import Protocol

from .errors import Interrupted


class Progress(Protocol):
    """Opens one bar: description, total (None when unknown), and the unit counted."""

    def __call__(
        self, description: str, total: int | None, unit: str = "items"
    ) -> AbstractContextManager[Callable[[int], None]]:
        """Return a context manager whose value is called with the number of units just done."""


@contextmanager
def silent(
    description: str, total: int | None, unit: str = "items"
) -> Iterator[Callable[[int], None]]:
    """Show nothing: the default `Progress` of every library function."""
    yield lambda done: None


class Stop:
    """A polite request to stop, looked at between shards and between epochs.

    Args:
        seconds: Time limit from now in seconds; None for no limit.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self._signal: int | None = None

    def request(self, signum: int, frame: FrameType | None = None) -> None:
        """Ask to stop at the next safe point; a second request stops at once."""
        if self._signal is not None:
            raise KeyboardInterrupt
        self._signal = signum

    def check(self, finished: str) -> None:
        """Return when the work may go on.

        Args:
            finished: What is safely stored by now, for the message.

        Raises:
            Interrupted: A signal came or the time limit has passed.
        """
        if self._signal is not None:
            name = signal.Signals(self._signal).name
            raise Interrupted(
                f"Stopped by {name}: {finished}. The same command continues from here.",
                exit_code=128 + self._signal,
            )
        if self._deadline is not None and time.monotonic() >= self._deadline:
            raise Interrupted(
                f"The time limit is reached: {finished}. The same command continues from here."
            )


def never() -> Stop:
    """A `Stop` that is never requested: the default of every library function."""
    return Stop()
