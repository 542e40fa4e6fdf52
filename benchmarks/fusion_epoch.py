"""An epoch from the cache against an epoch that decodes and encodes the films again.

    python -m benchmarks.fusion_epoch [--rounds 3] [--steps 60] [--batch 32] [--small]
        [--set impute=conditional] [--out result.json]

20,000 random stays in memory: 24 x 76 series, a vector of 512 of the film for a quarter, four
parts of 312 of a report for 60 %; 70 % of them train. An epoch of cm2 is its steps, the renewal
of its statistics and the validation, measured on a part of the stays and scaled by their number;
`trained` trains the EHR's LSTM, `cached` reads a vector of 256 in its place. The end-to-end epoch
is COMPOSED of what the same run measures: the steps of the plain way (`benchmarks.plain`, EHR
trained, fp32) and for each training film decoding to RGB and resizing (Pillow) and ResNet34
forward, backward and Adam in batches of 16. `real films` encodes the films there are; `published`
also encodes a blank picture for every stay without one, as the published loop does. Reading and
parsing of the EHR's files, and encoding of the reports, are left out of the end-to-end epoch, and
so is its validation: its true cost is higher. It trains the film's encoder, which cm2's does not.
One thread, ways take turns, processor's time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchvision import models

from cm2.fuse.config import FuseConfig
from cm2.fuse.inference import forward
from cm2.fuse.rows import FusionData
from cm2.fuse.training.allocator import keep_freed_memory
from cm2.fuse.training.course import Course
from cm2.fuse.training.loop import reproducible, train_epoch

from .cohorts import cohort
from .extract_image import films, published
from .plain import make_plain
from .sweep_ensemble import started
from .timing import Work, in_turns, load_average

FILM_BATCH = 16


def part_of(data: FusionData, training: int) -> FusionData:
    """The same stays in memory, of which only so many train and a seventh as many validate."""
    split = np.array(data.columns["split"])
    for name, count in (("train", training), ("val", max(8, training // 7))):
        split[np.flatnonzero(split == name)[count:]] = "left"
    return replace(data, columns={**data.columns, "split": split.tolist()})


def epoch(course: Course, data: FusionData) -> None:
    """Do all that an epoch of `fuse` computes."""
    train_epoch(course, data)
    course.model.refresh(course.epoch, data.batches(data.rows("train")))
    forward(course.model, data, data.rows("val"))


def film_training() -> Callable[[], None]:
    """One step of ResNet34 on a batch of pictures."""
    torch.manual_seed(0)
    network = models.resnet34(weights=None, num_classes=1)
    optimizer = torch.optim.Adam(network.parameters())
    pictures = torch.rand(FILM_BATCH, 3, 224, 224)

    def step() -> None:
        optimizer.zero_grad()
        network(pictures).square().mean().backward()
        optimizer.step()

    return step


def main() -> None:
    """Measure, scale, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stays", type=int, default=20000)
    parser.add_argument("--steps", type=int, default=60, help="steps of the part")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=8, help="pictures that are decoded")
    parser.add_argument("--small", action="store_true", help="seconds: shows that it runs")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    keep_freed_memory()  # as every process of cm2 that trains
    if args.small:
        args.stays, args.steps, args.rounds, args.count = 500, 2, 1, 1
    hidden = 16 if args.small else 256
    base = {"hidden": hidden, "fusion_hidden": 2 * hidden, "batch_size": args.batch}
    base |= dict(word.split("=", 1) for word in args.set)
    fp32, bf16 = (FuseConfig.of({**base, "precision": name}) for name in ("fp32", "bf16"))
    works: dict[str, Work] = {}
    with reproducible(False):
        kept: dict[str, FusionData] = {}
        for encoder, name in (("trained", "ehr"), ("cached", "ehr_vector")):
            data = cohort(args.stays, (name, "cxr", "report"))
            kept[encoder] = part_of(data, args.steps * args.batch)
            for config in (fp32, bf16):
                works[f"{encoder} {config.precision}"] = _epoch(config, kept[encoder])
        training = len(data.rows("train"))
        there = int(data.whole.available[data.rows("train"), 1].sum())
        scale = training / len(kept["trained"].rows("train"))
        plain, part = make_plain(started([fp32], kept["trained"])[0]), kept["trained"]
        works["plain"] = lambda: train_epoch(plain, part)
        own = in_turns(works, args.rounds)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        contents = films(None, args.count)
        image = in_turns(
            {"decode": lambda: [published(c) for c in contents], "encode": film_training()},
            args.rounds,
        )
    epochs = {
        name: [scale * cpu for cpu, _ in pairs] for name, pairs in own.items() if name != "plain"
    }
    decode = statistics.median(cpu for cpu, _ in image["decode"]) / args.count
    encode = statistics.median(cpu for cpu, _ in image["encode"]) / FILM_BATCH
    steps = scale * statistics.median(cpu for cpu, _ in own["plain"])
    whole = {
        "real films": steps + there * (decode + encode),
        "published": steps + there * decode + training * encode,
    }
    print(f"{args.stays} stays, {training} train, {there} of them with a film; width {hidden}")
    print(f"measured on {args.steps} steps of {args.batch}, scaled by {scale:.2f}")
    print(f"a film: decode {1e3 * decode:.1f} ms, ResNet34 {1e3 * encode:.1f} ms")
    print(f"end to end, composed: {steps:.0f} s of plain steps + films = ", end="")
    print(", ".join(f"{seconds:.0f} s ({name})" for name, seconds in whole.items()))
    print(f"peak memory of all cached ways together {peak:.2f} GiB\n")
    print("| EHR, precision | epoch, s (range) | real films / epoch | published / epoch |")
    print("|---|---|---|---|")
    for name, seconds in epochs.items():
        middle = statistics.median(seconds)
        extent = f"{middle:.1f} ({min(seconds):.1f} to {max(seconds):.1f})"
        factors = " | ".join(f"{seconds / middle:.0f}" for seconds in whole.values())
        print(f"| {name} | {extent} | {factors} |")
    load = load_average()
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    print(f"\nload {load:.1f} on {os.cpu_count()} cores, 1 thread, {versions}")
    if args.out:
        result: dict[str, Any] = {"epochs": epochs, "end to end": whole, "peak": peak}
        args.out.write_text(json.dumps({**result, "load": load, "versions": versions}, indent=1))


def _epoch(config: FuseConfig, data: FusionData) -> Work:
    course = started([config], data)[0]
    return lambda: epoch(course, data)


if __name__ == "__main__":
    main()
