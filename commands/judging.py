"""The commands that judge and show: evaluate, compare, predict, report, inspect."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..console import metric_table, outline
from .shared import CacheOption, JsonOption, RunArgument, bars, print_json, suggest


def evaluate(
    runs: Annotated[list[Path], typer.Argument(help="Directories of runs.", metavar="RUN…")],
    cache: CacheOption = Path("cm2-cache"),
    split: Annotated[str, typer.Option(help="val, test or all.", metavar="SPLIT")] = "test",
    bootstrap: Annotated[int, typer.Option(help="Bootstrap replicates.", min=0)] = 1000,
    unit: Annotated[str, typer.Option(help="Resample by patient or stay.")] = "patient",
    as_json: JsonOption = False,
) -> None:
    """Judge finished runs; every look at the test stays is counted in run.json."""
    from ..fuse.evaluation.evaluate import evaluate as judge
    from ..fuse.rundir import RunDir

    results = []
    for path in runs:
        run = RunDir.open(path)
        metrics = judge(run, cache, split, replicates=bootstrap, unit=unit, progress=bars())
        results.append((path, run.info.get("model", path.name), metrics))
    if as_json:
        print_json({str(path): metrics for path, _, metrics in results})
    else:
        print(metric_table([(name, split, metrics) for _, name, metrics in results]))
    suggest(f"cm2 report {runs[0]} --cache {cache}")


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Directories of runs.", metavar="RUN…")],
    baseline: Annotated[
        Path | None, typer.Option(help="Compare with this run; default: the last one.")
    ] = None,
    split: Annotated[str, typer.Option(help="val or test.")] = "test",
    metric: Annotated[str, typer.Option(help="Metrics, comma-separated.")] = "auroc,aupr",
    bootstrap: Annotated[int, typer.Option(help="Bootstrap replicates.", min=1)] = 1000,
    layout: Annotated[str, typer.Option("--format", help="table, csv, md or latex.")] = "table",
    as_json: JsonOption = False,
) -> None:
    """Compare runs on the same stays: paired bootstrap, DeLong, Holm."""
    from ..fuse.evaluation.compare import compare as paired
    from ..fuse.evaluation.layout import layout_rows
    from ..fuse.rundir import RunDir

    others = [RunDir.open(path) for path in runs]
    reference = others[-1] if baseline is None else RunDir.open(baseline)
    rows = paired(others, reference, split, metrics=tuple(metric.split(",")), replicates=bootstrap)
    if as_json:
        print_json(rows)
    else:
        print(layout_rows(rows, layout))


def predict(
    run: RunArgument,
    out: Annotated[Path, typer.Option(help="A .parquet or .csv file.", metavar="FILE")],
    cache: CacheOption = Path("cm2-cache"),
    split: Annotated[str, typer.Option(help="train, val, test or all.")] = "all",
) -> None:
    """Write the probabilities of a run for the stays of a cache (restricted data)."""
    from ..fuse.inference import predict as infer
    from ..fuse.inference import write_predictions
    from ..fuse.rundir import RunDir

    predictions = infer(RunDir.open(run), cache, split)
    write_predictions(predictions, out)
    print(f"{predictions.num_rows:,} predictions: {out}")


def report(
    runs: Annotated[list[Path], typer.Argument(help="The run to report; others stand beside it.")],
    out: Annotated[
        Path | None, typer.Option(help="The page; default: report.html in the run.", metavar="FILE")
    ] = None,
    cache: CacheOption = Path("cm2-cache"),
) -> None:
    """Write one offline HTML page about a run, with others beside it."""
    from ..fuse.evaluation.report import write_report
    from ..fuse.rundir import RunDir

    main_run, *others = [RunDir.open(path) for path in runs]
    target = main_run.path / "report.html" if out is None else out
    print(write_report(main_run, target, cache=cache, others=others))


def inspect(
    path: Annotated[Path, typer.Argument(help="A cache, store, shard, run or checkpoint.")],
    verify: Annotated[bool, typer.Option(help="Check every hash below the path.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Say what a folder or file of cm2 is, how it was made, and whether it is whole."""
    from ..cache.upkeep import inspect as look

    facts = look(path, verify)
    if as_json:
        print_json(facts)
    else:
        print("\n".join(outline(facts)))


__all__ = ["compare", "evaluate", "inspect", "predict", "report"]
