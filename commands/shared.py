"""What the commands share: options of one meaning, progress bars, stopping, output."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from ..cache.layout import COHORTS
from ..console import Bars, set_up_logging
from ..errors import ConfigError
from ..progress import Stop
from ..settings import DEFAULT_CACHE

_level = 0

CacheOption = Annotated[
    Path, typer.Option(envvar="CM2_CACHE", help="Folder of the cache.", metavar="DIR")
]
OwnCacheOption = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the cache; default: the one that the run lies in, else $CM2_CACHE.",
        metavar="DIR",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for machines on stdout.")]
RunArgument = Annotated[Path, typer.Argument(help="Directory of a run.", metavar="RUN")]
FilmsOption = Annotated[
    Path | None,
    typer.Option(
        envvar="CM2_FILMS",
        help="Mode stream, films extracted as --level files: their root folder.",
        metavar="ROOT",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and stop.")]
TimeLimit = Annotated[
    float | None,
    typer.Option(help="Stop at the next safe point after so many minutes.", metavar="MINUTES"),
]


def set_verbosity(level: int) -> None:
    """Say only warnings and errors (-1), the usual (0), more (1) or everything (2)."""
    global _level
    _level = level
    set_up_logging(level)


def verbosity() -> int:
    """How much to say, as `set_verbosity` was told."""
    return _level


def bars() -> Bars:
    """Progress bars on stderr."""
    return Bars(quiet=_level < 0)


def stopping(minutes: float | None = None) -> Stop:
    """A request to stop at the next safe point: by signal, or after so many minutes."""
    stop = Stop(None if minutes is None else 60 * minutes)
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, stop.request)
    return stop


def read_films(root: Path | None) -> None:
    """Say where films are to whoever reads them, in other processes too."""
    if root is not None:
        os.environ["CM2_FILMS"] = str(root)


def found_cache(run: Path, named: Path | None) -> Path | None:
    """The cache that was named, else the one that a run or group lies in, else $CM2_CACHE."""
    if named is not None:
        return named
    if told := os.environ.get("CM2_CACHE"):
        usual: Path | None = Path(told)
    else:
        usual = DEFAULT_CACHE if (DEFAULT_CACHE / COHORTS).is_dir() else None
    # the way that was named first: `runs`, or a run, may be a link to another disk
    around = (*run.absolute().parents, *run.resolve().parents)
    return next((folder for folder in around if (folder / COHORTS).is_dir()), usual)


def cache_of(run: Path, named: Path | None) -> Path:
    """The cache of a run, see `found_cache`.

    Raises:
        ConfigError: The run lies in no cache, and none was named.
    """
    cache = found_cache(run, named)
    if cache is None:
        raise ConfigError(f"{run} lies in no cache: name the one to read with --cache DIR.")
    return cache


def print_json(value: object) -> None:
    """Print a result for machines."""
    print(json.dumps(value, indent=2, sort_keys=True, default=str))


def say(text: str) -> None:
    """Say something on stderr, unless told to be quiet."""
    if _level >= 0:
        print(text, file=sys.stderr)


def suggest(command: str) -> None:
    """Say on stderr which command comes next."""
    say(f"next: {command}")


__all__ = [
    "CacheOption",
    "DryRun",
    "FilmsOption",
    "JsonOption",
    "OwnCacheOption",
    "RunArgument",
    "TimeLimit",
    "bars",
    "cache_of",
    "found_cache",
    "print_json",
    "read_films",
    "say",
    "set_verbosity",
    "stopping",
    "suggest",
    "verbosity",
]
