"""The commands that judge and show: evaluate, compare, predict, report, inspect, ls."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..console import interval, metric_table, outline, records
from ..errors import quoted
from ..settings import DEFAULT_CACHE
from .shared import (
    FilmsOption,
    JsonOption,
    OwnCacheOption,
    RunArgument,
    bars,
    cache_of,
    found_cache,
    print_json,
    read_films,
    say,
    suggest,
)
from .sweeping import show_sweep

if TYPE_CHECKING:
    from ..fuse.group import RunGroup
    from ..fuse.rundir import RunDir


def evaluate(
    runs: Annotated[
        list[Path], typer.Argument(help="Directories of runs and groups.", metavar="RUN…")
    ],
    cache: OwnCacheOption = None,
    split: Annotated[str, typer.Option(help="val, test or all.", metavar="SPLIT")] = "test",
    bootstrap: Annotated[int, typer.Option(help="Bootstrap replicates.", min=0)] = 1000,
    unit: Annotated[str, typer.Option(help="Resample by patient or stay.")] = "patient",
    by: Annotated[
        str | None,
        typer.Option(
            help="Subgroups by columns of the cohort, such as sex,age:40/65; a name with a comma "
            "in double quotes."
        ),
    ] = None,
    drop: Annotated[
        list[str] | None,
        typer.Option(
            help="Withhold a modality from a share of the stays: cxr=0.5, or cxr for a curve.",
            metavar="NAME[=SHARE]",
        ),
    ] = None,
    threshold: Annotated[
        str | None,
        typer.Option(help="Fix a threshold on validation: youden, sensitivity=0.9, p=0.2 …"),
    ] = None,
    recalibrate: Annotated[
        str, typer.Option(help="Correct probabilities on validation: none, platt or isotonic.")
    ] = "none",
    films: FilmsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Judge finished runs; every look at the test stays is counted in run.json.

    With the cache of another hospital this is an external validation. Of a group, subgroups and
    whatever else is asked for are shown run by run.
    """
    from ..fuse.evaluation.evaluate import evaluate as judge
    from ..fuse.evaluation.looks import NOTHING_MORE, Looks
    from ..fuse.evaluation.paired import labels
    from ..fuse.evaluation.shown import shown
    from ..fuse.group import open_runs
    from ..options import words

    read_films(films)
    looks = Looks(words(by or ""), tuple(drop or ()), threshold or "", recalibrate)
    opened = open_runs(runs)
    results = [
        judge(
            one,
            cache_of(one.path, cache),
            split,
            looks=looks,
            replicates=bootstrap,
            unit=unit,
            progress=bars(),
        )
        for one in opened
    ]
    members = [_looked_at(*pair) for pair in zip(opened, results, strict=True)]
    if as_json:
        print_json(
            {
                str(path): {**found, "members": list(parts.values())} if parts else found
                for path, found, parts in zip(runs, results, members, strict=True)
            }
        )
    else:
        names = labels(opened)
        print(metric_table(list(zip(names, [split] * len(names), results, strict=True))))
        for name, found, parts in zip(names, results, members, strict=True):
            if found.get("external"):
                print(f"\n{name}: external validation on {found['external']}")
            if parts and looks == NOTHING_MORE:
                continue
            each = {f"{name}, {run}": metrics for run, metrics in parts.items()} or {name: found}
            for part, metrics in each.items():
                for title, text in shown(metrics):
                    print(f"\n{part}: {title}\n{text}")
    own = None if results[0].get("external") else cache  # the page is about the run's own stays
    suggest(f"cm2 report {quoted(runs[0])}" + (f" --cache {quoted(own)}" if own else ""))


def _looked_at(one: RunDir | RunGroup, found: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What was found of each run of a group, by seed and fold; nothing for a single run."""
    from ..fuse.group import RunGroup, member

    if not isinstance(one, RunGroup):
        return {}
    return {
        member(run.config): {"run": str(run.path), **(run.metrics(found["split"]) or {})}
        for run in one.members
    }


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Directories of runs and groups; or one sweep.", metavar="RUN…"),
    ],
    baseline: Annotated[
        Path | None, typer.Option(help="Compare with this run or group; default: the last one.")
    ] = None,
    predictions: Annotated[
        list[Path] | None,
        typer.Option(
            help="Predictions of another program, with the columns stay_id and p.", metavar="FILE"
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="val or test.")] = "test",
    metric: Annotated[str, typer.Option(help="Metrics, comma-separated.")] = "auroc,aupr",
    bootstrap: Annotated[int, typer.Option(help="Bootstrap replicates.", min=1)] = 1000,
    layout: Annotated[str, typer.Option("--format", help="table, csv, md or latex.")] = "table",
    final: Annotated[
        bool, typer.Option("--final", help="Judge what a sweep chooses on the test stays.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Compare runs on the same stays: paired bootstrap, DeLong, Holm.

    A group's metric is the mean over its seeds inside each resample of patients. A sweep alone is
    read: its best settings by validation, what each option was worth, what chance explains; beside
    runs it stands for the setting that it chose, once that was judged by --final.
    """
    from ..fuse.sweep.book import CHOSEN, SweepDir, is_sweep

    if len(runs) == 1 and is_sweep(runs[0]):
        show_sweep(SweepDir.open(runs[0]), final, bootstrap, as_json)
        return
    from ..fuse.evaluation.compare import compare as paired
    from ..fuse.evaluation.layout import layout_rows
    from ..fuse.evaluation.paired import Outside
    from ..fuse.group import open_runs

    others = open_runs([path / CHOSEN if is_sweep(path) else path for path in runs])
    reference = others[-1] if baseline is None else open_runs([baseline])[0]
    outside = [Outside.read(path) for path in predictions or ()]
    rows = paired(
        [*others, *outside],
        reference,
        split,
        metrics=tuple(metric.split(",")),
        replicates=bootstrap,
    )
    if as_json:
        print_json(rows)
    else:
        print(layout_rows(rows, layout))


def predict(
    run: RunArgument,
    out: Annotated[Path, typer.Option(help="A .parquet or .csv file.", metavar="FILE")],
    cache: OwnCacheOption = None,
    split: Annotated[str, typer.Option(help="train, val, test or all.")] = "all",
    films: FilmsOption = None,
) -> None:
    """Write the probabilities of a run for the stays of a cache (restricted data)."""
    from ..fuse.inference import predict as infer
    from ..fuse.inference import table_format, write_predictions
    from ..fuse.rundir import RunDir

    table_format(out)  # a name that is refused is refused before the work
    read_films(films)
    predictions = infer(RunDir.open(run), cache_of(run, cache), split)
    write_predictions(predictions, out)
    print(f"{predictions.num_rows:,} predictions: {out}")


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(
            help="The run to report, others beside it (a group: its seeds, of the first fold); or "
            "a sweep."
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="The page; default: report.html in the run.", metavar="FILE")
    ] = None,
    cache: OwnCacheOption = None,
) -> None:
    """Write one offline HTML page about a run, with others beside it."""
    from ..fuse.sweep.book import SweepDir, is_sweep

    if is_sweep(runs[0]):
        from ..fuse.sweep.report import write_report as write_sweep

        print(write_sweep(SweepDir.open(runs[0]), out or runs[0] / "report.html"))
        return
    from ..fuse.evaluation.report import write_report
    from ..fuse.group import RunGroup, member, open_runs

    opened = open_runs(runs)
    main_run, *others = [
        run for one in opened for run in (one.first_fold if isinstance(one, RunGroup) else [one])
    ]
    if any(isinstance(one, RunGroup) and one.kind == "folds" for one in opened):
        say(
            f"reported: {member(main_run.config)}, beside others of this fold; folds share no "
            "stays, and `cm2 evaluate` judges them together"
        )
    target = main_run.path / "report.html" if out is None else out
    print(write_report(main_run, target, cache=_own_cache(main_run, cache), others=others))


def _own_cache(run: RunDir, named: Path | None) -> Path | None:
    """The cache that a page about a run reads: the one named, else its own if that is found."""
    from ..fuse.evaluation.facts import own_cohort

    run.require_finished()
    found = found_cache(run.path, named)
    if named is None and found is not None and own_cohort(run, found) is None:
        return None
    return found


def inspect(
    path: Annotated[Path, typer.Argument(help="A cache, store, shard, run or checkpoint.")],
    verify: Annotated[
        bool, typer.Option("--verify", help="Check every hash below the path.")
    ] = False,
    card: Annotated[
        bool, typer.Option("--card", help="Print the model card of a run as Markdown.")
    ] = False,
    cache: OwnCacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what a folder or file of cm2 is, how it was made, and whether it is whole.

    The cache matters to --card alone: attrition and the origin of weights come from there.
    """
    from ..cache.upkeep import inspect as look

    facts = look(path, verify)
    if card:
        from ..fuse.evaluation.card import model_card
        from ..fuse.rundir import RunDir

        run = RunDir.open(path)
        print(model_card(run, _own_cache(run, cache)))
    elif as_json:
        print_json(facts)
    else:
        print("\n".join(outline(facts)))


def ls(
    folder: Annotated[
        Path,
        typer.Argument(
            envvar="CM2_CACHE",
            help="A cache, a folder that holds runs or sweeps, or a sweep, for its runs.",
            metavar="DIR",
        ),
    ] = DEFAULT_CACHE,
    task: Annotated[str, typer.Option(help="Only runs of this task.")] = "",
    as_json: JsonOption = False,
) -> None:
    """List runs, groups of runs and sweeps with their state and metrics, the latest last."""
    from ..fuse.listing import list_runs

    rows = list_runs(folder, task)
    if as_json:
        print_json(rows)
        return
    for row in rows:
        row["val_auroc"] = interval(row["val_auroc"])
        row["test_auroc"] = interval(row["test_auroc"])
    print(records(rows))


__all__ = ["compare", "evaluate", "inspect", "ls", "predict", "report"]
