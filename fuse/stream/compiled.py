"""Encoders compiled by torch.compile: the same values to rounding, in fewer and larger kernels."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch._dynamo.exc import TorchDynamoException

from ...errors import ConfigError
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
    _require_compiler(device)
    for trunk in cast(Streamed, model).trunks:
        network: Any = trunk.network
        network.compile(dynamic=True)  # every batch has another number of films


def _require_compiler(device: torch.device) -> None:
    """Compile something small: otherwise a lack would show somewhere in the first step."""
    try:
        torch.compile(lambda x: 2 * x + 1)(torch.ones(2, device=device))
    except TorchDynamoException as error:
        needed = "a C++ compiler (g++, or one that CXX names)"
        if device.type == "cuda":
            needed = "Triton, and a C compiler (gcc, or one that CC names)"
        raise ConfigError(
            f"--compile needs {needed} that works here, and torch could not use any. Install it, "
            "or leave out --compile: only speed is lost."
        ) from error


__all__ = ["compile_trunks"]
