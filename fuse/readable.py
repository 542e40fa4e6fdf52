"""Whether the values of a tensor may choose what is computed."""

from __future__ import annotations

import torch
from torch import Tensor


def readable(tensor: Tensor) -> bool:
    """Whether code may look at the values of a tensor; under `torch.func` it may not."""
    return not torch._C._functorch.is_functorch_wrapped_tensor(tensor)
