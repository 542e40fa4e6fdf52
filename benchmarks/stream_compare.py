"""What training a film's encoder end to end is worth, and what it costs, on one cohort.

Three arms on the same stays, folds, seeds and random trunks: the trunk as its seed made it, encoded
once into the cache (frozen cache); the same trunk trained end to end (stream); and the vectors of
that trained trunk in the cache with a new fusion on top (stream, then cache). Folds are pooled, so
every stay is tested once by a model that has not seen its patient.

    python -m benchmarks.stream_compare C --data ROOT --side 64 --trunk resnet8 --seeds 0:4
    python -m benchmarks.stream_compare C --config TABLES/own.toml --task icu --seeds 0:4

Rates and epochs were settled on validation stays of other seeds (`--validation` prints no more).
What is trained is kept in the cache: a killed call continues.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

import cm2
from cm2.cache import atomic
from cm2.cache.fingerprint import fingerprint
from cm2.console import table
from cm2.fuse.config import FuseConfig
from cm2.fuse.evaluation.compare import compare
from cm2.fuse.evaluation.evaluate import evaluate
from cm2.fuse.group import RunGroup
from cm2.fuse.rundir import RunDir
from cm2.fuse.training.groups import parse_seeds
from cm2.fuse.training.trainer import fuse

FROZEN, STREAM, CACHED = "frozen cache", "stream", "stream, then cache"
Job = tuple[str, int, int]
"""Arm, seed, fold."""
Cost = dict[str, float]


def main() -> None:
    """Train every arm on every seed and fold, and print one line for each arm."""
    given = _arguments()
    costs = Costs(given.out / "costs.json")
    source = {"data": given.data} if given.data else {"config": given.config}
    source |= {"cache": given.cache, "modality": given.modality}
    costs.encoded({**source, "level": "pixels", "side": given.side})
    seeds, folds = parse_seeds(given.seeds), range(given.folds)

    frozen: dict[int, str] = {}
    for seed in seeds:
        options = {"encoder": given.trunk, "weights": f"random:{seed}", "side": given.side}
        frozen[seed] = costs.encoded(source | options)
    configs = {
        (STREAM, seed, fold): _streaming(given, seed, fold) for seed in seeds for fold in folds
    }
    runs = _trained(configs, given, costs)
    for (_, seed, fold), run in tuple(runs.items()):
        space = costs.encoded({**source, "weights": run})
        configs[CACHED, seed, fold] = _cached(given, seed, fold, space)
        configs[FROZEN, seed, fold] = _cached(given, seed, fold, frozen[seed])
    runs = _trained(configs, given, costs)

    groups = {
        arm: _group(
            given, arm, [RunDir.open(Path(run)) for job, run in runs.items() if job[0] == arm]
        )
        for arm in (FROZEN, STREAM, CACHED)
    }
    if given.validation:
        for arm, group in groups.items():
            values = [run.metrics("val")["auroc"]["value"] for run in group.members]  # type: ignore[index]
            print(arm, f"validation AUROC {sum(values) / len(values):.3f}, {len(values)} runs")
        return
    for group in groups.values():
        for run in group.members:
            if run.metrics("test") is None:  # giving the command again is no second look
                evaluate(run, given.cache, "test", replicates=0)
    _print(groups, costs, given)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("cache", type=Path)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, help="root of MIMIC tables and films")
    source.add_argument("--config", type=Path, help="TOML file of data of your own")
    parser.add_argument("--modality", default="cxr")
    parser.add_argument("--task", default="ihm")
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--trunk", default="resnet8")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--lr", type=float, default=1e-2)
    parser.add_argument("--lr-trunk", type=float, default=1e-3)
    parser.add_argument("--seeds", default="0:4")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--validation", action="store_true", help="judge no test stay")
    parser.add_argument("--out", type=Path, help="groups and costs; default: below the cache")
    given = parser.parse_args()
    given.out = given.out or given.cache / "stream_compare"
    return given


def _base(given: argparse.Namespace, seed: int, fold: int) -> dict[str, Any]:
    return {
        "task": given.task,
        "model": "single",
        "hidden": 32,
        "epochs": given.epochs,
        "patience": given.epochs,
        "batch_size": 16,
        "lr": given.lr,
        "seed": seed,
        "folds": given.folds,
        "fold": fold,
    }


def _streaming(given: argparse.Namespace, seed: int, fold: int) -> dict[str, Any]:
    return {
        **_base(given, seed, fold),
        "mode": "stream",
        "modalities": (given.modality,),
        "trunk": (f"{given.modality}={given.trunk}",),
        "init": (f"{given.modality}=random:{seed}",),
        "lr_trunk": given.lr_trunk,
    }


def _cached(given: argparse.Namespace, seed: int, fold: int, space: str) -> dict[str, Any]:
    return {**_base(given, seed, fold), "modalities": (f"{given.modality}@{space}",)}


class Costs:
    """Seconds of every space that was encoded and every run that was trained, kept beside them.

    Args:
        path: Their file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seconds: dict[str, Cost] = (
            atomic.read_json(path, "Remove it.")["seconds"] if path.is_file() else {}
        )
        path.parent.mkdir(parents=True, exist_ok=True)

    def encoded(self, options: dict[str, Any]) -> str:
        """Extract, and return the space."""
        with _Timer() as timer:
            space: str = cm2.extract(**options).modalities[0].space
        self.add(space, timer.cost)
        return space

    def add(self, name: str, cost: Cost) -> None:
        """Keep the seconds of a space or run; one that is found costs next to nothing again."""
        if cost["wall"] > self._seconds.get(name, {"wall": 0.0})["wall"]:
            self._seconds[name] = cost
            atomic.write_json(self._path, {"seconds": self._seconds})

    def mean(self, names: Sequence[str], kind: str) -> float:
        """Mean seconds of some spaces or runs."""
        return sum(self._seconds.get(name, {kind: 0.0})[kind] for name in names) / len(names)


class _Timer:
    def __enter__(self) -> _Timer:
        self._began = time.monotonic(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        wall, cpu = self._began
        self.cost = {"wall": time.monotonic() - wall, "cpu": time.process_time() - cpu}


def _train(config: dict[str, Any], cache: Path) -> tuple[str, Cost]:
    torch.set_num_threads(1)
    with _Timer() as timer:
        run = fuse(FuseConfig.of(config), cache, device="cpu")
    return str(run.path), timer.cost


def _trained(
    configs: dict[Job, dict[str, Any]], given: argparse.Namespace, costs: Costs
) -> dict[Job, str]:
    """Train what is not trained yet, one run in each process."""
    runs: dict[Job, str] = {}
    with ProcessPoolExecutor(given.processes, get_context("spawn")) as pool:
        jobs = {job: pool.submit(_train, config, given.cache) for job, config in configs.items()}
        for place, (job, future) in enumerate(jobs.items(), 1):
            runs[job], cost = future.result()
            costs.add(Path(runs[job]).name, cost)
            print(f"{place} of {len(jobs)}: {job[0]}, seed {job[1]}, fold {job[2]}", flush=True)
    return runs


def _group(given: argparse.Namespace, arm: str, runs: Sequence[RunDir]) -> RunGroup:
    digest = fingerprint([run.info["identity"] for run in runs])
    name = f"{arm.replace(', ', ' ').replace(' ', '-')}-{given.task}-{digest[:12]}"
    content = {"identity": digest, "kind": "folds", "folds": given.folds}
    return RunGroup.write(given.out / name, {run.path: run.config for run in runs}, content)


def _print(groups: dict[str, RunGroup], costs: Costs, given: argparse.Namespace) -> None:
    names = {str(group.path): arm for arm, group in groups.items()}
    against = {
        base: compare([*groups.values()], groups[base], metrics=("auroc", "aupr"))
        for base in (FROZEN, STREAM)
    }
    differences = {
        (names[row["run"]], base, row["metric"]): row
        for base, rows in against.items()
        for row in rows
    }
    cells = []
    for row in against[FROZEN]:
        arm, metric = names[row["run"]], row["metric"]
        runs = groups[arm].members
        spaces = [run.config.modalities[0].partition("@")[2] for run in runs]
        line = [
            arm,
            metric,
            f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]",
            f"{row['sd']:.3f}" if row["sd"] is not None else "",
        ]
        for base in (FROZEN, STREAM):
            other = differences[arm, base, metric]
            line.append(
                f"{other['difference']:+.3f} [{other['difference_low']:+.3f}, "
                f"{other['difference_high']:+.3f}] p {other['p_bootstrap']:.3g}"
                if "difference" in other
                else ""
            )
        line += [
            f"{costs.mean(computed, kind):.1f}"
            for computed in (spaces, [run.path.name for run in runs])
            for kind in ("wall", "cpu")
        ]
        cells.append(line)
    first = against[FROZEN][0]
    print(
        f"{given.task}, {given.trunk}, films {given.side} x {given.side}: {first['n']} stays, "
        f"{first['positives']} with the event, {first['seeds']} seeds, {given.folds} folds pooled, "
        f"lr {given.lr:g}, lr of the trunk {given.lr_trunk:g}, {given.epochs} epochs"
    )
    head = ["arm", "metric", "value", "sd", "minus frozen", "minus stream"]
    head += ["encode s", "encode CPU s", "train s", "train CPU s"]
    print(table(head, cells))
    print("Seconds are those of one run; pixels and a frozen trunk are encoded once for many.")
    print(json.dumps({arm: str(group.path) for arm, group in groups.items()}))


if __name__ == "__main__":
    main()
