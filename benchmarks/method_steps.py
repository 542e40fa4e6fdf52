"""One training step of every method beside its own matrix products, replayed back to back.

A step is forward, backward and optimiser on one batch of 24-hour grids of a series, a film's vector
and a report of four parts. The replay multiplies matrices of the same shapes, in the same order,
precision and number of threads, and does nothing else: what a step takes beyond it is care or the
want of it. The LSTM's time steps are products like any other.

    python -m benchmarks.method_steps --methods drfuse,lsmt --rounds 5
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.timing import in_turns
from cm2.fuse.config import FuseConfig
from cm2.fuse.inference import build
from cm2.fuse.methods import trained_by_steps
from cm2.fuse.models import layers
from cm2.fuse.models.interface import FusionBatch, FusionModel, Hyper, ModalitySpec, pattern_ids
from cm2.fuse.presets import presets
from cm2.fuse.training.course import make_optimizer

SPECS = (
    ModalitySpec("ehr", "series", 76),
    ModalitySpec("cxr", "vector", 512, null=torch.zeros(1, 512)),
    ModalitySpec("report", "vector", 312, null=torch.zeros(4, 312)),
)
LENGTHS = {"ehr": 24, "cxr": 1, "report": 4}
PRODUCTS = {torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.bmm, torch.ops.aten.baddbmm}


class Recorder(TorchDispatchMode):
    """Keep the shapes of all matrix products, and count all other operations.

    While it records, long series are read step by step: oneDNN does not show its products.
    """

    def __init__(self) -> None:
        super().__init__()
        self.products: list[tuple[Any, list[Tensor]]] = []
        self.operations = 0
        self._long = layers.LONG

    def __enter__(self) -> Self:
        layers.LONG = sys.maxsize
        super().__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        layers.LONG = self._long
        super().__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Record one operation and let it be."""
        self.operations += 1
        if func.overloadpacket in PRODUCTS:
            # Operands are made anew with the same strides: a transposed one stays transposed.
            self.products.append((func, [_like(part) for part in args]))
        return func(*args, **(kwargs or {}))

    def replay(self) -> None:
        """Multiply again."""
        for func, args in self.products:
            func(*args)

    def flops(self) -> float:
        """Multiplications and additions of the products."""
        pairs = (
            [part for part in args if isinstance(part, Tensor)][-2:] for _, args in self.products
        )
        return float(sum(2 * left.numel() * right.shape[-1] for left, right in pairs))


def _like(part: Any) -> Any:
    if not isinstance(part, Tensor):
        return part
    return torch.empty_strided(part.shape, part.stride(), dtype=part.dtype).fill_(0.01)


def make_batch(n: int, specs: tuple[ModalitySpec, ...], model: FusionModel) -> FusionBatch:
    """Stays of which a third lacks the film and a third the report."""
    random = np.random.default_rng(0)
    x = {
        s.name: torch.from_numpy(random.normal(size=(n, LENGTHS[s.name], s.width))).float()
        for s in specs
    }
    available = torch.ones(n, len(specs), dtype=torch.bool)
    for m in range(1, len(specs)):
        available[m - 1 :: 3, m] = False
    return FusionBatch(
        x,
        {name: torch.ones(values.shape[:2], dtype=torch.bool) for name, values in x.items()},
        available,
        pattern_ids(available),
        torch.from_numpy(random.integers(0, 2, (n, 1))).float(),
        {
            name: torch.from_numpy(random.random((n, *shape)))
            for name, shape in model.noise(training=True).items()
        },
        torch.tensor(1.0),
    )


def subjects(names: str) -> Iterator[tuple[str, str]]:
    """Methods and their presets: NAME takes all of a method, NAME:PRESET one."""
    for text in names.split(","):
        name, _, chosen = text.partition(":")
        # `paper` changes the recipe, not the network, of every method but CM2
        offered = [preset for preset in presets(name) if preset != "paper" or name == "cm2"]
        yield from ((name, preset) for preset in offered if chosen in ("", preset))


def profile(name: str, preset: str, stays: int, rounds: int) -> str:
    """One row of the table."""
    specs = SPECS[:1] if name == "single" else SPECS
    config = FuseConfig.of({"model": name, "preset": preset})
    model = build(specs, config)
    batch = make_batch(stays, specs, model)
    model.start([batch])
    model.refresh(1, [batch])
    optimizer, hyper = make_optimizer(model, config), Hyper.of(config, 1)

    def gradients() -> None:
        for objective in model.objectives(hyper):
            optimizer.zero_grad(set_to_none=True)
            objective.total(model(batch, hyper).losses).backward()  # type: ignore[no-untyped-call]

    def step() -> None:
        for objective in model.objectives(hyper):
            optimizer.zero_grad(set_to_none=True)
            objective.total(model(batch, hyper).losses).backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    with Recorder() as recorder:
        gradients()
    works = {"step": step, "passes": gradients, "products": recorder.replay}
    times = in_turns(works, rounds)
    best = {work: min(cpu for cpu, _ in seconds) for work, seconds in times.items()}
    parameters = sum(parameter.numel() for parameter in model.parameters())
    title = name if preset == "corrected" else f"{name}, {preset}"
    return (
        f"| {title} | {parameters / 1e6:.2f} M | {recorder.flops() / 1e9:.2f} | "
        f"{len(recorder.products)} of {recorder.operations} | {1e3 * best['step']:.1f} | "
        f"{1e3 * best['products']:.1f} | {best['passes'] / best['products']:.2f} | "
        f"{best['step'] / best['products']:.2f} |"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", default=",".join(trained_by_steps()))
    parser.add_argument("--stays", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{options.stays} stays, one thread, torch {torch.__version__}\n")
    print(
        "| method | parameters | GFLOP in products | products among operations | step, ms | "
        "products, ms | passes / products | step / products |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name, preset in subjects(options.methods):
        print(profile(name, preset, options.stays, options.rounds), flush=True)


if __name__ == "__main__":
    main()
