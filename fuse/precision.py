"""The precision of matrix products."""

from __future__ import annotations

import torch

from .config import FuseConfig


def precision(config: FuseConfig, device: torch.device) -> torch.autocast:
    """Compute matrix products in the precision of a configuration; float64 stays as it is."""
    return torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16")


__all__ = ["precision"]
