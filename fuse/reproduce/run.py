"""An experiment from what is asked for to its rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...cache import atomic
from ...errors import ConfigError
from ...progress import Progress, Stop, silent
from ..config import unknown
from ..evaluation.page import write as write_page
from .dependence import rows_of_copula
from .expand import Plan, Request, expand
from .experiments import EXPERIMENTS
from .methods import methods_experiment
from .rows import rows_of
from .show import Result, as_text
from .train import train

NAMES = (*EXPERIMENTS, "methods")


def plan(
    name: str, request: Request, *, drops: Sequence[str] = (), rows: Sequence[str] = ()
) -> Plan:
    """Find an experiment by name and lay it over the caches.

    Args:
        name: Out of `NAMES`.
        request: What is asked for.
        drops: Conditions of `methods`: see `methods_experiment`.
        rows: Rows of `methods`; empty takes partial.

    Raises:
        ConfigError: An unknown name, options that it does not take, or nothing to train.
    """
    if name not in NAMES:
        raise ConfigError(unknown("experiment", name, NAMES))
    if name == "methods":
        return expand(methods_experiment(drops, rows or ("partial",)), request)
    if drops or rows:
        raise ConfigError(
            f"--drop and --rows belong to `methods`: the paper settles them for {name}."
        )
    return expand(EXPERIMENTS[name], request)


def reproduce(
    planned: Plan,
    request: Request,
    seeds: Sequence[int],
    *,
    replicates: int = 0,
    jobs: int | None = None,
    device: str = "auto",
    progress: Progress = silent,
    stop: Stop | None = None,
) -> Result:
    """Train what is not trained yet, and judge every room.

    Args:
        planned: From `plan`.
        request: What it was made from.
        seeds: Seeds of every line.
        replicates: Bootstrap resamples; 0 takes as many as Holm's family needs.
        jobs: See `train`, as `device`.
        device: Where runs are trained.
        progress: Counts runs, then lines, then rooms.
        stop: Asked after every epoch.

    Raises:
        Interrupted: A stop was requested; the same call continues.
    """
    trained = train(planned, seeds, jobs=jobs, device=device, progress=progress, stop=stop)
    rows = []
    with progress("judging", len(planned.rooms), "tables") as advance:
        for room, lines in zip(planned.rooms, trained, strict=True):
            if planned.experiment.of_copula:
                found = rows_of_copula(planned.experiment, room, lines)
            else:
                found = rows_of(planned.experiment, room, lines, replicates)
            rows.append(tuple(found))
            advance(1)
    return Result(planned, request, tuple(seeds), tuple(rows))


def write(result: Result, folder: Path) -> list[Path]:
    """Write the tables as Markdown and CSV, and a figure as a page of HTML.

    Args:
        result: The experiment.
        folder: Where; made if absent.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for layout in ("md", "csv"):
        path = folder / f"{result.plan.experiment.name}.{layout}"
        atomic.write_bytes(path, (as_text(result, layout) + "\n").encode())
        paths.append(path)
    if result.plan.experiment.figure:
        from .picture import page  # matplotlib is slow to import

        paths.append(write_page(page(result), folder / f"{result.plan.experiment.name}.html"))
    return paths


__all__ = ["NAMES", "plan", "reproduce", "write"]
