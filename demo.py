"""The whole way in one call, on synthetic data: extract, train CM2 and its neighbours, judge."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .console import metric_table
from .progress import Progress, Stop, never, silent

if TYPE_CHECKING:
    from .extract.sources.demo_films import Sign

MODALITIES = ("ehr", "cxr", "report")

MODELS: dict[str, dict[str, Any]] = {
    "CM2": {"model": "cm2", "fusion_hidden": 64},
    "EHR only": {"model": "single", "modalities": ("ehr",)},
    "concat": {"model": "concat", "fusion_hidden": 64},
}
"""What the demo trains: the method, and the plain neighbours it has to beat."""

SMALL = {"hidden": 48, "epochs": 60, "patience": 12, "batch_size": 32}
"""Widths and epochs that suit a few hundred stays."""


@dataclass(frozen=True)
class DemoResult:
    """Where everything lies, and the table that compares the models."""

    data: Path
    cache: Path | None = None
    report: Path | None = None
    table: str = ""


def run_demo(
    out: Path,
    stays: int = 400,
    seed: int = 0,
    *,
    sign: Sign = "haze",
    data_only: bool = False,
    progress: Progress = silent,
    stop: Stop | None = None,
) -> DemoResult:
    """Write a synthetic source tree and take it through both stages.

    Every step resumes, so a second call finishes what the first one began and then returns at once.

    Args:
        out: Folder for the source tree (`data`) and the cache (`cache`).
        stays: ICU stays to make up.
        seed: Seed of the data and of every run.
        sign: How severity shows in films: as haze, or as the pattern of some patches.
        data_only: Stop after the source tree.
        progress: Where progress is shown.
        stop: Asked between shards and between epochs.
    """
    from .extract.config import ExtractConfig
    from .extract.runner import extract
    from .extract.sources.demo import write_demo
    from .fuse.config import FuseConfig
    from .fuse.evaluation.compare import compare
    from .fuse.evaluation.evaluate import evaluate
    from .fuse.evaluation.layout import layout_rows
    from .fuse.evaluation.report import write_report
    from .fuse.training.trainer import fuse

    stop = stop or never()
    data, cache = out / "data", out / "cache"
    write_demo(data, stays=stays, seed=seed, progress=progress, sign=sign)
    if data_only:
        return DemoResult(data)
    asked = ExtractConfig(data=data, cache=cache, modality=MODALITIES)
    extract(asked, progress=progress, stop=stop)
    runs, rows = [], []
    for name, options in MODELS.items():
        config = FuseConfig.of({"task": "ihm", "seed": seed, **SMALL, **options})
        run = fuse(config, cache, progress=progress, stop=stop)
        metrics = run.metrics("test") or evaluate(run, cache, "test", progress=progress)
        runs.append(run)
        rows.append((name, "test", metrics))
    report = write_report(runs[0], out / "report.html", cache=cache, others=runs[1:])
    against = layout_rows(compare(runs, runs[1], metrics=("auroc",)))
    return DemoResult(data, cache, report, f"{metric_table(rows)}\n\n{against}")
