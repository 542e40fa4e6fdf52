"""An epoch from the cache against an epoch that reads the films, and the reports, again.

    python -m benchmarks.fusion_epoch [--rounds 3] [--steps 60] [--batch 32] [--small]
        [--set impute=conditional] [--compile] [--out result.json]

20,000 random stays in memory: 24 x 76 series, a vector of 512 of the film for a quarter, four
parts of 312 of a report for 60 %; 70 % of them train. An epoch of cm2 is its steps, the renewal
of its statistics and the validation, measured on a part of the stays and scaled by their number;
`trained` trains the EHR's LSTM, `cached` reads a vector of 256 in its place. Series and film are
fused, and then the report too.

The end-to-end epoch is COMPOSED of what the same run measures: the steps of the plain way
(`benchmarks.plain`, EHR trained, fp32), and for each training film decoding to RGB and resizing
(Pillow) and ResNet34 forward, backward and Adam in batches of 16. `films` encodes the films there
are; `published` also encodes a blank picture for every stay without one, as the published loop
does. With the report, `and reports` adds what it takes to fine-tune its encoder: TinyBERT's shape,
forward, backward and Adam over 16 reports of four sections, each of the mean length assumed of real
ones, so that nothing is padded (the published loop pads each to 512). Reading and parsing of the
EHR's files and validation are left out of the end-to-end epoch: its true cost is higher. It trains
the encoders, which cm2's does not. One thread, all ways take turns, processor's time; ratios are
those of a round, so that a clock that changes disturbs both sides.
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
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchvision import models
from transformers import BertConfig

from cm2.extract.encoders.text import SHAPES
from cm2.extract.encoders.text_network import build
from cm2.fuse.config import FuseConfig
from cm2.fuse.inference import forward
from cm2.fuse.rows import FusionData
from cm2.fuse.training.allocator import keep_freed_memory
from cm2.fuse.training.compiled import compile_forward
from cm2.fuse.training.course import Course
from cm2.fuse.training.loop import reproducible, train_epoch

from .cohorts import cohort
from .extract_image import films, published
from .plain import make_plain
from .sweep_ensemble import started
from .timing import Work, in_turns, load_average

FILM_BATCH = REPORT_BATCH = 16
WARM_STEPS = 4
"""Of an encoder: until then its memory grows, and a step takes up to twice as long."""
SECTIONS, SECTION_TOKENS = 4, 43
CASES = (("cxr",), ("cxr", "report"))
"""What is fused with the series."""


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


def film_training() -> Work:
    """One step of ResNet34 on a batch of pictures."""
    torch.manual_seed(0)
    network = models.resnet34(weights=None, num_classes=1)
    pictures = torch.rand(FILM_BATCH, 3, 224, 224)
    return _training(network, lambda: network(pictures))


def report_training(**shape: int) -> Work:
    """One step of the text encoder on the sections of a batch of reports."""
    config = BertConfig(**shape)
    network = build(config).train()
    draws = torch.Generator().manual_seed(0)
    size = (SECTIONS * REPORT_BATCH, SECTION_TOKENS)
    tokens = torch.randint(config.vocab_size, size, generator=draws)
    return _training(network, lambda: network(tokens).last_hidden_state[:, 0])


def _training(network: torch.nn.Module, output: Callable[[], torch.Tensor]) -> Work:
    optimizer = torch.optim.Adam(network.parameters())

    def step() -> None:
        optimizer.zero_grad()
        output().square().mean().backward()
        optimizer.step()

    for _ in range(WARM_STEPS):
        step()
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
    parser.add_argument("--compile", action="store_true", help="compile cm2's steps")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    keep_freed_memory()  # as every process of cm2 that trains
    if args.small:
        args.stays, args.steps, args.rounds, args.count = 500, 2, 1, 1
    hidden = 16 if args.small else 256
    base = {"hidden": hidden, "fusion_hidden": 2 * hidden, "batch_size": args.batch}
    base |= dict(word.split("=", 1) for word in args.set)
    configs = [FuseConfig.of({**base, "precision": name}) for name in ("fp32", "bf16")]
    contents = films(None, args.count)
    works: dict[str, Work] = {
        "decode": lambda: [published(content) for content in contents],
        "film": film_training(),
        "report": report_training(**SHAPES["bert2x128" if args.small else "tinybert"]),
    }
    with reproducible(False):
        for others in CASES:
            for encoder, name in (("trained", "ehr"), ("cached", "ehr_vector")):
                data = part_of(cohort(args.stays, (name, *others)), args.steps * args.batch)
                for config in configs:
                    course = started([config], data)[0]
                    if args.compile:
                        course.compiled = compile_forward(course.model, data.device)
                    label = _label(others, encoder, config.precision)
                    works[label] = partial(epoch, course, data)
                if encoder == "trained":
                    plain = make_plain(started([configs[0]], data)[0])
                    works[_label(others, "plain")] = partial(train_epoch, plain, data)
        times = in_turns(works, args.rounds)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    whole = cohort(args.stays, ("ehr", "cxr", "report"))
    rows = whole.rows("train")
    stays = len(rows)
    with_film, with_report = (int(n) for n in whole.whole.available[rows, 1:].sum(0))
    seconds = {name: np.array([cpu for cpu, _ in pairs]) for name, pairs in times.items()}
    scale = stays / (args.steps * args.batch)
    decode = seconds["decode"] / args.count
    film, report = seconds["film"] / FILM_BATCH, seconds["report"] / REPORT_BATCH
    print(
        f"{args.stays} stays, {stays} train, {with_film} with a film, {with_report} with a report"
    )
    print(f"width {hidden}; {args.steps} steps of {args.batch}, scaled by {scale:.2f}")
    print(f"a film: decode {_spread(1e3 * decode)} ms, ResNet34 {_spread(1e3 * film)} ms")
    print(f"a report: text encoder {_spread(1e3 * report)} ms")
    print(f"peak memory of all ways together {peak:.2f} GiB")
    result: dict[str, Any] = {"seconds": {n: s.tolist() for n, s in seconds.items()}, "peak": peak}
    for others in CASES:
        steps = scale * seconds[_label(others, "plain")]
        end_to_end = {
            "films": steps + with_film * (decode + film),
            "published": steps + with_film * decode + stays * film,
        }
        if "report" in others:
            end_to_end["films and reports"] = end_to_end["films"] + with_report * report
        print(f"\nseries, {', '.join(others)}: end to end, composed: ", end="")
        print("; ".join(f"{name} {_spread(s)} s" for name, s in end_to_end.items()), "\n")
        print("| EHR, precision | epoch, s |" + "".join(f" {n} / epoch |" for n in end_to_end))
        print("|---|---|" + "---|" * len(end_to_end))
        for encoder in ("trained", "cached"):
            for config in configs:
                own = scale * seconds[_label(others, encoder, config.precision)]
                factors = "".join(f" {_spread(s / own)} |" for s in end_to_end.values())
                print(f"| {encoder} {config.precision} | {_spread(own)} |{factors}")
    load = load_average()
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    print(f"\nload {load:.1f} on {os.cpu_count()} cores, 1 thread, {versions}")
    if args.out:
        args.out.write_text(json.dumps({**result, "load": load, "versions": versions}, indent=1))


def _label(others: tuple[str, ...], *way: str) -> str:
    return " ".join((*others, *way))


def _spread(values: np.ndarray) -> str:
    """Median and range over the rounds."""
    middle, low, high = statistics.median(values), values.min(), values.max()
    digits = 0 if middle >= 100 else 1
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


if __name__ == "__main__":
    main()
