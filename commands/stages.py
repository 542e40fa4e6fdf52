"""The commands that do the work: demo, doctor, extract, fuse."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from inspect import Parameter, Signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..console import metric_table, records, table
from ..errors import quoted
from ..progress import Progress, silent
from ..settings import DEFAULT_CACHE
from .shared import (
    CacheOption,
    DryRun,
    FilmsOption,
    JsonOption,
    TimeLimit,
    bars,
    print_json,
    read_films,
    say,
    stopping,
    suggest,
)

if TYPE_CHECKING:
    from ..fuse.group import RunGroup
    from ..fuse.rundir import RunDir


def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything.", metavar="DIR")] = Path(
        "cm2-demo"
    ),
    stays: Annotated[int, typer.Option(help="ICU stays in the synthetic cohort.", min=60)] = 400,
    seed: Annotated[int, typer.Option(help="Seed of the data and of the runs.", min=0)] = 0,
    sign: Annotated[
        Literal["haze", "pattern"],
        typer.Option(
            help="How severity shows in films: as haze, or as the pattern of some patches."
        ),
    ] = "haze",
    data_only: Annotated[bool, typer.Option(help="Write the synthetic source tree only.")] = False,
) -> None:
    """Make synthetic ICU data, extract, train CM2 and two neighbours, judge, and report."""
    from ..demo import run_demo

    result = run_demo(
        out, stays, seed, sign=sign, data_only=data_only, progress=bars(), stop=stopping()
    )
    if data_only:
        print(result.data)
        return
    print(result.table)
    print(f"report: {result.report}")


def doctor(
    data: Annotated[
        Path | None, typer.Option(envvar="CM2_DATA", help="Folder of the raw data.", metavar="ROOT")
    ] = None,
    cache: CacheOption = DEFAULT_CACHE,
    verify: Annotated[bool, typer.Option(help="Check SHA256SUMS.txt of the data too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Check the environment, the source tree, weights, disk, and estimate the work."""
    from ..extract.doctor import doctor as examine

    checks = examine(data, cache, verify)
    if as_json:
        print_json([vars(check) for check in checks])
    else:
        marks = {True: "ok", False: "MISSING"}
        print(table(["check", "", "found"], [[c.name, marks[c.ok], c.detail] for c in checks]))
        for check in checks:
            if not check.ok and check.remedy:
                print(f"{check.name}: {check.remedy}")
    if not all(check.ok for check in checks):
        raise typer.Exit(3)


def extract(
    dry_run: bool,
    time_limit: float | None,
    as_json: bool,
    film_list: Path | None,
    **options: Any,
) -> None:
    """Stage one: build the cohort if absent, then encode every item of a modality once."""
    from ..extract.config import ExtractConfig
    from ..options import validated

    config = validated(ExtractConfig, options)
    if film_list is not None:
        from ..extract.film_list import write_film_list

        found = write_film_list(config, film_list)
        if as_json:
            print_json(vars(found))
        else:
            print(f"{found.as_text()}: {film_list}")
        return
    from ..extract import runner

    if dry_run:
        rows = runner.plan(config)
        if as_json:
            print_json(rows)
        else:
            print(records(rows))
        return
    summary = runner.extract(config, progress=bars(), stop=stopping(time_limit))
    if as_json:
        print_json(summary.as_dict())
    else:
        print(summary.as_text())
    if summary.tasks:
        suggest(summary.next_command())


def fuse(
    cache: Path,
    out: Path | None,
    config: Path | None,
    preset: str | None,
    set_: list[str] | None,
    seeds: str | None,
    device: str,
    save_steps: int,
    workers: int,
    compile_: bool,
    films: Path | None,
    pretrain: list[str] | None,
    final: bool,
    show_config: bool,
    dry_run: bool,
    time_limit: float | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Stage two: train one model from the cache and judge it on the validation stays."""
    from ..fuse import presets
    from ..fuse.config import FuseConfig
    from ..options import read_settings, validated

    given = read_settings(config, set_ or []) | ({"preset": preset} if preset else {})
    given.update({name: value for name, value in options.items() if value not in (None, [])})
    settings = validated(FuseConfig, presets.resolve(given))
    if given.get("preset") in ("paper", "reference") and settings.model == "cm2":
        say(presets.weights(settings))
    if show_config:
        print_json(settings.model_dump(mode="json"))
        return
    read_films(films)
    from ..fuse.training import groups, trainer
    from ..fuse.training import pretrain as before
    from ..fuse.training.allocator import keep_freed_memory

    keep_freed_memory()
    wanted = before.parse(pretrain or [])
    every_fold = settings.folds > 0 and given.get("fold") is None
    first = os.environ.get("RANK", "0") == "0"  # of several processes the first one speaks
    progress: Progress = bars() if first else silent
    if not first:
        logging.getLogger("cm2").setLevel(logging.ERROR)  # all see the same; its errors are its own
    if dry_run and not first:
        return
    if seeds is not None or every_fold:
        chosen = groups.parse_seeds(seeds) if seeds is not None else ()
        if dry_run:
            print_json(groups.plan(settings, cache, chosen, every_fold, wanted))
            return
        group = groups.fuse_group(
            settings,
            cache,
            chosen,
            every_fold,
            out,
            device=device,
            progress=progress,
            stop=stopping(time_limit),
            save_steps=save_steps,
            workers=workers,
            compiled=compile_,
            pretrain=wanted,
        )
        if not first:
            return
        _show_group(group, _look(group, cache) if final else None, as_json)
        suggest(
            f"cm2 {'report' if final else 'evaluate'} {quoted(group.path)} --cache {quoted(cache)}"
        )
        return
    if dry_run:
        print_json(before.plan(settings, cache, wanted, out))
        return
    how: dict[str, Any] = {
        "device": device,
        "progress": progress,
        "stop": stopping(time_limit),
        "save_steps": save_steps,
        "workers": workers,
        "compiled": compile_,
    }
    run = trainer.fuse(before.pretrained(settings, cache, wanted, **how), cache, out, **how)
    if not first:
        return
    judged = {"val": run.metrics("val") or {}}
    if final:
        judged["test"] = _look(run, cache)
    if as_json:
        print_json({"run": str(run.path), **judged})
    else:
        name = run.info.get("model", settings.model)
        print(metric_table([(name, split, metrics) for split, metrics in judged.items()]))
        print(f"run: {run.path}")
    suggest(f"cm2 {'report' if final else 'evaluate'} {quoted(run.path)} --cache {quoted(cache)}")


def _look(run: RunDir | RunGroup, cache: Path) -> dict[str, Any]:
    """Judge the test stays, unless that was done: giving a command again is no second look."""
    from ..fuse.evaluation.evaluate import evaluate

    return run.metrics("test") or evaluate(run, cache, "test", progress=bars())


def _show_group(group: RunGroup, test: dict[str, Any] | None, as_json: bool) -> None:
    """Print every member of a group, all together, and the test stays if they were looked at."""
    from ..fuse.group import member

    together = group.metrics("val") or {}
    if as_json:
        members = [{"run": str(run.path), "val": run.metrics("val")} for run in group.members]
        judged = {"val": together} if test is None else {"val": together, "test": test}
        print_json({"group": str(group.path), **judged, "members": members})
        return
    folds = group.kind == "folds"
    lines = [
        (member(run.config), "val", metrics)
        for run in group.members
        if (metrics := run.metrics("val"))
    ]
    lines.append(("together", "val", together))
    if test is not None:
        lines.append(("together", "test", test))
    print(metric_table(lines))
    if (sd := together["auroc"].get("sd")) is not None:
        print(
            f"AUROC {together['auroc']['value']:.3f} ± {sd:.3f} over {len(together['seeds'])} seeds"
        )
    if folds:
        print(
            "Folds are pooled. These are validation stays, which chose the epoch: `cm2 evaluate` "
            "on the group judges each stay by a model that did not see it."
        )
    print(f"group: {group.path}")


def _own(name: str, annotation: Any, default: Any) -> Parameter:
    return Parameter(name, Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


def configured(command: str, function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the fields of its configuration as options.

    Importing pydantic and the model costs more than the whole help page, so that is left out
    when another command is called.
    """
    own = [
        _own("dry_run", DryRun, False),
        _own("time_limit", TimeLimit, None),
        _own("as_json", JsonOption, False),
    ]
    generated: list[Parameter] = []
    if command in sys.argv[1:]:
        from ..options import parameters

        if command == "extract":
            from ..extract.config import ExtractConfig

            generated = parameters(ExtractConfig)
        else:
            from ..fuse.config import FuseConfig

            generated = parameters(FuseConfig)
    if command == "extract":
        wanted = typer.Option(
            help="Write the paths of the films that would be read, for a download, and stop.",
            metavar="FILE",
        )
        own = [*own, _own("film_list", Annotated[Path | None, wanted], None)]
    if command == "fuse":
        directory = typer.Option(help="Run directory; default: one place per identity.")
        settings = typer.Option(
            help="TOML file of settings, or a run to repeat.", metavar="FILE.toml|RUN"
        )
        named = typer.Option(
            help="Options to start from; given ones win.",
            metavar="corrected|paper|reference|original",
        )
        single = typer.Option(
            "--set",
            help="One more setting; published.NAME=true and model.NAME=… too.",
            metavar="NAME=VALUE",
        )
        several = typer.Option(
            help="Train one run for each seed: FIRST:LAST (inclusive) or a list.", metavar="0:4"
        )
        where = typer.Option(help="auto, cpu, cuda or cuda:INDEX.", metavar="DEVICE")
        steps = typer.Option(
            help="Store the state after every N steps too, not only after epochs.", min=0
        )
        ahead = typer.Option(help="Threads that read items ahead in mode stream.", min=0, max=64)
        compiled = typer.Option(
            "--compile",
            help="Compile the steps (torch.compile) for speed, in mode stream the encoders; it "
            "takes a minute or so before the first step.",
        )
        first = typer.Option(
            help="Train the encoder of a modality alone first, on the task or another one, and "
            "start from it: a series, in mode stream films and texts too. MODALITY or "
            "MODALITY:TASK, comma-separated.",
            metavar="MODALITY[:TASK],…",
        )
        last = typer.Option("--final", help="Judge the test stays too; the look is counted.")
        show = typer.Option(help="Print the resolved configuration, and stop.")
        own = [
            _own("cache", CacheOption, DEFAULT_CACHE),
            _own("out", Annotated[Path | None, directory], None),
            _own("config", Annotated[Path | None, settings], None),
            _own("preset", Annotated[str | None, named], None),
            _own("set_", Annotated[list[str] | None, single], None),
            _own("seeds", Annotated[str | None, several], None),
            _own("device", Annotated[str, where], "auto"),
            _own("save_steps", Annotated[int, steps], 0),
            _own("workers", Annotated[int, ahead], 2),
            _own("compile_", Annotated[bool, compiled], False),
            _own("films", FilmsOption, None),
            _own("pretrain", Annotated[list[str] | None, first], None),
            _own("final", Annotated[bool, last], False),
            _own("show_config", Annotated[bool, show], False),
            *own,
        ]
    function.__signature__ = Signature([*generated, *own])  # type: ignore[attr-defined]
    function.__annotations__ = {p.name: p.annotation for p in [*generated, *own]}
    return function


__all__ = ["configured", "demo", "doctor", "extract", "fuse"]
