"""The commands below `cm2 cache`: ls, verify, gc, label, export."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ..console import records
from ..errors import ConfigError
from .shared import DryRun, JsonOption, bars, print_json

CohortOption = Annotated[str, typer.Option(help="Name of the cohort.", metavar="NAME")]
cache_app = typer.Typer(help="List, verify, clean, label and export a cache.", no_args_is_help=True)


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

    found = gc(cache, dry_run)
    for path in found:
        print(f"{'would remove' if dry_run else 'removed'} {path}")
    if not found:
        print("nothing to remove")


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
    cohort: CohortOption = "default",
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


@cache_app.command("export")
def cache_export(
    cache: Annotated[Path, typer.Argument(help="Folder of the cache.", metavar="CACHE")],
    out: Annotated[
        Path | None, typer.Option(help="HDF5 file for the arrays.", metavar="FILE.h5")
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="Table of labels in the style of MEDS.", metavar="FILE.parquet"),
    ] = None,
    cohort: CohortOption = "default",
    modalities: Annotated[
        str, typer.Option(help="NAME or NAME@SPACE, parted by commas; all when empty.")
    ] = "",
    force: Annotated[
        bool, typer.Option("--force", help="Replace files that are there already.")
    ] = False,
) -> None:
    """Write the arrays of every stay as HDF5, and the labels as a table."""
    from ..cache.export import export_arrays, export_labels, refuse_existing, refuse_labels

    files = [file for file in (out, labels) if file is not None]
    if not files or out == labels:
        raise ConfigError("Say where to write: --out FILE.h5, --labels FILE.parquet, or both.")
    if modalities and out is None:
        raise ConfigError("--modalities chooses arrays: add --out FILE.h5, or leave it out.")
    if labels is not None:
        refuse_labels(labels, force)
    if out is not None:
        refuse_existing(out, force)
        names = [name.strip() for name in modalities.split(",") if name.strip()]
        export_arrays(cache, out, cohort, names, force=force)
    if labels is not None:
        export_labels(cache, labels, cohort, force=force)
    for file in files:
        print(file)
    print(
        "These files hold data of single patients: the terms of use of their source hold for them "
        "as well. Do not pass them on.",
        file=sys.stderr,
    )


__all__ = ["cache_app"]
