"""The plain way to train the same model: `nn.LSTM` and the optimiser with its defaults."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cm2.fuse.models.layers import LSTM
from cm2.fuse.training.course import Course, parameter_groups


class TorchLSTM(nn.Module):
    """`nn.LSTM`, layer by layer, from the weights of cm2's.

    It knows no masks: steps that do not count must not matter to what is compared. The second
    bias stays 0, so that both learn alike.

    Args:
        own: The layers to stand in for.
    """

    def __init__(self, own: LSTM) -> None:
        super().__init__()
        self.parts = nn.ModuleList()
        for layer in range(own.layers):
            into = getattr(own, f"weight_ih_l{layer}")
            part = nn.LSTM(into.shape[1], into.shape[0] // 4, batch_first=True)
            with torch.no_grad():
                part.weight_ih_l0.copy_(into)
                part.weight_hh_l0.copy_(getattr(own, f"weight_hh_l{layer}"))
                part.bias_ih_l0.copy_(getattr(own, f"bias_l{layer}"))
                part.bias_hh_l0.zero_().requires_grad_(False)
            self.parts.append(part)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Read a series ``(B, L, width)`` by all layers; see `LSTM.forward`."""
        for layer in range(len(self.parts)):
            x = self.read(layer, x, mask)
        return x, x[:, -1]

    def read(self, layer: int, x: Tensor, mask: Tensor) -> Tensor:
        """Read a series by one layer; see `LSTM.read`."""
        states: Tensor = self.parts[layer](x)[0]
        return states


def make_plain(course: Course) -> Course:
    """Replace the LSTMs and the fused optimiser of a run that has taken no step."""
    for module in list(course.model.modules()):
        for name, part in list(module.named_children()):
            if isinstance(part, LSTM):
                setattr(module, name, TorchLSTM(part))
    config = course.config
    groups = [  # without decay, which Adam's default is
        {**group, "weight_decay": 0.0} for group in parameter_groups(course.model, config)
    ]
    course.state.optimizer = torch.optim.Adam(groups, lr=config.lr, betas=(0.9, config.beta2))
    return course
