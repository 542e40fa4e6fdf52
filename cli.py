"""The command line: parse, call, print. Heavy libraries are imported inside the commands only."""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from inspect import Parameter, Signature
from pathlib import Path
from typing import Annotated, Any

import typer

from .console import Bars, metric_table, outline, records, set_up_logging, table
from .errors import CM2Error
from .progress import Stop

app = typer.Typer(
    help="Multimodal clinical prediction when modalities are missing: "
    "encode once, then train, judge and report in minutes.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
)
cache_app = typer.Typer(help="List, verify and clean a cache.", no_args_is_help=True)
app.add_typer(cache_app, name="cache")

_verbosity = 0

CacheOption = Annotated[
    Path, typer.Option(envvar="CM2_CACHE", help="Folder of the cache.", metavar="DIR")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for machines on stdout.")]
RunArgument = Annotated[Path, typer.Argument(help="Directory of a run.", metavar="RUN")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and stop.")]
TimeLimit = Annotated[
    float | None,
    typer.Option(help="Stop at the next safe point after so many minutes.", metavar="MINUTES"),
]


def _version(value: bool) -> None:
    if value:
        from . import __version__

        print(__version__)
        raise typer.Exit


@app.callback()
def _common(
    verbose: Annotated[
        int, typer.Option("-v", "--verbose", count=True, help="Say more; twice for everything.")
    ] = 0,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Only errors.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    global _verbosity
    _verbosity = -1 if quiet else verbose
    set_up_logging(_verbosity)


def _bars() -> Bars:
    return Bars(quiet=_verbosity < 0)


def _stop(minutes: float | None = None) -> Stop:
    stop = Stop(None if minutes is None else 60 * minutes)
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, stop.request)
    return stop


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=2, sort_keys=True, default=str))


def _next(command: str) -> None:
    if _verbosity >= 0:
        print(f"next: {command}", file=sys.stderr)


# --- the main job ------------------------------------------------------------------------------


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything.", metavar="DIR")] = Path(
        "cm2-demo"
    ),
    stays: Annotated[int, typer.Option(help="ICU stays in the synthetic cohort.", min=60)] = 400,
    seed: Annotated[int, typer.Option(help="Seed of the data and of the runs.", min=0)] = 0,
    data_only: Annotated[bool, typer.Option(help="Write the synthetic source tree only.")] = False,
) -> None:
    """Make synthetic ICU data, extract, train CM2 and two neighbours, judge, and report."""
    from .demo import run_demo

    result = run_demo(out, stays, seed, data_only=data_only, progress=_bars(), stop=_stop())
    if data_only:
        print(result.data)
        return
    print(result.table)
    print(f"report: {result.report}")


@app.command()
def doctor(
    data: Annotated[
        Path | None, typer.Option(envvar="CM2_DATA", help="Folder of the raw data.", metavar="ROOT")
    ] = None,
    cache: CacheOption = Path("cm2-cache"),
    verify: Annotated[bool, typer.Option(help="Check SHA256SUMS.txt of the data too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Check the environment, the source tree, weights, disk, and estimate the work."""
    from .extract.doctor import doctor as examine

    checks = examine(data, cache, verify)
    if as_json:
        _print_json([vars(check) for check in checks])
    else:
        marks = {True: "ok", False: "MISSING"}
        print(table(["check", "", "found"], [[c.name, marks[c.ok], c.detail] for c in checks]))
        for check in checks:
            if not check.ok and check.remedy:
                print(f"{check.name}: {check.remedy}")
    if not all(check.ok for check in checks):
        raise typer.Exit(3)


def extract(dry_run: bool, time_limit: float | None, as_json: bool, **options: Any) -> None:
    """Stage one: build the cohort if absent, then encode every item of a modality once."""
    from .extract.config import ExtractConfig
    from .options import validated

    config = validated(ExtractConfig, options)
    from .extract import runner

    if dry_run:
        rows = runner.plan(config)
        if as_json:
            _print_json(rows)
        else:
            print(records(rows))
        return
    summary = runner.extract(config, progress=_bars(), stop=_stop(time_limit))
    if as_json:
        _print_json(summary.as_dict())
    else:
        print(summary.as_text())
    _next(f"cm2 fuse --cache {config.cache} --task ihm")


def fuse(
    cache: Path,
    out: Path | None,
    config: Path | None,
    set_: list[str] | None,
    show_config: bool,
    dry_run: bool,
    time_limit: float | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Stage two: train one model from the cache and judge it on the validation stays."""
    from .fuse.config import FuseConfig
    from .options import read_settings, validated

    given = read_settings(config, set_ or [])
    given.update({name: value for name, value in options.items() if value not in (None, [])})
    settings = validated(FuseConfig, given)
    if show_config:
        _print_json(settings.model_dump(mode="json"))
        return
    from .fuse.training import trainer

    if dry_run:
        _print_json(trainer.plan(settings, cache, out))
        return
    run = trainer.fuse(settings, cache, out, progress=_bars(), stop=_stop(time_limit))
    metrics = run.metrics("val") or {}
    if as_json:
        _print_json({"run": str(run.path), "val": metrics})
    else:
        print(metric_table([(run.info.get("model", settings.model), "val", metrics)]))
        print(f"run: {run.path}")
    _next(f"cm2 evaluate {run.path} --cache {cache}")


# --- judging -----------------------------------------------------------------------------------


@app.command()
def evaluate(
    runs: Annotated[list[Path], typer.Argument(help="Directories of runs.", metavar="RUN…")],
    cache: CacheOption = Path("cm2-cache"),
    split: Annotated[str, typer.Option(help="val, test or all.", metavar="SPLIT")] = "test",
    bootstrap: Annotated[int, typer.Option(help="Bootstrap replicates.", min=0)] = 1000,
    unit: Annotated[str, typer.Option(help="Resample by patient or stay.")] = "patient",
    as_json: JsonOption = False,
) -> None:
    """Judge finished runs; every look at the test stays is counted in run.json."""
    from .fuse.evaluation.evaluate import evaluate as judge
    from .fuse.rundir import RunDir

    results = []
    for path in runs:
        run = RunDir.open(path)
        metrics = judge(run, cache, split, replicates=bootstrap, unit=unit, progress=_bars())
        results.append((path, run.info.get("model", path.name), metrics))
    if as_json:
        _print_json({str(path): metrics for path, _, metrics in results})
    else:
        print(metric_table([(name, split, metrics) for _, name, metrics in results]))
    _next(f"cm2 report {runs[0]} --cache {cache}")


@app.command()
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
    from .fuse.evaluation.compare import compare as paired
    from .fuse.evaluation.layout import layout_rows
    from .fuse.rundir import RunDir

    others = [RunDir.open(path) for path in runs]
    reference = others[-1] if baseline is None else RunDir.open(baseline)
    rows = paired(others, reference, split, metrics=tuple(metric.split(",")), replicates=bootstrap)
    if as_json:
        _print_json(rows)
    else:
        print(layout_rows(rows, layout))


@app.command()
def predict(
    run: RunArgument,
    out: Annotated[Path, typer.Option(help="A .parquet or .csv file.", metavar="FILE")],
    cache: CacheOption = Path("cm2-cache"),
    split: Annotated[str, typer.Option(help="train, val, test or all.")] = "all",
) -> None:
    """Write the probabilities of a run for the stays of a cache (restricted data)."""
    from .fuse.inference import predict as infer
    from .fuse.inference import write_predictions
    from .fuse.rundir import RunDir

    predictions = infer(RunDir.open(run), cache, split)
    write_predictions(predictions, out)
    print(f"{predictions.num_rows:,} predictions: {out}")


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="The run to report; others stand beside it.")],
    out: Annotated[
        Path | None, typer.Option(help="The page; default: report.html in the run.", metavar="FILE")
    ] = None,
    cache: CacheOption = Path("cm2-cache"),
) -> None:
    """Write one offline HTML page about a run, with others beside it."""
    from .fuse.evaluation.report import write_report
    from .fuse.rundir import RunDir

    main_run, *others = [RunDir.open(path) for path in runs]
    target = main_run.path / "report.html" if out is None else out
    print(write_report(main_run, target, cache=cache, others=others))


@app.command()
def inspect(
    path: Annotated[Path, typer.Argument(help="A cache, store, shard, run or checkpoint.")],
    verify: Annotated[bool, typer.Option(help="Check every hash below the path.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Say what a folder or file of cm2 is, how it was made, and whether it is whole."""
    from .cache.upkeep import inspect as look

    facts = look(path, verify)
    if as_json:
        _print_json(facts)
    else:
        print("\n".join(outline(facts)))


# --- upkeep ------------------------------------------------------------------------------------


@cache_app.command("ls")
def cache_ls(
    cache: Annotated[Path, typer.Argument(help="Folder of the cache.", metavar="CACHE")],
    as_json: JsonOption = False,
) -> None:
    """List cohorts, stores and runs of a cache with their sizes."""
    from .cache.upkeep import ls

    rows = ls(cache)
    if as_json:
        _print_json(rows)
        return
    print(records(rows))


@cache_app.command("verify")
def cache_verify(
    cache: Annotated[Path, typer.Argument(help="Folder of the cache.", metavar="CACHE")],
) -> None:
    """Check every hash of a cache; exit code 5 names what is damaged and its remedy."""
    from .cache.upkeep import verify

    problems = verify(cache, _bars())
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
    from .cache.upkeep import gc

    for path in gc(cache, dry_run):
        print(f"{'would remove' if dry_run else 'removed'} {path}")


# --- options that come from the configuration models ------------------------------------------


def _own(name: str, annotation: Any, default: Any) -> Parameter:
    return Parameter(name, Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


_ORDER = [
    "demo",
    "doctor",
    "extract",
    "fuse",
    "evaluate",
    "compare",
    "predict",
    "report",
    "inspect",
]


def _name(command: typer.models.CommandInfo) -> str:
    return command.name or str(getattr(command.callback, "__name__", ""))


def _configure(command: str, function: Callable[..., None]) -> None:
    """Register a command whose options are the fields of its configuration.

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
        from .options import parameters

        if command == "extract":
            from .extract.config import ExtractConfig

            generated = parameters(ExtractConfig)
        else:
            from .fuse.config import FuseConfig

            generated = parameters(FuseConfig)
    if command == "fuse":
        directory = typer.Option(help="Run directory; default: one place per identity.")
        settings = typer.Option(help="TOML file of settings.", metavar="FILE.toml")
        single = typer.Option("--set", help="One more setting, name=value.", metavar="NAME=VALUE")
        show = typer.Option(help="Print the resolved configuration, and stop.")
        own = [
            _own("cache", CacheOption, Path("cm2-cache")),
            _own("out", Annotated[Path | None, directory], None),
            _own("config", Annotated[Path | None, settings], None),
            _own("set_", Annotated[list[str] | None, single], None),
            _own("show_config", Annotated[bool, show], False),
            *own,
        ]
    function.__signature__ = Signature([*generated, *own])  # type: ignore[attr-defined]
    function.__annotations__ = {p.name: p.annotation for p in [*generated, *own]}
    app.command(command)(function)


def main() -> None:
    """Run the command line and turn every deliberate error into its exit code."""
    _configure("extract", extract)
    _configure("fuse", fuse)
    app.registered_commands.sort(key=lambda command: _ORDER.index(_name(command)))
    try:
        app()
    except CM2Error as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("stopped; the same command continues", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        # The text of an unforeseen error may hold clinical data: only its kind and place are shown.
        frame = traceback.extract_tb(error.__traceback__)[-1]
        print(
            f"bug: {type(error).__name__} in {Path(frame.filename).name}:{frame.lineno}; "
            "please report it (with -v the full traceback is shown)",
            file=sys.stderr,
        )
        if _verbosity > 0:
            traceback.print_exc()
        sys.exit(1)


__all__ = ["app", "main"]
