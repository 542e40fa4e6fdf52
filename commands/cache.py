"""The commands below `cm2 cache`: ls, verify, gc."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..console import records
from .shared import DryRun, JsonOption, bars, print_json

cache_app = typer.Typer(help="List, verify and clean a cache.", no_args_is_help=True)


@cache_app.command("ls")
def cache_ls(
    cache: Annotated[Path, typer.Argument(help="Folder of the cache.", metavar="CACHE")],
    as_json: JsonOption = False,
) -> None:
    """List cohorts, stores and runs of a cache with their sizes."""
    from ..cache.upkeep import ls

    rows = ls(cache)
    if as_json:
        print_json(rows)
        return
    print(records(rows))


@cache_app.command("verify")
def cache_verify(
    cache: Annotated[Path, typer.Argument(help="Folder of the cache.", metavar="CACHE")],
) -> None:
    """Check every hash of a cache; exit code 5 names what is damaged and its remedy."""
    from ..cache.upkeep import verify

    problems = verify(cache, bars())
    for problem in problems:
        print(problem)
    if problems:
        raise typer.Exit(5)
    print("everything is as it was written")


@cache_app.command("gc")
def cache_gc(
    cache: Annotated[Path, typer.Argument(help="Folder of the cache.", metavar="CACHE")],
    dry_run: DryRun = False,
) -> None:
    """Remove what no manifest refers to: stale temporary files, superseded shards."""
    from ..cache.upkeep import gc

    for path in gc(cache, dry_run):
        print(f"{'would remove' if dry_run else 'removed'} {path}")


__all__ = ["cache_app"]
