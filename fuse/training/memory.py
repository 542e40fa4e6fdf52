"""How much memory a member of an ensemble takes, and how many fit."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from torch import Tensor

from ..config import FuseConfig
from ..inference import build
from ..models.interface import Hyper
from ..precision import precision
from ..rows import PREDICT_ROWS, FusionData

COPIES = 5
"""Of the weights: themselves, gradients, two moments, the best epoch."""

SHARE = 0.5
"""Of the free memory that members may take together."""

LARGEST_ON_CPU = 32
"""More members gain nothing where no launch overhead is left to share (docs/performance.md)."""


def bytes_per_member(config: FuseConfig, data: FusionData) -> int:
    """Estimate the memory of one member: weights, what a step keeps for its gradient, a survey.

    Args:
        config: Its configuration.
        data: Its rows.
    """
    model = build(data.specs, config, len(data.targets)).to(data.device)
    weights = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    rows = data.rows("train")
    batch = data.batch(rows[: config.batch_size], model.noise(training=True), config.seed, 1)
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, precision(config, data.device):
        model(batch, Hyper.of(config, 1))
    survey = len(rows) * len(data.specs) * config.hidden * 4 if model.surveyed else 0
    held = sum(kept.values())  # once more while the gradient is computed
    judged = held * PREDICT_ROWS // max(len(batch.y), 1) // 4  # without gradient, far less is kept
    total: int = COPIES * weights + max(2 * held, survey + judged)
    return total


def largest_chunk(configs: Sequence[FuseConfig], data: FusionData, processes: int = 1) -> int:
    """How many members to train at a time.

    Args:
        configs: All members; the one with the largest K decides.
        data: Their rows.
        processes: How many train as many each, in the same memory.

    Returns:
        At least 1.
    """
    widest = max(configs, key=lambda config: config.K)
    fitting = int(SHARE * _free(data.device) / processes / bytes_per_member(widest, data))
    if data.device.type == "cpu":
        fitting = min(fitting, LARGEST_ON_CPU)
    return max(1, min(fitting, len(configs)))


def _free(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free: int = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return free


__all__ = ["bytes_per_member", "largest_chunk"]
