"""The streamed training step against a plain loop of decoded JPEG files, and against the bare step.

Three ways take the same number of films through the same network, forward, backward and Adam, in
turns: the published kind of loop (Pillow decodes to RGB, resizes, augments film by film), the step
of cm2 on stored pixels (augmented in a batch, fusion and loss behind it), and the network alone on
a tensor that is there already. Films are noise, enlarged to the size of MIMIC-CXR's.

    cm2 extract --data ROOT --cache C --modality cxr --level pixels
    python -m benchmarks.stream_loop C --network resnet34 --batch 16 --rounds 3
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision import transforms

from cm2.extract.encoders import networks
from cm2.extract.encoders.image import MEAN, STD
from cm2.fuse.config import FuseConfig
from cm2.fuse.data import load
from cm2.fuse.identity import identify
from cm2.fuse.inference import build
from cm2.fuse.models.interface import Hyper
from cm2.fuse.stream.batch import RawBatch
from cm2.fuse.stream.data import StreamData
from cm2.fuse.training.course import make_optimizer

FLOP_PER_FILM = 3 * 2 * 3.67e9
"""Of ResNet34 at 224 pixels: forward, and twice as much backward."""

MACHINES = {
    "RTX 3090": (71e12, 0.25, 1.0),
    "H100": (989e12, 0.15, 1.0),
    "8 H100": (8 * 989e12, 0.15, 0.9),
}
"""Dense bf16 peak, share of it that such a network is assumed to reach, share left to exchanges."""


def main() -> None:
    """Time the three ways in turns and print their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--task", default="ihm")
    parser.add_argument("--network", default="resnet34")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--width", type=int, default=2544)
    given = parser.parse_args()
    torch.set_num_threads(1)
    options = {"task": given.task, "mode": "stream", "trunk": (f"cxr={given.network}",)}
    options |= {"model": "single", "modalities": ("cxr",), "batch_size": given.batch}
    identity = identify(FuseConfig.of(options), given.cache)
    config = identity.config
    data = load(given.cache, config, identity.cohort)
    assert isinstance(data, StreamData)
    rows = np.resize(data.rows("train"), given.batch)
    side, crop = 8 * config.crop // 7, config.crop
    files = jpegs(given.batch, given.width)
    parts: dict[str, list[float]] = {}

    def timed(name: str, began: float) -> float:
        now = time.perf_counter()
        parts.setdefault(name, []).append(now - began)
        return now

    model = build(data.specs, config)
    model.start(data.batches(rows))
    optimizer = make_optimizer(model, config)
    bare, head, plain = plain_network(given.network)
    bare_adam, plain_adam = (
        torch.optim.Adam([*net.parameters(), *head.parameters()], fused=True)
        for net in (bare, plain)
    )
    y = torch.randint(0, 2, (given.batch, 1)).float()
    ready = torch.randn(given.batch, 3, crop, crop).contiguous(memory_format=torch.channels_last)

    def ours() -> None:
        clock = time.perf_counter()
        batch = data.batch(rows, model.noise(training=True), 0, 1)
        assert isinstance(batch, RawBatch)
        clock = timed("cm2 read", clock)
        optimizer.zero_grad(set_to_none=True)
        loss = model(batch, Hyper.of(config, 1)).losses["task"].mean()
        clock = timed("cm2 forward", clock)
        loss.backward()
        optimizer.step()
        timed("cm2 backward", clock)

    def step(net: torch.nn.Module, adam: torch.optim.Optimizer, images: torch.Tensor) -> None:
        adam.zero_grad(set_to_none=True)
        logits = head(net(images)[0])
        torch.nn.functional.binary_cross_entropy_with_logits(logits, y).backward()
        adam.step()

    published = transforms.Compose(
        [
            transforms.Resize(side),
            transforms.RandomHorizontalFlip(),
            transforms.RandomAffine(degrees=45, scale=(0.85, 1.15), translate=(0.15, 0.15)),
            transforms.CenterCrop(crop),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )

    def decoded() -> None:
        clock = time.perf_counter()
        images = [published(Image.open(io.BytesIO(file)).convert("RGB")) for file in files]
        clock = timed("plain read", clock)
        step(plain, plain_adam, torch.stack(images))
        timed("plain step", clock)

    ways = {"cm2": ours, "plain": decoded, "bare": lambda: step(bare, bare_adam, ready)}
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for round_ in range(given.rounds + 1):
        for name, way in ways.items():
            clock = time.process_time()
            way()
            if round_:  # the first one warms up
                spent[name].append(time.process_time() - clock)
    median = {name: statistics.median(values) for name, values in spent.items()}
    print(f"{given.network}, {given.batch} films cut to {crop}, JPEG {given.width} wide, 1 thread")
    print(f"load average {os.getloadavg()[0]:.1f}; CPU seconds, median of {given.rounds}")
    for name, value in median.items():
        print(json.dumps({"way": name, "films_per_second": round(given.batch / value, 2)}))
    print(json.dumps({n: round(statistics.median(v[1:]) * 1e3) for n, v in parts.items()}), "ms")
    print(f"share of the bare step: {median['bare'] / median['cm2']:.3f}")
    print(f"against the plain loop: {median['plain'] / median['cm2']:.2f} x")
    films, epochs, seeds = 4287, 100, 5
    for machine, (peak, reached, left) in MACHINES.items():
        rate = peak * reached * left / FLOP_PER_FILM
        hours = films * epochs * 4 / 3 / rate / 3600  # a third more to renew statistics
        words = f"{rate:.0f} films/s, {hours:.2f} h a run, {hours * seeds:.1f} h for {seeds} seeds"
        print(f"estimate, {machine}: {words}")


def plain_network(name: str) -> tuple[torch.nn.Module, torch.nn.Module, torch.nn.Module]:
    """Two copies of a network in training mode, and a linear head."""
    made = []
    for _ in range(2):
        body = networks.body(name, networks.build(name, 0), folded=False)
        network = networks.headless(body, tokens=networks.NETWORKS[name].tokens)
        made.append(network.train().to(memory_format=torch.channels_last))
    return made[0], torch.nn.Linear(networks.NETWORKS[name].width, 1), made[1]


def jpegs(count: int, width: int) -> list[bytes]:
    """Grey films of the size of MIMIC-CXR's."""
    random = np.random.default_rng(0)
    files = []
    for _ in range(count):
        small = Image.fromarray(random.integers(0, 256, (382, 318)).astype(np.uint8))
        out = io.BytesIO()
        small.resize((width, width * 3056 // 2544), Image.Resampling.BICUBIC).save(out, "JPEG")
        files.append(out.getvalue())
    return files


if __name__ == "__main__":
    main()
