"""The fusion step of cm2 against the plain way, and against its own matrix products.

    python -m benchmarks.fusion_step [--rounds 5] [--small] [--compile] [--out result.json]

`plain` is the same model, losses and trainer with `nn.LSTM` and `Adam` with its defaults, in
fp32; `fp32` and `bf16` are cm2 as it stands, with Adam too. Before anything is timed the mean
losses of `plain` and `fp32` over the first steps must agree. A step is all that `fuse` does:
batch, noise, forward, backward, clipping, optimiser. `products` multiplies matrices of the shapes
and precision of one step back to back and does nothing else. EHR `cached` is a stored vector of
256, `trained` the two-layer LSTM over 24 x 76; the film is a vector of 512 that a quarter of the
stays have, the fusion LSTM is 512 wide. One thread; ways take turns in one process; times are the
processor's.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from cm2.fuse.config import FuseConfig
from cm2.fuse.rows import FusionData
from cm2.fuse.training.allocator import keep_freed_memory
from cm2.fuse.training.compiled import compile_forward
from cm2.fuse.training.loop import reproducible, train_epoch

from .cohorts import cohort
from .method_steps import Recorder
from .plain import make_plain
from .sweep_ensemble import started
from .timing import Work, in_turns, load_average

ROWS = 256
CASES = ((16, 3), (32, 1), (32, 3), (32, 6), (256, 3))
"""Batch size and mixture components."""


def settings(batch: int, K: int, hidden: int, precision: str) -> FuseConfig:
    """A configuration at the width of the paper, or a narrower one."""
    return FuseConfig.of(
        {
            "hidden": hidden,
            "fusion_hidden": 2 * hidden,
            "batch_size": batch,
            "K": K,
            "precision": precision,
            "optimizer": "adam",
            "weight_decay": 0.0,
        }
    )


def trained_on(rows: int, names: tuple[str, ...]) -> FusionData:
    """A cohort with exactly so many training stays."""
    data = cohort(10 * (rows // 7) + rows % 7, names)
    assert len(data.rows("train")) == rows
    return data


def measure(
    encoder: str, batch: int, K: int, hidden: int, rounds: int, compiled: bool
) -> dict[str, Any]:
    """Processor seconds a step of every way, by round."""
    names = ("ehr" if encoder == "trained" else "ehr_vector", "cxr")
    data, one = trained_on(ROWS, names), trained_on(batch, names)
    steps = ROWS // batch
    courses = {
        "plain": make_plain(started([settings(batch, K, hidden, "fp32")], data)[0]),
        "fp32": started([settings(batch, K, hidden, "fp32")], data)[0],
        "bf16": started([settings(batch, K, hidden, "bf16")], data)[0],
    }
    losses = {name: train_epoch(course, data) for name, course in courses.items()}
    for name, value in losses["plain"].items():
        found = losses["fp32"][name]
        assert value is not None
        assert found is not None
        assert abs(found - value) <= 1e-3 * (1 + abs(value)), f"{name}: {found} against {value}"
    works: dict[str, Work] = {}
    for name, course in courses.items():
        if compiled and name != "plain":
            course.compiled = compile_forward(course.model, data.device)
        works[name] = lambda course=course: train_epoch(course, data)
        if name != "plain":
            with Recorder() as recorder:
                train_epoch(replace(course, compiled=None), one)
            assert recorder.products
            works[f"products {name}"] = lambda recorder=recorder: again(recorder, steps)
    times = in_turns(works, rounds)
    return {name: [cpu / steps for cpu, _ in pairs] for name, pairs in times.items()}


def again(recorder: Recorder, steps: int) -> None:
    """Multiply the products of one step as often as there are steps."""
    for _ in range(steps):
        recorder.replay()


def ratio(above: Sequence[float], below: Sequence[float]) -> str:
    """Median of the rounds' ratios, with their range."""
    ratios = [a / b for a, b in zip(above, below, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--small", action="store_true", help="seconds: shows that it runs")
    parser.add_argument("--compile", action="store_true", help="compile cm2's steps")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    keep_freed_memory()  # as every process of cm2 that trains
    hidden, cases = (16, CASES[2:3]) if options.small else (256, CASES)
    rounds = 1 if options.small else options.rounds
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    print(f"width {hidden}, fusion {2 * hidden}, M = 2, one thread, {rounds} rounds, {versions}\n")
    print(
        "| EHR | B | K | plain, ms | fp32, ms | bf16, ms | plain / fp32 | plain / bf16 | "
        "fp32 / its products | bf16 / its products |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    result: dict[str, Any] = {"versions": versions, "cases": []}
    for encoder in ("cached", "trained"):
        for batch, K in cases:
            with reproducible(False):
                seconds = measure(encoder, batch, K, hidden, rounds, options.compile)
            middle = [
                f"{1e3 * statistics.median(seconds[w]):.1f}" for w in ("plain", "fp32", "bf16")
            ]
            ratios = [ratio(seconds["plain"], seconds[way]) for way in ("fp32", "bf16")]
            ratios += [ratio(seconds[way], seconds[f"products {way}"]) for way in ("fp32", "bf16")]
            print("| " + " | ".join([encoder, f"{batch}", f"{K}", *middle, *ratios]) + " |")
            result["cases"].append({"ehr": encoder, "B": batch, "K": K, "seconds": seconds})
    load = load_average()
    print(f"\nload {load:.1f} on {os.cpu_count()} cores")
    if options.out:
        options.out.write_text(json.dumps({**result, "load": load}, indent=1))


if __name__ == "__main__":
    main()
