"""Image encoders by name: grey films in, one pooled feature vector each out."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ...cache.atomic import sha256_file
from ...errors import ConfigError, UnsupportedError
from .device import one_thread, resolve_device
from .weights import Weights, assign, read_state, seeded, state_sha256

if TYPE_CHECKING:
    import torch
    from torch import nn

WIDTHS: Mapping[str, int] = {"resnet34": 512}
"""Offered encoders and the width of their features."""

# Of the images that the published weights of these encoders were trained on (ImageNet).
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class ImageEncoder:
    """A torchvision network without its classifier, in evaluation mode.

    Args:
        name: One of `WIDTHS`.
        weights: Where its weights come from.
        device: auto, cpu, cuda or cuda:N.
        batch: Images per forward pass.

    Raises:
        UnsupportedError: No encoder of that name.
    """

    def __init__(self, name: str, weights: Weights, device: str = "cpu", batch: int = 32) -> None:
        if name not in WIDTHS:
            raise UnsupportedError(
                f"no image encoder is called {name!r}; offered: {', '.join(WIDTHS)}"
            )
        self.name, self.weights, self._device, self._batch = name, weights, device, batch

    @property
    def width(self) -> int:
        """Length of a feature vector."""
        return WIDTHS[self.name]

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the weights: of the file, or of the tensors that the seed gave."""
        if self.weights.path is None:
            return state_sha256(self._network)
        return sha256_file(self.weights.file())

    @cached_property
    def _network(self) -> nn.Module:
        """The network on the CPU."""
        from torch import nn
        from torchvision import models

        with seeded(self.weights.seed or 0):
            network: nn.Module = getattr(models, self.name)(weights=None)
        network.fc = nn.Identity()
        if self.weights.path is not None:
            file = self.weights.file()
            assign(network, read_state(file), ("fc.",), f"{file} as {self.name}")
        return network.eval()

    @cached_property
    def _ready(self) -> tuple[nn.Module, torch.device]:
        import torch

        device = resolve_device(self._device)
        network = self._network.to(device)
        return network.to(memory_format=torch.channels_last), device

    def encode(self, films: np.ndarray) -> np.ndarray:
        """Encode grey images.

        Args:
            films: uint8, shape [n, H, W].

        Returns:
            float32, shape [n, width]; non-finite values are left for the caller to refuse.
        """
        import torch

        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
        features = []
        for start in range(0, len(films), self._batch):
            grey = torch.from_numpy(films[start : start + self._batch]).unsqueeze(1)  # [b, 1, H, W]
            features.append(self._forward((grey.float() / 255 - mean) / std))  # [b, 3, H, W]
        return np.concatenate(features) if features else np.zeros((0, self.width), np.float32)

    def blank(self, height: int, width: int) -> np.ndarray:
        """The feature vector of no image: zeros after normalisation, as the paper feeds them."""
        import torch

        features: np.ndarray = self._forward(torch.zeros(1, 3, height, width))[0]
        return features

    def _forward(self, batch: torch.Tensor) -> np.ndarray:
        import torch

        network, device = self._ready
        with one_thread(), torch.inference_mode():
            batch = batch.to(device, memory_format=torch.channels_last)
            out: torch.Tensor = network(batch)
        if out.shape[1:] != (self.width,):
            raise ConfigError(f"{self.name}: expected {self.width} features, found {out.shape[1:]}")
        features: np.ndarray = out.float().cpu().numpy()
        return features


__all__ = ["MEAN", "STD", "WIDTHS", "ImageEncoder"]
