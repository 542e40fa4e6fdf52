"""Models of one shape with their tensors side by side, and the ordinary modules mapped over them.

The models stay whole: after stacking, their parameters and buffers are views into the stacked
tensors. So whatever is not worth mapping (an optimiser's fused step, a start of mixtures, a
checkpoint) is done by the code of a single run on each model, and nothing is copied to and fro.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from ..models.interface import FusionModel

T = TypeVar("T")
_PREFIX = "model."


class Stack:
    """Models that differ in nothing but the values of their tensors and their K.

    A parameter of K components is padded to the largest K by components without weight; each
    model keeps its own K, as a view of the first ones.

    Args:
        models: At least one.
    """

    def __init__(self, models: Sequence[FusionModel]) -> None:
        self.models = list(models)
        sizes = [sum(parameter.numel() for parameter in model.parameters()) for model in models]
        self.widest = self.models[sizes.index(max(sizes))]
        self._called = _Called(self.widest)
        self.parameters = {
            name: self._joined(name, [m.get_parameter(name) for m in self.models]).requires_grad_()
            for name, _ in self.widest.named_parameters()
        }
        kept = self.widest.state_dict().keys()
        self.buffers = {
            name: self._joined(name, [m.get_buffer(name) for m in self.models])
            for name, _ in self.widest.named_buffers()
            if name in kept
        }
        self._own = [list(model.named_parameters()) for model in self.models]
        for e in range(len(self.models)):
            self._share(e)

    def __len__(self) -> int:
        return len(self.models)

    def map(self, function: Callable[..., T], *args: object, in_dims: Sequence[Any]) -> T:
        """Call a function of one model for all models at once.

        Args:
            function: Takes a model and `args`; returns tensors in any nesting.
            args: Trees of tensors.
            in_dims: For each of `args`, 0 if its tensors have a first axis E, None if all models
                take the same.

        Returns:
            What the function returns, every tensor with a first axis E. Buffers that it changes
            in place are changed in the models.
        """

        def one(parameters: Tensors, buffers: Tensors, *args: object) -> T:
            tensors = {_PREFIX + name: t for name, t in (parameters | buffers).items()}
            result: T = functional_call(self._called, tensors, (function, *args))
            return result

        mapped = vmap(one, in_dims=(0, 0, *in_dims))
        result: T = mapped(self.parameters, self.buffers, *args)
        return result

    def set_gradients(self, gradients: Mapping[str, Tensor]) -> None:
        """Give every model its part of stacked gradients; others have none."""
        split = {name: gradient.unbind() for name, gradient in gradients.items()}
        for e, own in enumerate(self._own):
            for name, parameter in own:
                found = split.get(name)
                parameter.grad = None if found is None else _part(found[e], parameter.shape)

    def of_model(self, e: int, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """One model's part of tensors that are shaped as the stacked parameters."""
        return {
            name: _part(tensor[e], self.models[e].get_parameter(name).shape)
            for name, tensor in tensors.items()
        }

    def _joined(self, name: str, parts: Sequence[Tensor]) -> Tensor:
        with torch.no_grad():
            shape = self.widest.state_dict()[name].shape
            if all(part.shape == shape for part in parts):
                return torch.stack([part.detach() for part in parts])
            fill = next(v for end, v in self.widest.padding.items() if name.endswith(end))
            whole = torch.full((len(parts), *shape), fill, dtype=parts[0].dtype)
            whole = whole.to(parts[0].device)
            for row, part in zip(whole, parts, strict=True):
                _part(row, part.shape).copy_(part)
            return whole

    def _share(self, e: int) -> None:
        """Make the tensors of a model views into the stacked ones."""
        model = self.models[e]
        for name, parameter in self._own[e]:
            parameter.data = _part(self.parameters[name].detach()[e], parameter.shape)
        for name, stacked in self.buffers.items():
            owner, _, leaf = name.rpartition(".")
            model.get_submodule(owner)._buffers[leaf] = stacked[e]


Tensors = dict[str, Tensor]


class _Called(nn.Module):
    """Any method of a model as a forward pass, which is what torch.func can call."""

    def __init__(self, model: FusionModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, function: Callable[..., T], *args: object) -> T:
        return function(self.model, *args)


def _part(tensor: Tensor, shape: torch.Size) -> Tensor:
    """The first entries along every axis."""
    if tensor.shape == shape:
        return tensor
    return tensor[tuple(slice(n) for n in shape)]


__all__ = ["Stack"]
