"""The LSTM that a run has trained on series: one vector per stay in place of its steps."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import ConfigError
from .device import one_thread
from .weights import Weights, state_sha256

if TYPE_CHECKING:
    import torch
    from torch import nn

_BATCH = 256


class SeriesEncoder:
    """A trained two-layer LSTM with the standardisation that it was trained with.

    Args:
        weights: A run.
        space: Id of the space of the series to encode.

    Raises:
        ConfigError: The run has no such encoder, or it was trained on other series.
    """

    def __init__(self, weights: Weights, space: str) -> None:
        self.weights = weights
        self.trained = weights.trained
        self.trained.require("lstm")
        if self.trained.facts["space"] != space:
            raise ConfigError(
                f"{self.trained.path} was trained on series of the space "
                f"{self.trained.facts['space']}, these are {space}. Extract with the options "
                "(preset, steps, variables) of the run's own series."
            )
        self.width = int(self.trained.facts["width"])

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_network"}

    @property
    def sha256(self) -> str:
        """SHA-256 of the weights."""
        return state_sha256(self._network)

    @cached_property
    def _network(self) -> nn.Module:
        """torch's own LSTM with these weights; buffers carry the standardisation."""
        from torch import nn

        state = self.trained.tensors
        inputs = state["lstm.weight_ih_l0"].shape[1]
        network = nn.Module()
        network.lstm = nn.LSTM(inputs, self.width, num_layers=2, batch_first=True)
        for layer in range(2):
            for kind in ("weight_ih", "weight_hh"):
                name = f"{kind}_l{layer}"
                getattr(network.lstm, name).data.copy_(state[f"lstm.{name}"])
            getattr(network.lstm, f"bias_ih_l{layer}").data.copy_(state[f"lstm.bias_l{layer}"])
            getattr(network.lstm, f"bias_hh_l{layer}").data.zero_()
        for name in ("mean", "rate"):
            network.register_buffer(name, state[f"normaliser.{name}"].clone())
        return network.eval()

    def encode(self, values: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Encode series.

        Args:
            values: float32 [n, T, C], as the store of series holds them.
            mask: bool [n, T], real steps; at least one of each.

        Returns:
            float32 [n, D]: the last state of the second layer.
        """
        import torch

        vectors = np.zeros((len(values), self.width), np.float32)
        with one_thread(), torch.inference_mode():
            for start in range(0, len(values), _BATCH):
                part = slice(start, start + _BATCH)
                real = torch.from_numpy(mask[part])
                vectors[part] = self._last(torch.from_numpy(values[part]), real).numpy()
        return vectors

    def _last(self, x: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        import torch
        from torch.nn.utils.rnn import pack_padded_sequence

        network: Any = self._network
        there = real.unsqueeze(-1)
        known = {name: i for i, name in enumerate(self.trained.facts["columns"])}
        for name, place in known.items():
            mark = known.get(f"known:{name}")
            if mark is not None:
                told = torch.ones(x.shape[-1], dtype=torch.bool)
                told[place] = False
                there = there & (told | (x[..., mark] != 0).unsqueeze(-1))
        x = torch.where(there, (x - network.mean) * network.rate, 0.0)
        # the steps that count, moved to the front: the others leave the state as it is
        order = torch.argsort((~real).to(torch.int8), dim=1, stable=True)
        front = x.gather(1, order.unsqueeze(-1).expand_as(x))
        packed = pack_padded_sequence(front, real.sum(1), batch_first=True, enforce_sorted=False)
        _, (state, _) = network.lstm(packed)
        last: torch.Tensor = state[-1]
        return last


__all__ = ["SeriesEncoder"]
