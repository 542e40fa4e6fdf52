"""Small synthetic batches on which methods are checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from .models.interface import FusionBatch, FusionModel, ModalitySpec, pattern_ids

SPECS = (
    ModalitySpec("ehr", "series", 4),
    ModalitySpec("cxr", "vector", 6, null=torch.linspace(-1, 1, 6).unsqueeze(0)),
    ModalitySpec("report", "vector", 5, null=torch.linspace(-1, 1, 20).reshape(4, 5)),
)
"""A series, a vector and a vector of parts."""

LENGTHS = {"ehr": 5, "cxr": 1, "report": 3}


def make_batch(
    n: int, specs: Sequence[ModalitySpec] = SPECS, seed: int = 0, targets: int = 1
) -> FusionBatch:
    """Draw stays whose severity shows in every modality; about 60 % of them are there.

    Args:
        n: Number of stays.
        specs: Some of `SPECS`.
        seed: Seed.
        targets: Number of targets; each further one needs a larger severity.
    """
    random, M = np.random.default_rng(seed), len(specs)
    severity = random.normal(size=n)
    x, mask = {}, {}
    for spec in specs:
        shape = (n, LENGTHS[spec.name], spec.width)
        values = severity[:, None, None] + random.normal(size=shape)
        x[spec.name] = torch.from_numpy(values).float()
        mask[spec.name] = torch.ones(shape[:2], dtype=torch.bool)
    available = torch.from_numpy(random.random((n, M)) < 0.6)
    available[torch.arange(n), torch.arange(n) % M] = True
    y = torch.from_numpy((severity[:, None] > 0.5 * np.arange(targets)).astype(np.float32))
    return FusionBatch(x, mask, available, pattern_ids(available), y)


def noisy(batch: FusionBatch, model: FusionModel, training: bool, seed: int = 0) -> FusionBatch:
    """Add the random numbers that a model asks for."""
    random, n = np.random.default_rng(seed), len(batch.y)
    shapes = model.noise(training)
    noise = {k: torch.from_numpy(random.random((n, *shape))) for k, shape in shapes.items()}
    return dataclasses.replace(batch, noise=noise)


def take(batch: FusionBatch, index: Tensor) -> FusionBatch:
    """Take rows of a batch, in any order."""
    return FusionBatch(
        {k: v[index] for k, v in batch.x.items()},
        {k: v[index] for k, v in batch.mask.items()},
        batch.available[index],
        batch.pattern_id[index],
        batch.y[index],
        {k: v[index] for k, v in batch.noise.items()},
        batch.epoch,
        {k: v[index] for k, v in batch.time.items()},
    )


def with_x(batch: FusionBatch, name: str, change: Callable[[Tensor], Tensor]) -> FusionBatch:
    """Replace the values of one modality by a function of them."""
    return dataclasses.replace(batch, x={**batch.x, name: change(batch.x[name])})


__all__ = ["LENGTHS", "SPECS", "make_batch", "noisy", "take", "with_x"]
