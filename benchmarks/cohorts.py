"""Synthetic stays in memory for the benchmarks of training: random tensors that mean nothing."""

from __future__ import annotations

import numpy as np
import torch

from cm2.fuse.models.interface import ModalitySpec
from cm2.fuse.random import stay_keys
from cm2.fuse.rows import FusionData, assemble

SHAPES = {
    "ehr": ("series", 24, 76, 1.0),
    "ehr_vector": ("vector", 1, 256, 1.0),
    "cxr": ("vector", 1, 512, 0.25),
    "report": ("vector", 4, 312, 0.6),
}
"""View, steps or parts, width, and share of the stays that have it."""


def cohort(stays: int, names: tuple[str, ...], seed: int = 0) -> FusionData:
    """Stays split 70 / 10 / 20 with one binary target.

    Args:
        stays: Number of stays.
        names: Modalities, of `SHAPES`.
        seed: Seed of all numbers.
    """
    random = np.random.default_rng(seed)
    severity = random.standard_normal(stays).astype(np.float32)
    specs, values, masks, has = [], {}, {}, []
    for name in names:
        view, length, width, share = SHAPES[name]
        x = random.standard_normal((stays, length, width), dtype=np.float32)
        values[name] = x + 0.2 * severity[:, None, None]
        masks[name] = np.ones((stays, length), dtype=bool)
        specs.append(ModalitySpec(name, view, width))
        has.append(random.random(stays) < share)
    y = (severity + random.standard_normal(stays) > 1.0).astype(np.float32)
    part = np.arange(stays) % 10
    split = np.where(part < 7, "train", np.where(part < 8, "val", "test")).tolist()
    ids = list(range(stays))
    return assemble(
        specs,
        values,
        masks,
        np.stack(has, 1),
        torch.from_numpy(y).unsqueeze(1),
        ("event",),
        {"stay_id": ids, "subject_id": ids, "split": split},
        stay_keys(ids),
    )


__all__ = ["cohort"]
