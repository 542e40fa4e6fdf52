"""Whether the values of a tensor may choose what is computed."""

from __future__ import annotations

import torch
from torch import Tensor


def readable(tensor: Tensor) -> bool:
    """Whether code may look at the values of a tensor: not under `torch.func`, nor compiled."""
    return not (torch.compiler.is_compiling() or mapped(tensor))


def mapped(tensor: Tensor) -> bool:
    """Whether `torch.func` maps over a tensor, which it never does while one is compiled."""
    if torch.compiler.is_compiling():  # it could not follow what comes
        return False
    return torch._C._functorch.is_functorch_wrapped_tensor(tensor)


__all__ = ["mapped", "readable"]
