"""Steps compiled by torch.compile: the same values to rounding, in fewer and larger kernels."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch._dynamo.exc import TorchDynamoException

from ...errors import ConfigError
from ..compiler import require_compiler
from ..methods import short
from ..models import layers
from ..models.interface import FusionBatch, FusionModel, FusionOutput, Hyper

Forward = Callable[[FusionBatch, Hyper], FusionOutput]


def compile_forward(model: FusionModel, device: torch.device) -> Forward:
    """Compile what a model computes of a batch in a step; the model itself stays as it is.

    It is compiled for the shapes of the first batch, so that every batch of another size (the
    last one of an epoch) is better given to the model.

    Args:
        model: The model.
        device: Where it computes.

    Raises:
        ConfigError: There is no compiler for the device; when the result is first called, the
            compiler cannot compile it.
    """
    name = short(model.config.model)
    require_compiler(device)
    _keep_onednn_whole()
    network = torch.compile(model.forward, dynamic=False)
    # What the compiler says of itself, forward and backward.
    warnings.filterwarnings("ignore", module=r"torch\._(dynamo|inductor)")
    warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not a leaf")

    def forward(batch: FusionBatch, hyper: Hyper) -> FusionOutput:
        try:
            output: FusionOutput = network(batch, hyper)
        except TorchDynamoException as error:
            raise ConfigError(
                f"torch.compile cannot compile {name} here. Leave out --compile: only speed is "
                "lost."
            ) from error
        return output

    return forward


@cache
def _keep_onednn_whole() -> None:
    """Leave oneDNN's LSTM out of graphs, once: there it would be taken apart into slower steps."""
    apart: Any = torch.compiler.disable
    layers.read_with_onednn = apart(layers.read_with_onednn)


__all__ = ["Forward", "compile_forward"]
