"""Whether torch.compile can compile here."""

from __future__ import annotations

import logging

import torch
from torch._dynamo.exc import TorchDynamoException

from ..errors import ConfigError


def require_compiler(device: torch.device) -> None:
    """Compile something small: otherwise a lack would show somewhere in the first step.

    Args:
        device: Where it is to compute.

    Raises:
        ConfigError: There is no compiler for the device.
    """
    # Where there is no CUDA it would say so on its own.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
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


__all__ = ["require_compiler"]
