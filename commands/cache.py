"""The commands below `cm2 cache`: ls, verify, gc, label."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..console import records
from ..errors import ConfigError
from .shared import DryRun, JsonOption, bars, print_json

cache_app = typer.Typer(help="List, verify, clean and label a cache.", no_args_is_help=True)


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


@cache_app.command("label")
def cache_label(
    cache: Annotated[Path, typer.Argument(help="Folder of the cache.", metavar="CACHE")],
    task: Annotated[
        list[str],
        typer.Option(
            help="Task and table: stay_id and y (or NAME, y_NAME, several y_NAME__LABEL) of 0, 1 "
            "or nothing; optional in_NAME. A stay that is not in it has no label. May be repeated.",
            metavar="NAME=FILE",
        ),
    ],
    cohort: Annotated[str, typer.Option(help="Name of the cohort.")] = "default",
    replace: Annotated[
        bool, typer.Option("--replace", help="Let other labels of such a task give way.")
    ] = False,
) -> None:
    """Add a task to an existing cohort; vectors, links and runs of other tasks stay valid."""
    from ..cache.cohort import write_labels
    from ..extract.own.labels import read
    from ..extract.own.stays import counts

    given = []
    for word in task:
        name, equals, file = word.partition("=")
        if not (name and equals and file):
            raise ConfigError(f"--task {word}: expected NAME=FILE, such as --task aki=labels.csv")
        given.append((name, read(Path(file), name)))
    for name, table in given:
        found = counts(write_labels(cache, cohort, name, table, replace=replace).stays)[name]
        print(f"{name}: {found['stays']} stays with a label, {found['positives']} positive")


__all__ = ["cache_app"]
