"""Everything cm2 raises on purpose; each class carries the exit code of the command line.

```
CM2Error
├── ConfigError            2   an option or a configuration that cannot be meant
│   └── UnsupportedError   2   meaningful, but not offered (the message names what is)
├── DataError              3   the input data are not what they should be
│   ├── SchemaError        3   a table, column or type differs from the documented one
│   └── LeakageError       3   information would cross from test to training, or from the future
├── RejectsError           4   finished, but more items were rejected than allowed
├── IntegrityError         5   a stored file is not what was written
├── ResourceError          6   disk, memory, device
│   └── BusyError          6   another process holds what is needed
└── Interrupted          130   stopped on request (143 for SIGTERM); the same command resumes
```

Every message says what was expected, what was found, and what to do next.
"""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar


class CM2Error(Exception):
    """Base of all deliberate errors; the command line prints its text without a traceback."""

    exit_code: ClassVar[int] = 1


class ConfigError(CM2Error):
    """An option or configuration value is unknown, impossible or contradictory."""

    exit_code = 2


class UnsupportedError(ConfigError):
    """The request is meaningful but not offered for these arguments."""


class DataError(CM2Error):
    """Input data are missing, unreadable or implausible."""

    exit_code = 3


class SchemaError(DataError):
    """A table lacks a column, or a value cannot be read as the documented type."""


class LeakageError(DataError):
    """Test information would reach training, or a later measurement an earlier prediction."""


class RejectsError(CM2Error):
    """The work is finished, but more items than allowed were rejected."""

    exit_code = 4


class IntegrityError(CM2Error):
    """A file of a cache or run differs from what was written, or could harm its reader."""

    exit_code = 5


class ResourceError(CM2Error):
    """Disk, memory or a device is exhausted or absent."""

    exit_code = 6


class BusyError(ResourceError):
    """Another living process works on the same directory."""


class Interrupted(CM2Error):
    """Stopped on request at a safe point; the same command continues.

    Args:
        message: What was finished and how to go on.
        exit_code: 130 after SIGINT or a time limit, 143 after SIGTERM.
    """

    exit_code = 130

    def __init__(self, message: str, exit_code: int = 130) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most like another, whatever its case; None if none is alike."""
    plain = {word.casefold(): word for word in known}
    found = difflib.get_close_matches(name.casefold(), plain, n=1, cutoff=0.5)
    return plain[found[0]] if found else None


def did_you_mean(name: str, known: Iterable[str], within: str = "") -> str:
    """The sentence of a message about an unknown name that names the nearest one, or nothing.

    Args:
        name: What was found.
        known: What is offered.
        within: Stands before the name, such as `published.`.
    """
    near = nearest(name, known)
    return "" if near is None else f" Did you mean {within + near!r}?"


def quoted(word: str | Path) -> str:
    """A word or path as a shell takes it, for commands that a message advises."""
    return shlex.quote(str(word))


__all__ = [
    "BusyError",
    "CM2Error",
    "ConfigError",
    "DataError",
    "IntegrityError",
    "Interrupted",
    "LeakageError",
    "RejectsError",
    "ResourceError",
    "SchemaError",
    "UnsupportedError",
    "did_you_mean",
    "nearest",
    "quoted",
]
