"""The commands as functions: `cm2.extract`, `cm2.fuse`, `cm2.sweep`, `cm2.evaluate`, ….

Options have the names, defaults and meanings of the command line; nothing is printed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from .extract.summary import ExtractSummary
    from .fuse.group import RunGroup
    from .fuse.rundir import RunDir
    from .fuse.sweep.book import SweepDir

Place = str | PathLike[str]
"""A path, or a run, group or sweep, which stands for its directory."""


class Stage(ModuleType):
    """A package that is also the command of its name, so that `cm2.fuse(...)` trains."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Call the function of this name in `cm2.api`."""
        command: Callable[..., Any] = globals()[self.__name__.rpartition(".")[2]]
        return command(*args, **options)


def extract(cache: Place, **options: Any) -> ExtractSummary:
    """Stage one: build the cohort if it is absent, then encode every item of a modality once.

    Args:
        cache: Folder of the cache.
        options: The options of `cm2 extract`: `data`, `modality`, `encoder`, `weights` and so on.

    Returns:
        What was encoded, linked, rejected and left out.

    Raises:
        ConfigError: An unknown option, or options that contradict each other.
        DataError: The source is missing or damaged.
        RejectsError: Everything is stored, but more items than allowed could not be read.
    """
    from .extract.config import ExtractConfig
    from .extract.runner import extract as run
    from .options import validated

    return run(validated(ExtractConfig, {"cache": cache, **_texts(options)}))


def fuse(
    cache: Place,
    *,
    out: Place | None = None,
    seeds: Sequence[int] | str | int = (),
    device: str = "auto",
    compiled: bool = False,
    **options: Any,
) -> RunDir | RunGroup:
    """Stage two: train one run, or a group of them, and judge it on the validation stays.

    Args:
        cache: Folder of the cache.
        out: Directory of the run or group; by default one place per identity.
        seeds: Train one run for each seed; `0:4`, or one number, as on the command line too.
        device: auto, cpu, cuda or cuda:INDEX.
        compiled: Compile the steps, as `--compile` does.
        options: The options of `cm2 fuse`: `task`, `model`, `copula`, `preset` and so on. `folds`
            without `fold` trains every fold.

    Returns:
        The run; a group for several seeds or folds.

    Raises:
        ConfigError: An unknown option, options that contradict each other, or nothing to compile
            or to compile with.
        DataError: There is nothing to train or to choose by.
    """
    from .fuse.config import FuseConfig
    from .fuse.training import groups, trainer

    config = FuseConfig.of(options)
    place = None if out is None else Path(out)
    every_fold = config.folds > 0 and "fold" not in options
    if isinstance(seeds, str | int):
        seeds = groups.parse_seeds(str(seeds)) if seeds != "" else ()
    how: dict[str, Any] = {"device": device, "compiled": compiled}
    if seeds or every_fold:
        return groups.fuse_group(config, Path(cache), tuple(seeds), every_fold, place, **how)
    return trainer.fuse(config, Path(cache), place, **how)


def sweep(
    cache: Place,
    grid: Sequence[str],
    *,
    out: Place | None = None,
    engine: Literal["local", "ray", "ensemble", "auto"] = "local",
    jobs: int | None = None,
    device: str = "auto",
    shard: str | None = None,
    retry: bool = False,
    **options: Any,
) -> SweepDir:
    """Train many configurations from one cache, and rank them on the validation stays.

    Args:
        cache: Folder of the cache.
        grid: Lines of the grid as of `--grid`: `K=1:6`, `lambda_cop=1e-4..1e-1/4`.
        out: Directory of the sweep; by default one place per identity.
        engine: Processes, a Ray cluster, runs of one shape at once, or `auto`.
        jobs: Runs at a time; None for one per core, or one per GPU.
        device: auto, cpu, cuda or cuda:INDEX.
        shard: Part of a job array, `i/n`.
        retry: Try failed runs again.
        options: The other options of `cm2 sweep` and those of `cm2 fuse`: `seeds`, `search`,
            `halving`, `budget`, `task`, `model` and so on.

    Returns:
        The sweep; `index.parquet` in its directory has a row for each run.

    Raises:
        ConfigError: An unknown option, or a grid that cannot be meant.
        DataError: There is nothing to train or to choose by.
    """
    from .fuse.sweep.runner import How
    from .fuse.sweep.runner import sweep as run
    from .fuse.sweep.spec import sweep_spec

    spec = sweep_spec(options, [grid] if isinstance(grid, str) else grid, {})
    how = How(engine, jobs, device, shard, retry)
    return run(spec, Path(cache), None if out is None else Path(out), how)


def evaluate(
    run: Place,
    cache: Place,
    split: str = "test",
    *,
    bootstrap: int = 1000,
    unit: str = "patient",
    by: Sequence[str] | str = (),
    drop: Sequence[str] | str = (),
    threshold: str = "",
    recalibrate: str = "none",
) -> dict[str, Any]:
    """Judge a finished run or group; every look at the test stays is counted in its run.json.

    Args:
        run: A run or a group, or its directory.
        cache: Its cache, or that of another hospital: an external validation.
        split: val, test or all.
        bootstrap: Bootstrap replicates; 0 for no intervals.
        unit: What is resampled: patient or stay.
        by: Subgroups by columns of the cohort, such as `["sex", "age:40/65"]`.
        drop: Modalities withheld from a share of the stays, such as `cxr=0.5`.
        threshold: How a threshold is fixed on validation, such as `sensitivity=0.9`.
        recalibrate: Correct probabilities on validation: none, platt or isotonic.

    Returns:
        What `<split>_metrics.json` of the run holds.

    Raises:
        ConfigError: The run is not finished, or a look that cannot be meant.
        DataError: No stay of the split has a known target.
    """
    from .fuse.evaluation.evaluate import evaluate as judge
    from .fuse.evaluation.looks import Looks
    from .fuse.group import open_runs

    (opened,) = open_runs([Path(run)])
    looks = Looks(_words(by), _words(drop), str(threshold), recalibrate)
    return judge(opened, Path(cache), split, looks=looks, replicates=bootstrap, unit=unit)


def compare(
    runs: Sequence[Place] | Place,
    *,
    baseline: Place | None = None,
    predictions: Sequence[Place] | Place = (),
    split: str = "test",
    metrics: Sequence[str] | str = ("auroc", "aupr"),
    bootstrap: int = 1000,
) -> list[dict[str, Any]]:
    """Compare runs and groups on the same stays: paired bootstrap, DeLong, Holm.

    Args:
        runs: Judged runs and groups, or their directories.
        baseline: What they are compared with; the last of them by default.
        predictions: Files of other programs, with the columns stay_id and p.
        split: val or test.
        metrics: The first one is the primary.
        bootstrap: Bootstrap replicates.

    Returns:
        One row for each contender and metric, see `cm2 compare --json`.

    Raises:
        ConfigError: An unknown metric, or runs of different tasks.
        DataError: Predictions are missing, or no stay is common.
    """
    from .fuse.evaluation.compare import compare as judge
    from .fuse.evaluation.paired import Outside
    from .fuse.group import open_runs

    opened = open_runs(_places(runs))
    reference = opened[-1] if baseline is None else open_runs([Path(baseline)])[0]
    outside = [Outside.read(file) for file in _places(predictions)]
    return judge(
        [*opened, *outside], reference, split, metrics=_words(metrics), replicates=bootstrap
    )


def _words(given: Sequence[str] | str) -> tuple[str, ...]:
    """A list of words, or text with commas between them as on the command line."""
    from .options import words

    return words(given) if isinstance(given, str) else tuple(given)


def _places(given: Sequence[Place] | Place) -> list[Path]:
    """Several paths, or one alone."""
    return [Path(place) for place in ([given] if isinstance(given, str | PathLike) else given)]


def _texts(options: dict[str, Any]) -> dict[str, Any]:
    """Options as the command line gives them: one modality is a list of one."""
    return {n: [v] if n == "modality" and isinstance(v, str) else v for n, v in options.items()}


__all__ = ["Stage", "compare", "evaluate", "extract", "fuse", "sweep"]
