"""What training a film's encoder end to end is worth, and what it costs, on one cohort.

Three arms on the same stays and folds: a trunk that stays as its seed made it, the same trunk
trained end to end, and the vectors of the trained trunk in a cache with a new fusion on top. The
folds are pooled, so every stay is tested once by a model that has not seen its patient.

    cm2 extract --data ROOT --cache C --modality cxr --level pixels --side 64
    python -m benchmarks.stream_compare C --data ROOT --trunk resnet8
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from cm2.extract.config import ExtractConfig
from cm2.extract.runner import extract
from cm2.fuse.config import FuseConfig
from cm2.fuse.inference import predict
from cm2.fuse.rundir import RunDir
from cm2.fuse.training.trainer import fuse

FROZEN = {"lr_trunk": 1e-30, "trunk_norm": "frozen", "augment": False}


def main() -> None:
    """Train every arm on every fold and seed, and print one line for each arm."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--data", type=Path, help="source of the films, for the third arm")
    parser.add_argument("--task", default="ihm")
    parser.add_argument("--trunk", default="resnet8")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args()
    found: dict[str, list[np.ndarray]] = {}
    seconds: dict[str, float] = {}
    rows: list[dict[str, object]] = []
    for seed in range(given.seeds):
        base = {
            "task": given.task,
            "model": "single",
            "modalities": ("cxr",),
            "hidden": 32,
            "epochs": given.epochs,
            "patience": given.epochs,
            "warmup": 1,
            "batch_size": 16,
            "lr": 1e-3,
            "seed": seed,
            "folds": 5,
        }
        streaming = {**base, "mode": "stream", "trunk": (f"cxr={given.trunk}",), "lr_trunk": 1e-3}
        for fold in range(5):
            runs = {
                "frozen random trunk": fused(given.cache, {**streaming, **FROZEN, "fold": fold}),
                "end to end": fused(given.cache, {**streaming, "fold": fold}),
            }
            if given.data is not None:
                began = time.monotonic()
                trained = str(runs["end to end"][0].path)
                config = {"data": given.data, "cache": given.cache, "modality": "cxr"}
                options = ExtractConfig.model_validate({**config, "weights": (trained,)})
                space = extract(options).modalities[0].space
                again = {**base, "modalities": (f"cxr@{space}",), "fold": fold}
                run, spent = fused(given.cache, again)
                runs["end to end, then cached"] = (run, time.monotonic() - began)
            for arm, (run, spent) in runs.items():
                table = predict(run, given.cache, "test").select(["stay_id", "y", "p"])
                seconds[arm] = seconds.get(arm, 0.0) + spent
                rows += [{"arm": arm, "seed": seed, **row} for row in table.to_pylist()]
    stays = sorted({row["stay_id"] for row in rows if row["y"] is not None})
    place = {stay: i for i, stay in enumerate(stays)}
    y = np.zeros(len(stays))
    for arm in seconds:
        p = np.zeros((given.seeds, len(stays)))
        for row in rows:
            if row["arm"] == arm and row["y"] is not None:
                p[int(str(row["seed"])), place[row["stay_id"]]] = row["p"]
                y[place[row["stay_id"]]] = row["y"]
        found[arm] = list(p)
    report(y, found, seconds, given.seeds)


def fused(cache: Path, options: dict[str, object]) -> tuple[RunDir, float]:
    """Train a run, and say how many seconds it took."""
    began = time.monotonic()
    run = fuse(FuseConfig.of(options), cache, device="cpu")
    return run, time.monotonic() - began


def report(
    y: np.ndarray, found: dict[str, list[np.ndarray]], seconds: dict[str, float], seeds: int
) -> None:
    """Mean AUROC over seeds with a bootstrap of stays, and the paired difference to the first."""
    random = np.random.default_rng(0)
    draws = [random.integers(0, len(y), len(y)) for _ in range(1000)]
    draws = [rows for rows in draws if 0 < y[rows].sum() < len(y)]
    print(f"{len(y)} stays, {int(y.sum())} positives, {seeds} seeds, 5 folds pooled")
    first: np.ndarray | None = None
    for arm, predictions in found.items():
        value = np.mean([roc_auc_score(y, p) for p in predictions])
        sd = np.std([roc_auc_score(y, p) for p in predictions], ddof=1) if seeds > 1 else 0.0
        resampled = np.array(
            [np.mean([roc_auc_score(y[rows], p[rows]) for p in predictions]) for rows in draws]
        )
        line = {
            "arm": arm,
            "auroc": round(float(value), 3),
            "interval": [round(float(v), 3) for v in np.quantile(resampled, [0.025, 0.975])],
            "sd_over_seeds": round(float(sd), 3),
            "seconds_per_run": round(seconds[arm] / (5 * seeds), 1),
        }
        if first is None:
            first = resampled
        else:
            difference = np.quantile(resampled - first, [0.025, 0.5, 0.975])
            line["minus_first"] = [round(float(v), 3) for v in difference]
        print(json.dumps(line))


if __name__ == "__main__":
    main()
