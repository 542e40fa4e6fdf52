"""Encoders compiled by torch.compile: the same values to rounding, in fewer and larger kernels."""

from __future__ import annotations

from typing import Any, cast

import torch

from ..compiler import require_compiler
from ..models.interface import FusionModel
from .model import Streamed


def compile_trunks(model: FusionModel, device: torch.device) -> None:
    """Compile the encoders of a streamed model in place; its tensors keep their names.

    Args:
        model: The model.
        device: Where it computes.

    Raises:
        ConfigError: There is no compiler for the device.
    """
    require_compiler(device)
    for trunk in cast(Streamed, model).trunks:
        network: Any = trunk.network
        network.compile(dynamic=True)  # every batch has another number of films


__all__ = ["compile_trunks"]
