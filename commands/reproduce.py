"""`cm2 reproduce`: the paper's tables and figures, and all methods in one room."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..console import records
from .shared import (
    DryRun,
    FilmsOption,
    JsonOption,
    TimeLimit,
    bars,
    print_json,
    read_films,
    say,
    stopping,
)

if TYPE_CHECKING:
    from ..fuse.reproduce.expand import Plan

_CACHE = typer.Option(
    envvar="CM2_CACHE", help="Folder of a cache; may be repeated, tables side by side.", metavar="C"
)


def reproduce(
    experiment: Annotated[
        str,
        typer.Argument(
            help="table2, table3, table4, table5, table6, table7, table9, table10, table11, "
            "figure2, figure3, figure4, figure5; or methods: every method on any data."
        ),
    ],
    cache: Annotated[list[Path], _CACHE],
    cohort: Annotated[str, typer.Option(help="Cohort of each cache.", metavar="NAME")] = "default",
    task: Annotated[
        str, typer.Option(help="Tasks, comma-separated; default: those of the paper.")
    ] = "",
    modalities: Annotated[
        str,
        typer.Option(
            help="NAME or NAME@SPACE, comma-separated, the one to stand alone first; default: "
            "those of the paper."
        ),
    ] = "",
    methods: Annotated[
        str,
        typer.Option(
            help="Lines to take, comma-separated; others are NAME, NAME:PRESET (mmtm:reference), "
            "./mine.py:MyFusion or NAME+OPTION=VALUE (cm2+align=none); `all` for every method. "
            "CM2, concat and the first modality alone are always there.",
        ),
    ] = "",
    drop: Annotated[
        list[str] | None,
        typer.Option(
            help="For methods, a table of its own for each share that is withheld: "
            "labs=0.3,0.7 or labs=0.3:severity. May be repeated.",
            metavar="NAME=SHARE,…",
        ),
    ] = None,
    rows: Annotated[
        str, typer.Option(help="For methods: partial, matched or both, comma-separated.")
    ] = "",
    seeds: Annotated[str, typer.Option(help="FIRST:LAST (inclusive) or a list.")] = "0:4",
    epochs: Annotated[
        int | None, typer.Option(help="Largest number of epochs of every method.", min=1)
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="Options under every line; those of CM2 go to CM2 alone.",
            metavar="corrected|paper|reference",
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="One more option under every line.", metavar="NAME=VALUE"),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file of such options.", metavar="FILE.toml")
    ] = None,
    tune: Annotated[
        list[str] | None,
        typer.Option(
            help="Values of which validation chooses one, for every method alike, as in a grid: "
            "lr=1e-4..1e-2/3, dropout=0,0.3. Several options are combined. May be repeated.",
            metavar="NAME=VALUES",
        ),
    ] = None,
    tries: Annotated[
        int | None,
        typer.Option(
            help="Settings of every method that validation chooses from: its own, and others "
            "drawn from --tune, or from learning rate, weight decay and dropout.",
            min=1,
        ),
    ] = None,
    stream: Annotated[
        bool,
        typer.Option(
            "--stream",
            help="Train the encoders of films and texts too, as the paper does; needs --level "
            "pixels, or files, and token ids. --dry-run tells the hours of this and of the cache.",
        ),
    ] = False,
    trunk: Annotated[
        list[str] | None,
        typer.Option(
            help="With --stream: network of a modality, where it is not the paper's resnet34 or "
            "tinybert. May be repeated.",
            metavar="MODALITY=NETWORK",
        ),
    ] = None,
    films: FilmsOption = None,
    bootstrap: Annotated[
        int, typer.Option(help="Bootstrap replicates; 0: as many as Holm's family needs.", min=0)
    ] = 0,
    layout: Annotated[str, typer.Option("--format", help="table, csv, md or latex.")] = "table",
    out: Annotated[
        Path | None, typer.Option(help="Folder for tables and figures as files.", metavar="DIR")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(help="Runs at a time; default: one per core or GPU.", min=1)
    ] = None,
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda or cuda:INDEX.", metavar="DEVICE")
    ] = "auto",
    dry_run: DryRun = False,
    time_limit: TimeLimit = None,
    as_json: JsonOption = False,
) -> None:
    """Train a table or figure of the paper on your caches; print its numbers beside yours.

    One factor changes from line to line; seeds, splits, budget and test stays are the same. Every
    difference is paired, from CM2, from the first modality alone and from concatenation. What is
    trained already is taken as it is: a killed call continues.
    """
    from ..errors import ConfigError
    from ..fuse.evaluation.layout import LAYOUTS
    from ..fuse.reproduce import run
    from ..fuse.reproduce.budget import space
    from ..fuse.reproduce.expand import Request
    from ..fuse.reproduce.show import as_text, flat
    from ..fuse.reproduce.streamed import parse_trunks
    from ..fuse.sweep.axis import parse
    from ..fuse.sweep.runner import How, parallel
    from ..fuse.training.allocator import keep_freed_memory
    from ..fuse.training.groups import parse_seeds
    from ..options import read_settings

    read_films(films)
    options = read_settings(config, set_ or []) | ({"preset": preset} if preset else {})
    if epochs is not None:
        options["epochs"] = epochs
    request = Request(
        tuple(cache),
        cohort,
        _parts(task),
        _parts(modalities),
        _parts(methods),
        options,
        space([parse(text) for text in tune or []], tries),
        tries,
        stream,
        parse_trunks(trunk or [], stream),
    )
    chosen = parse_seeds(seeds)
    if layout not in LAYOUTS:
        from ..fuse.config import unknown

        raise ConfigError(unknown("format", layout, LAYOUTS))
    also: dict[str, Any] = {"drops": drop or (), "rows": _parts(rows)}
    planned = run.plan(experiment, request, **also)
    if dry_run:
        ways = {"streamed" if stream else "from the cache": planned}
        if stream:
            try:
                ways["from the cache"] = run.plan(experiment, request.from_cache(), **also)
            except ConfigError as error:
                say(f"from the cache: {error}")
        _forecast(ways, chosen, parallel(How(jobs=jobs, device=device)), as_json)
        return
    keep_freed_memory()
    result = run.reproduce(
        planned,
        request,
        chosen,
        replicates=bootstrap,
        jobs=jobs,
        device=device,
        progress=bars(),
        stop=stopping(time_limit),
    )
    if as_json:
        print_json([flat(row) for room in result.rows for row in room])
    else:
        print(as_text(result, layout))
    if out is not None:
        for path in run.write(result, out):
            say(str(path))
    elif planned.experiment.figure:
        say("--out DIR draws the figure, from the runs that there are now.")
    if any(row["failure"] for room in result.rows for row in room):
        raise typer.Exit(4)


def _forecast(ways: dict[str, Plan], seeds: tuple[int, ...], jobs: int, as_json: bool) -> None:
    """Say what every way to train an experiment takes."""
    from ..fuse.reproduce.forecast import forecast, hours

    rows = {way: forecast(planned, seeds) for way, planned in ways.items()}
    if as_json:
        print_json([row for found in rows.values() for row in found])
        return
    for way, found in rows.items():
        print(records(found))
        for text in ways[way].skipped:
            print(f"left out: {text}")
        can = [row for row in found if "minutes at most" in row]
        runs, most = sum(row["runs"] for row in can), hours(can) / jobs
        print(f"{way}: {runs} runs, at most {most:.2f} hours: every epoch, {jobs} at a time")
        if lost := len(found) - len(can):
            print(f"{way}: {lost} lines cannot be trained, see there.")


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


__all__ = ["reproduce"]
