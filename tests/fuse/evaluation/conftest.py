"""A run made by hand: what a trainer and an evaluation would have left behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cm2.cache import atomic
from cm2.fuse.config import FuseConfig
from cm2.fuse.evaluation.evaluate import judge
from cm2.fuse.rundir import RunDir

MakeRun = Callable[..., RunDir]
FIRST_STAY, FIRST_SUBJECT = 7_310_000, 5_820_000
COHORT = "c" * 64
MODALITIES = ("ehr", "cxr", "report")


def predictions(
    n: int = 120, seed: int = 0, noise: float = 1.0, task: str = "ihm", split: str = "test"
) -> pa.Table:
    """Predictions of `n` stays of about `0.85 n` patients; labels do not depend on `seed`."""
    truth, own = np.random.default_rng(7), np.random.default_rng(seed + 1)
    y = (truth.random(n) < 0.3).astype(np.int8)
    subject = FIRST_SUBJECT + truth.integers(0, int(0.85 * n), n)
    patterns = np.array(["ehr", "ehr+cxr+report", "ehr+cxr"])
    pattern = patterns[np.searchsorted([0.6, 0.97], truth.random(n))]
    p = 1 / (1 + np.exp(1 - 1.5 * y - noise * own.normal(size=n)))
    return pa.table(
        {
            "run": ["run"] * n,
            "seed": pa.array([0] * n, pa.int64()),
            "fold": pa.array([None] * n, pa.int64()),
            "stay_id": pa.array(FIRST_STAY + np.arange(n), pa.int64()),
            "subject_id": pa.array(subject, pa.int64()),
            "split": [split] * n,
            "task": [task] * n,
            "target": [task] * n,
            "y": pa.array(y, pa.int8()),
            "p": pa.array(p, pa.float64()),
            "pattern": pa.array(list(pattern), pa.string()),
        }
    )


def history(epochs: int = 12) -> list[dict[str, Any]]:
    """Epochs whose validation AUROC is best in the eighth."""
    return [
        {
            "epoch": e,
            "lr": 1e-3,
            "train_loss": 1.5 / e,
            "train_task": 0.7 - 0.02 * e,
            "train_copula": -0.01 * e,
            "train_marginal": 1.4 - 0.01 * e,
            "val_loss": 0.7 - 0.01 * e,
            "val_copula": -0.008 * e,
            "val_marginal": 1.5 - 0.01 * e,
            "val_auroc": 0.7 - 0.002 * (e - 8) ** 2,
            "val_aupr": 0.4 - 0.002 * (e - 8) ** 2,
            "ks": 0.05 / e,
            "effective_rank": 3.0 + 0.1 * e,
            "spread": 0.8,
            "kendall_tau": 0.1 + 0.01 * e,
        }
        for e in range(1, epochs + 1)
    ]


def learned(family: str = "frank") -> dict[str, Any]:
    """What a copula model over three modalities stores."""
    parameters: dict[str, Any] = {"theta": 2.5}
    tau: Any = 0.26
    tails: Any = {"lower": 0.0, "upper": 0.0}
    if family == "gaussian":
        parameters = {"correlation": [[1, 0.5, 0.2], [0.5, 1, 0.1], [0.2, 0.1, 1]]}
        tau = [[1, 1 / 3, 0.128], [1 / 3, 1, 0.064], [0.128, 0.064, 1]]
        tails = {"lower": [[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]]}
        tails["upper"] = tails["lower"]
    counts = np.random.default_rng(3).poisson(6, (10, 10)).tolist()
    return {
        "family": family,
        "coupling": "rosenblatt",
        "is_density": True,
        "parameters": parameters,
        "kendall_tau": tau,
        "tail_dependence": tails,
        "mixture_weights": [[0.5, 0.3, 0.2], [0.9, 0.1, 0.0], [0.4, 0.35, 0.25]],
        "mixture_means": [],
        "mixture_stds": [],
        "modalities": list(MODALITIES),
        "u_histogram": {"ehr,cxr": counts, "ehr,report": counts, "cxr,report": counts},
        "validation_kendall_tau": 0.2,
    }


def write_run(
    folder: Path,
    table: pa.Table | None = None,
    *,
    splits: tuple[str, ...] = ("val", "test"),
    copula: str | None = "frank",
    **options: Any,
) -> RunDir:
    """Make a finished run of any configuration."""
    config = FuseConfig.of({"modalities": MODALITIES, "warmup": 1, **options})
    run = RunDir(folder)
    folder.mkdir()
    atomic.write_json(run.path / "config.json", {"config": config.model_dump(mode="json")})
    table = predictions() if table is None else table
    part = {"n": 120, "positives": 36, "subjects": 100}
    part["available"] = {"ehr": 120, "cxr": 50, "report": 45}
    spaces: dict[str, Any] = {
        m: {"view": "series" if m == "ehr" else "vector", "encoder": "resnet34"} for m in MODALITIES
    }
    prints = {m: {"space": "a" * 12, "content": "b" * 64} for m in MODALITIES}
    run.update(
        status="finished",
        model=config.model,
        identity="0123456789abcdef",
        dataset="mimic4",
        versions={"cm2": "0.1.0"},
        spaces=spaces,
        fingerprints={"cohort": COHORT, "modalities": prints},
        rows={"train": part, "val": part, "test": part},
        warnings=[],
        looks={"test": 1} if "test" in splits else {},
        best_epoch=8,
    )
    run.write_history(history())
    for split in splits:
        run.write_predictions(split, table)
        metrics = judge(table, replicates=50, unit="patient", seed=0, split=split)
        run.write_metrics(split, metrics)
    if copula is not None:
        atomic.write_json(run.path / "learned.json", learned(copula))
    return run


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Make finished runs below the test's own folder."""
    return lambda name="run", table=None, **options: write_run(tmp_path / name, table, **options)
