"""The film path: exact and scaled decoding against RGB decoding; the encoder against plain eval.

    python -m benchmarks.extract_image [--rounds 5] [--films FOLDER] [--small] [--out result.json]

Films: the JPEGs of a folder, else noise smoothed to film-like detail; both are brought to
2544 x 3056 pixels and about 1 MB, the size of MIMIC-CXR. `published` decodes to RGB, resizes and
cuts with Pillow, as the published pipelines do; `exact` and `scaled` are `film.prepare` without
and with `fast`. The exact path must give the very pixels of the grey picture resized; of the
scaled one the largest and mean difference in grey levels are printed. Encoder: ResNet34 from a
seed, `plain` is torchvision's network in eval mode, batches of 32; `fp32` and `bf16` are
`ImageEncoder`. One thread, variants take turns in one process.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import resource
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter
from torchvision import models

from cm2.extract.encoders.frame import FRAME
from cm2.extract.encoders.image import MEAN, STD, ImageEncoder
from cm2.extract.encoders.weights import Weights, seeded
from cm2.extract.modalities.film import prepare

from .timing import in_turns, load_average

HEIGHT, WIDTH = 3056, 2544


def films(folder: Path | None, count: int) -> list[bytes]:
    """JPEG bytes of grey films in the size of MIMIC-CXR."""
    paths = sorted(folder.glob("*.jp*g"))[:count] if folder else []
    made = []
    for i in range(count):
        if folder:
            picture = Image.open(paths[i % len(paths)]).convert("L")
        else:
            noise = np.random.default_rng(i).integers(0, 255, (HEIGHT // 8, WIDTH // 8))
            picture = Image.fromarray(noise.astype(np.uint8)).filter(ImageFilter.GaussianBlur(2))
        large = picture.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
        grain = np.random.default_rng(i).normal(scale=4, size=(HEIGHT, WIDTH))
        values = (np.asarray(large) + grain).clip(0, 255).astype(np.uint8)
        stream = io.BytesIO()
        Image.fromarray(values).save(stream, "JPEG", quality=85)
        made.append(stream.getvalue())
    return made


def published(content: bytes) -> np.ndarray:
    """Decode to RGB, resize, cut out the centre, as the published pipelines do."""
    picture = FRAME.resized(Image.open(io.BytesIO(content)).convert("RGB"))
    (height, width), (wide, high) = FRAME.crop, picture.size
    left, top = (wide - width) // 2, (high - height) // 2
    return np.asarray(picture.crop((left, top, left + width, top + height)))


def plain(network: torch.nn.Module, grey: np.ndarray) -> np.ndarray:
    """Features by the network as it comes, in batches of 32."""
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
    parts = []
    with torch.no_grad():
        for start in range(0, len(grey), 32):
            batch = torch.from_numpy(grey[start : start + 32]).unsqueeze(1).float() / 255
            parts.append(network((batch - mean) / std).numpy())
    return np.concatenate(parts)


def timed(variants: dict[str, Callable[[], object]], rounds: int) -> dict[str, dict[str, float]]:
    """Processor and wall seconds of every variant, in turns, after one warm-up."""
    found: dict[str, dict[str, float]] = {}
    for name, pairs in in_turns(variants, rounds).items():
        cpu, wall = (statistics.median(seconds) for seconds in zip(*pairs, strict=True))
        found[name] = {"cpu": cpu, "wall": wall}
    return found


def show(title: str, times: dict[str, dict[str, float]], count: int, base: str) -> None:
    """Rates, and ratios to the base by processor time."""
    print(title)
    for name, seconds in times.items():
        share = times[base]["cpu"] / seconds["cpu"]
        rate = count / seconds["cpu"]
        print(f"  {name:10s} {rate:8.1f} films/s of processor time   {share:5.2f} x {base}")


def main() -> None:
    """Check agreement, time in turns, print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--films", type=Path, help="folder of JPEGs to bring to full size")
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--small", action="store_true", help="seconds, to check that it runs")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.small:
        args.rounds, args.count = 1, 2
    torch.set_num_threads(1)
    contents = films(args.films, args.count)
    exact = [prepare(content) for content in contents]
    direct = [FRAME.cut(FRAME.resized(Image.open(io.BytesIO(c)).convert("L"))) for c in contents]
    assert all((a == b).all() for a, b in zip(exact, direct, strict=True)), "exact differs"
    scaled = [prepare(content, fast=True) for content in contents]
    apart = np.abs(np.stack(scaled).astype(int) - np.stack(exact))
    size = sum(map(len, contents)) / len(contents) / 1e6
    print(f"{args.count} films of {size:.2f} MB; scaled differs by at most {apart.max()} levels,")
    print(f"mean {apart.mean():.3f}, more than 2 levels in {(apart > 2).mean():.3%} of the pixels")
    decode = timed(
        {
            "published": lambda: [published(content) for content in contents],
            "exact": lambda: [prepare(content) for content in contents],
            "scaled": lambda: [prepare(content, fast=True) for content in contents],
        },
        args.rounds,
    )
    show("decode, resize, cut", decode, args.count, "published")
    grey = np.stack(exact * (1 if args.small else 4))
    weights = Weights("cxr", seed=0)
    with seeded(0):
        network = models.resnet34(weights=None)
    network.fc = torch.nn.Identity()
    network.eval()
    single, half = (
        ImageEncoder("resnet34", weights),
        ImageEncoder("resnet34", weights, precision="bf16"),
    )
    expected = plain(network, grey)
    largest = np.abs(expected).max()
    off = {
        name: float(np.abs(encoder.encode(grey) - expected).max() / largest)
        for name, encoder in (("fp32", single), ("bf16", half))
    }
    assert off["fp32"] < 1e-5, f"fp32 differs by {off['fp32']}"
    print(f"largest difference as a share of the largest feature: {off}")
    encode = timed(
        {
            "plain": lambda: plain(network, grey),
            "fp32": lambda: single.encode(grey),
            "bf16": lambda: half.encode(grey),
        },
        max(1, args.rounds // 2),
    )
    show("ResNet34 forward", encode, len(grey), "plain")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    load = load_average()
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    print(f"peak {peak:.0f} MB, load {load:.1f}, {os.cpu_count()} cores, 1 thread, {versions}")
    if args.out:
        result = {"decode": decode, "encode": encode, "difference": off, "load": load}
        args.out.write_text(json.dumps({**result, "versions": versions}, indent=1))


if __name__ == "__main__":
    main()
