"""Look ahead: how many runs, how long, how large; measured, where nothing is finished yet."""

from __future__ import annotations

import statistics
from collections import Counter
from pathlib import Path
from typing import Any

from ..config import FuseConfig
from ..identity import Inputs
from .index import read_run
from .plan import Plan, make_plan, share
from .runner import How, parallel
from .spec import SweepSpec

SHAPELESS = (
    "seed", "fold", "lr", "lr_copula", "dropout", "lambda_cop", "lambda_align", "temperature",
    "weight_decay", "clip", "align_temperature", "patience", "epochs", "warmup", "beta2", "K",
)  # fmt: skip
"""Options that change neither the shape of a model nor, by much, the time of a step."""

_FILES, _FILES_KEPT, _BYTES = 8, 2, 60_000
_MOST_MEASURED = 6


def estimate(spec: SweepSpec, cache: Path, how: How) -> dict[str, Any]:
    """Say what `sweep` would do, without doing it.

    Args:
        spec: What is searched.
        cache: The cache.
        how: Engine and part.

    Returns:
        settings, runs, finished, groups (runs of one shape), left out and why, hours (all runs one
        after another, and with the processes of this call), bytes and files when all is done.
    """
    inputs = Inputs(cache)
    facts: dict[str, Any] = {"search": spec.search}
    if spec.search == "tpe":
        settings = (spec.runs or 0) // spec.replicates
        facts |= {"settings at most": settings, "runs at most": settings * spec.replicates}
        return facts | {"hours": "not known: a guided search chooses as it goes"}
    plan = make_plan(spec, cache, inputs)
    mine = share(plan, how.shard)
    shapes = Counter(_shape(plan.configs[i]) for i in mine)
    found = {i: read_run(plan.members[i].run) for i in mine}
    finished = [i for i in mine if found[i]["status"] == "finished"]
    seconds, source = _seconds_per_epoch(plan, mine, found, inputs, how.device)
    epochs = {i: plan.configs[i].passes - found[i]["epochs"] for i in mine if i not in finished}
    hours = sum(seconds[_shape(plan.configs[i])] * n for i, n in epochs.items()) / 3600
    weights = [_weight_bytes(plan.configs[i], inputs) for i in _one_of_each(plan, mine)]
    kept = min(spec.keep, len(plan.settings)) * spec.replicates
    jobs = parallel(how)
    return facts | {
        "settings": len(plan.settings),
        "runs": len(mine),
        "finished": len(finished),
        "groups of one shape": len(shapes),
        "the same training": plan.expansion.repeated,
        "left out": dict(plan.expansion.refused),
        "hours": {
            "one after another": round(hours, 3),
            f"with {jobs} at a time": round(hours / jobs, 3),
            "from": f"{source}, every run to its last epoch",
        },
        "megabytes": round((len(mine) * _BYTES + kept * 2 * max(weights)) / 1e6, 1),
        "files": len(mine) * _FILES + kept * _FILES_KEPT,
    }


def _shape(config: FuseConfig) -> str:
    return config.model_dump_json(exclude=set(SHAPELESS))


def _one_of_each(plan: Plan, numbers: list[int]) -> list[int]:
    first: dict[str, int] = {}
    for i in numbers:
        first.setdefault(_shape(plan.configs[i]), i)
    return list(first.values())[:_MOST_MEASURED]


def _seconds_per_epoch(
    plan: Plan,
    numbers: list[int],
    found: dict[int, dict[str, Any]],
    inputs: Inputs,
    device: str,
) -> tuple[dict[str, float], str]:
    """By shape, from finished runs or measured; where neither is, the mean of the others."""
    by_shape: dict[str, list[float]] = {}
    for i in numbers:
        if found[i]["status"] == "finished" and found[i]["epochs"]:
            rate = found[i]["seconds"] / found[i]["epochs"]
            by_shape.setdefault(_shape(plan.configs[i]), []).append(rate)
    source = "finished runs" if by_shape else "a few epochs on some rows"
    if not by_shape:
        for i in _one_of_each(plan, numbers):
            config = plan.configs[i]
            by_shape[_shape(config)] = [_measured(config, inputs, device)]
    means = {shape: statistics.fmean(values) for shape, values in by_shape.items()}
    other = statistics.fmean(means.values())
    return {s: means.get(s, other) for s in map(_shape, plan.configs)}, source


def _measured(config: FuseConfig, inputs: Inputs, device: str) -> float:
    from ..training.device import choose
    from ..training.estimate import seconds_per_epoch

    identity = inputs.identify(config)
    return seconds_per_epoch(identity, inputs.load(identity).to(choose(device)))


def _weight_bytes(config: FuseConfig, inputs: Inputs) -> int:
    from ..inference import build

    identity = inputs.identify(config)
    data = inputs.load(identity)
    model = build(data.specs, identity.config, len(data.targets))
    return sum(t.numel() * t.element_size() for t in model.state_dict().values())


__all__ = ["estimate"]
