"""What training a film's encoder end to end is worth, and what it costs, on one cohort.

Three arms on the same stays, folds, seeds and random trunks: the trunk as its seed made it, encoded
once into the cache (frozen cache); the same trunk trained end to end (stream); and the vectors of
that trained trunk in the cache with a new fusion on top (stream, then cache). Folds are pooled, so
every stay is tested once by a model that has not seen its patient.

    python -m benchmarks.stream_compare C --data ROOT --side 64 --trunk resnet8 --seeds 0:4
    python -m benchmarks.stream_compare C --config TABLES/own.toml --task icu --seeds 0:4

The rates of every arm are chosen from one grid, in each fold by its own validation stays, with a
seed that is not among those that are judged. What is trained is kept in the cache: a killed call
continues. `--validation` stops before any test stay is predicted.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

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
Cost = dict[str, float]
K = TypeVar("K")


class Rates(NamedTuple):
    """Learning rates of the fusion and of the trunk; 0 where none is trained."""

    fusion: float
    trunk: float = 0.0


Make = Callable[[int, int, Rates], dict[str, Any]]
"""From seed, fold and rates to the options of a run."""


class Arm(NamedTuple):
    """One arm, trained: its runs by seed and fold, and the rates of every fold."""

    runs: dict[tuple[int, int], str]
    rates: tuple[Rates, ...]


def main() -> None:
    """Train every arm on every seed and fold, and print one line for each arm."""
    given = _arguments()
    costs = Costs(given.out / "costs.json")
    source = {"data": given.data} if given.data else {"config": given.config}
    source |= {"cache": given.cache, "modality": given.modality}
    costs.encoded({**source, "level": "pixels", "side": given.side})
    frozen = {
        seed: costs.encoded(
            {**source, "encoder": given.trunk, "weights": f"random:{seed}", "side": given.side}
        )
        for seed in (given.tuning_seed, *given.seeds)
    }
    behind = [Rates(rate) for rate in given.lr]
    both = [Rates(fusion, trunk) for fusion in given.lr for trunk in given.lr_trunk]

    def on_frozen(seed: int, fold: int, rates: Rates) -> dict[str, Any]:
        return _cached(given, seed, fold, rates, frozen[seed])

    def streaming(seed: int, fold: int, rates: Rates) -> dict[str, Any]:
        return _streaming(given, seed, fold, rates)

    arms = {
        FROZEN: _train_arm(FROZEN, on_frozen, behind, given, costs),
        STREAM: _train_arm(STREAM, streaming, both, given, costs),
    }
    learned = {
        place: costs.encoded({**source, "weights": run}) for place, run in arms[STREAM].runs.items()
    }

    def on_learned(seed: int, fold: int, rates: Rates) -> dict[str, Any]:
        return _cached(given, seed, fold, rates, learned[seed, fold])

    arms[CACHED] = _train_arm(CACHED, on_learned, behind, given, costs)
    for name, arm in arms.items():
        values = [_validated(run) for run in arm.runs.values()]
        print(f"{name}: validation AUROC {sum(values) / len(values):.3f}, {_told(arm.rates)}")
    if given.validation:
        return
    groups = {name: _group(given, name, arm) for name, arm in arms.items()}
    for group in groups.values():
        for member in group.members:
            if member.metrics("test") is None:  # giving the command again is no second look
                evaluate(member, given.cache, "test", replicates=0)
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
    parser.add_argument("--lr", type=_rates, default="1e-3,1e-2", help="grid, comma-separated")
    parser.add_argument("--lr-trunk", type=_rates, default="1e-3,1e-2", help="grid of the trunk")
    parser.add_argument("--seeds", type=parse_seeds, default="0:4")
    parser.add_argument("--tuning-seed", type=int, default=100, help="chooses the rates")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--validation", action="store_true", help="judge no test stay")
    parser.add_argument("--out", type=Path, help="groups and costs; default: below the cache")
    given = parser.parse_args()
    given.out = given.out or given.cache / "stream_compare"
    if given.tuning_seed in given.seeds:
        parser.error(f"--tuning-seed {given.tuning_seed} is judged too: choose another")
    return given


def _rates(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


def _base(given: argparse.Namespace, seed: int, fold: int, rates: Rates) -> dict[str, Any]:
    return {
        "task": given.task,
        "model": "single",
        "hidden": 32,
        "epochs": given.epochs,
        "patience": given.epochs,
        "batch_size": 16,
        "lr": rates.fusion,
        "seed": seed,
        "folds": given.folds,
        "fold": fold,
    }


def _streaming(given: argparse.Namespace, seed: int, fold: int, rates: Rates) -> dict[str, Any]:
    return {
        **_base(given, seed, fold, rates),
        "mode": "stream",
        "modalities": (given.modality,),
        "trunk": (f"{given.modality}={given.trunk}",),
        "init": (f"{given.modality}=random:{seed}",),
        "lr_trunk": rates.trunk,
    }


def _cached(
    given: argparse.Namespace, seed: int, fold: int, rates: Rates, space: str
) -> dict[str, Any]:
    return {**_base(given, seed, fold, rates), "modalities": (f"{given.modality}@{space}",)}


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


def _train_arm(
    name: str, make: Make, grid: Sequence[Rates], given: argparse.Namespace, costs: Costs
) -> Arm:
    """Choose rates in each fold by its validation stays, and train every seed with them."""
    folds, seed = range(given.folds), given.tuning_seed
    tried = _trained(
        f"{name}, rates",
        {(rates, fold): make(seed, fold, rates) for rates in grid for fold in folds},
        given,
        costs,
    )
    best = [
        max(grid, key=lambda rates, fold=fold: _validated(tried[rates, fold]))  # type: ignore[misc]
        for fold in folds
    ]
    places = [(seed, fold) for seed in (given.tuning_seed, *given.seeds) for fold in folds]
    configs = {(seed, fold): make(seed, fold, best[fold]) for seed, fold in places}
    return Arm(_trained(name, configs, given, costs), tuple(best))


def _trained(
    name: str, configs: dict[K, dict[str, Any]], given: argparse.Namespace, costs: Costs
) -> dict[K, str]:
    """Train what is not trained yet, one run in each process."""
    runs: dict[K, str] = {}
    with ProcessPoolExecutor(given.processes, get_context("spawn")) as pool:
        jobs = {job: pool.submit(_train, config, given.cache) for job, config in configs.items()}
        for place, (job, future) in enumerate(jobs.items(), 1):
            runs[job], cost = future.result()
            costs.add(Path(runs[job]).name, cost)
            print(f"{name}: {place} of {len(jobs)}", flush=True)
    return runs


def _validated(run: str) -> float:
    value: float = RunDir.open(Path(run)).metrics("val")["auroc"]["value"]  # type: ignore[index]
    return value


def _told(rates: Sequence[Rates]) -> str:
    """Rates of the folds, most frequent first."""
    return "rates " + ", ".join(
        f"{rate.fusion:g}" + (f" / {rate.trunk:g}" if rate.trunk else "") + f" ({n} folds)"
        for rate, n in Counter(rates).most_common()
    )


def _group(given: argparse.Namespace, name: str, arm: Arm) -> RunGroup:
    runs = [RunDir.open(Path(run)) for (seed, _), run in arm.runs.items() if seed in given.seeds]
    digest = fingerprint([run.info["identity"] for run in runs])
    folder = f"{name.replace(', ', ' ').replace(' ', '-')}-{given.task}-{digest[:12]}"
    content = {"identity": digest, "kind": "folds", "folds": given.folds}
    return RunGroup.write(given.out / folder, {run.path: run.config for run in runs}, content)


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
        f"{given.epochs} epochs"
    )
    head = ["arm", "metric", "value", "sd", "minus frozen", "minus stream"]
    head += ["encode s", "encode CPU s", "train s", "train CPU s"]
    print(table(head, cells))
    print("Seconds are those of one run; pixels and a frozen trunk are encoded once for many.")
    print(json.dumps({arm: str(group.path) for arm, group in groups.items()}))


if __name__ == "__main__":
    main()
