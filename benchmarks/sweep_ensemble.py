"""What a configuration costs alone and in ensembles of growing size.

    python -m benchmarks.sweep_ensemble [--hidden 64] [--members 1,4,16,64]
        [--encoder cached|trained] [--device auto] [--rounds 3] [--small] [--out result.json]

A: the steps of `fuse`'s own loop, one configuration. B: the same number of steps of the same
configurations side by side, as `train_ensemble` takes them, optimisers included; members differ
in learning rate, dropout, lambda and seed, so each has its own order and its own noise. A and B
alternate in one process with one thread; times are the processor's on a CPU, the wall's on a GPU.
`x` is B's gain per configuration. The share of the peak
sets the products of the layers (forward and backward, as `torch.utils.flop_counter` counts those
of A) against the rate of one large product measured here in the same run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from cm2.fuse.config import FuseConfig
from cm2.fuse.rows import FusionData
from cm2.fuse.training.allocator import keep_freed_memory
from cm2.fuse.training.course import Course
from cm2.fuse.training.device import choose
from cm2.fuse.training.loop import reproducible, train_epoch
from cm2.fuse.training.mapped import Mapped
from cm2.fuse.training.memory import bytes_per_member
from cm2.fuse.training.state import InMemory

from .cohorts import cohort
from .timing import Work, in_turns, load_average

BATCH = 32


def members(hidden: int, count: int) -> list[FuseConfig]:
    """Configurations of one shape that differ in all that members usually do."""
    base = {"hidden": hidden, "fusion_hidden": 2 * hidden, "batch_size": BATCH}
    return [
        FuseConfig.of(
            {
                **base,
                "lr": 1e-4 * (1 + e % 4),
                "dropout": 0.1 * (e % 5),
                "lambda_cop": 1e-3 * (1 + e % 3),
                "seed": e,
            }
        )
        for e in range(count)
    ]


def started(configs: list[FuseConfig], data: FusionData) -> list[Course]:
    """Courses with their first epoch behind them: the mixtures have started."""
    courses = [Course.open(config, data, InMemory()) for config in configs]
    for course in courses:
        course.model.refresh(1, data.batches(data.rows("train")))
        course.state.history.append({"epoch": 1, "val_loss": 1.0, "val_auroc": 0.5})
    return courses


def peak(device: torch.device) -> float:
    """Operations per second of one large product in float32."""
    n = 1024 if device.type == "cpu" else 8192
    a = torch.randn(n, n, device=device)

    def product() -> None:
        a @ a
        if device.type == "cuda":
            torch.cuda.synchronize()

    times = in_turns({"product": product}, 5)["product"]
    return 2 * n**3 / statistics.median(pair[clock(device)] for pair in times)


def clock(device: torch.device) -> int:
    """Which time of a pair counts: the processor's, which others disturb less, or the wall's."""
    return 0 if device.type == "cpu" else 1


def main() -> None:
    """Time in alternation, print the gain per configuration."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--members", default="1,4,16,64")
    parser.add_argument("--encoder", choices=("cached", "trained"), default="cached")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="seconds: shows that it runs")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    keep_freed_memory()  # as every process of cm2 that trains
    counts = [1, 2] if options.small else [int(n) for n in options.members.split(",")]
    hidden, steps = (16, 2) if options.small else (options.hidden, 8)
    device = choose(options.device)
    ehr = "ehr" if options.encoder == "trained" else "ehr_vector"
    data = cohort(steps * BATCH * 10 // 7, (ehr, "cxr")).to(device)
    rows = len(data.rows("train"))
    result: dict[str, object] = {}
    with reproducible(False):
        rate = peak(device)
        single = started(members(hidden, 1), data)[0]
        with FlopCounterMode(display=False) as counted:
            train_epoch(single, data)
        flops = counted.get_total_flops()
        taken = -(-rows // BATCH)
        works: dict[str, Work] = {"alone": lambda: train_epoch(single, data)}
        for count in counts:
            mapped = Mapped(started(members(hidden, count), data), data, _stop)
            works[f"E={count}"] = mapped.train_epoch
        times = in_turns(works, 1 if options.small else options.rounds)
    print(f"H={hidden}, fusion {2 * hidden}, EHR {options.encoder}, B={BATCH}, {device}")
    alone = [pair[clock(device)] for pair in times["alone"]]
    for name, rounds in times.items():
        count = 1 if name == "alone" else int(name[2:])
        walls = [pair[clock(device)] / count for pair in rounds]
        gains = [a / b for a, b in zip(alone, walls, strict=True)]
        share = flops / statistics.median(walls) / rate
        line = (
            f"  {name:6s} {1e3 * statistics.median(walls) / taken:7.2f} ms per step and "
            f"configuration   x {statistics.median(gains):.2f} ({min(gains):.2f} to "
            f"{max(gains):.2f})   {100 * share:.0f} % of the peak"
        )
        print(line)
        result[name] = {"walls": walls, "gains": gains, "share": share}
    memory = bytes_per_member(members(hidden, 1)[0], data) / 2**20
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"  a member is estimated at {memory:.1f} MiB; peak of the process {highest:.2f} GiB")
    load = load_average()
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    print(f"load {load:.1f}, {os.cpu_count()} cores, 1 thread, peak {rate / 1e9:.0f} GFLOP/s")
    if options.out:
        result |= {"load": load, "peak": rate, "versions": versions, "member_mib": memory}
        options.out.write_text(json.dumps(result, indent=1))


def _stop(course: Course, error: Exception) -> None:
    raise error


if __name__ == "__main__":
    main()
