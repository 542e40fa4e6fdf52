"""Image encoders by name or folder: grey films in, features out, pooled or place by place."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import ConfigError, UnsupportedError
from . import networks, vision
from .device import one_thread, resolve_device
from .frame import SIDE, Frame
from .networks import NETWORKS
from .weights import Weights, assign, state_sha256

if TYPE_CHECKING:
    import torch
    from torch import nn

WIDTHS: Mapping[str, int] = {name: known.width for name, known in NETWORKS.items()}
"""Offered encoders and the width of their features."""

# Of the images that the published weights of these encoders were trained on (ImageNet).
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

_CPU_BATCH, _GPU_BATCH = 8, 64  # a larger one leaves the caches of a CPU


class ImageEncoder:
    """A network without its classifier, in evaluation mode.

    Args:
        name: One of `WIDTHS`; None for the network that a folder of weights describes itself.
        weights: Where its weights come from.
        device: auto, cpu, cuda or cuda:N.
        batch: Images per forward pass; by default what is fastest on the device.
        precision: fp32 or bf16.
        side: Short side to which films are resized; 7/8 of it are seen.

    Raises:
        UnsupportedError: No encoder of that name, the folder holds no model of pictures, or a
            vision transformer of another size than its positions.
        ConfigError: A file of the folder is missing or damaged, or the weights have a side of
            their own.
    """

    def __init__(
        self,
        name: str | None,
        weights: Weights,
        device: str = "cpu",
        batch: int | None = None,
        precision: str = "fp32",
        side: int = SIDE,
    ) -> None:
        if name is not None and name not in WIDTHS:
            raise UnsupportedError(
                f"no image encoder is called {name!r}; offered: {', '.join(WIDTHS)}, and with "
                "--weights FOLDER any vision model of Hugging Face"
            )
        self.weights, self.precision = weights, precision
        self._device, self._batch = device, batch
        self._known = name
        self._lock = threading.Lock()
        self.name: str
        self.frame: Frame
        self.mean: tuple[float, ...]
        self.std: tuple[float, ...]
        if side != SIDE and (weights.of_run or name is None):
            raise ConfigError(
                f"--side {side}: the weights say which films they were trained on; leave it out"
            )
        if weights.of_run:
            facts = self._facts(name)
            cut = (facts["crop"], facts["crop"])
            self._known = self.name = str(facts["network"])
            self.frame, self.mean, self.std = Frame(facts["side"], cut), MEAN, STD
        elif name is not None:
            if NETWORKS[name].tokens and side != SIDE:
                raise UnsupportedError(
                    f"--side {side}: {name} has positions for 224 x 224 pixels; leave the option "
                    "out, or take a convolutional network"
                )
            cut = (7 * side // 8, 7 * side // 8)
            self.name, self.frame, self.mean, self.std = name, Frame(side, cut), MEAN, STD
        else:
            asked = vision.processing(weights)
            self.name, self.frame = vision.kind(weights), asked.frame
            self.mean, self.std = asked.mean, asked.std

    def _facts(self, name: str | None) -> Mapping[str, Any]:
        """What the encoder of a run is, and which frame it was trained on."""
        trained = self.weights.trained
        trained.require("film")
        if name not in (None, trained.facts["network"]):
            raise ConfigError(
                f"--encoder {name}: the run {trained.path} trained {trained.facts['network']}; "
                "leave the option out"
            )
        return trained.facts

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the network, which another process builds for itself."""
        return {
            key: v for key, v in vars(self).items() if key not in ("_ready", "_network", "_lock")
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._lock = threading.Lock()

    @property
    def on_cpu(self) -> bool:
        """Whether it runs on the CPU."""
        return resolve_device(self._device).type == "cpu"

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the weights: of the file, or of the tensors that the seed gave."""
        if self._known is None:
            return vision.sha256(self.weights)
        if self.weights.path is None or self.weights.of_run:
            return state_sha256(self._network)
        return self.weights.sha256()

    @cached_property
    def _network(self) -> nn.Module:
        """A network of `NETWORKS` on the CPU."""
        name = self._known or ""
        network = networks.build(name, self.weights.seed or 0)
        if self.weights.of_run:
            body = networks.body(name, network, folded=False)
            body.load_state_dict(self.weights.trained.tensors)
        elif self.weights.path is not None:
            head = f"{NETWORKS[name].head}."
            assign(network, self.weights.state(), (head,), f"{self.weights.path} as {name}")
        return network

    @cached_property
    def _ready(self) -> tuple[nn.Module, int, torch.device]:
        """The network on its device, giving (pooled, grid), and the width."""
        import torch

        device = resolve_device(self._device)
        layout = torch.channels_last
        if self._known is None:
            network, width = vision.load(self.weights)
            return network.to(device).to(memory_format=layout), width, device
        known = NETWORKS[self._known]
        body = networks.body(self._known, self._network)
        kind = torch.bfloat16 if self.precision == "bf16" else torch.float32
        if device.type == "cpu" and networks.can_block(self._known, kind):
            body = networks.blocked(body, kind)
        else:
            body = body.to(device).to(memory_format=layout)
        return networks.headless(body, tokens=known.tokens), known.width, device

    def encode(self, films: np.ndarray, level: str = "pooled") -> np.ndarray:
        """Encode grey images.

        Args:
            films: uint8, shape [n, H, W] of the frame.
            level: pooled, or grid for the features of every place.

        Returns:
            Pooled float32 [n, D]; grid float16 [n, S, D]. Non-finite values are left for the
            caller to refuse.
        """
        import torch

        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (self.mean, self.std))
        features = []
        batch = self._batch or (_CPU_BATCH if self.on_cpu else _GPU_BATCH)
        for start in range(0, len(films), batch):
            grey = torch.tensor(films[start : start + batch]).unsqueeze(1)  # [b, 1, H, W]
            features.append(self._forward((grey.float() / 255 - mean) / std, level))
        return np.concatenate(features) if features else self.blank(level)[None][:0]

    def blank(self, level: str = "pooled") -> np.ndarray:
        """The features of no image: zeros after normalisation, as the paper feeds them."""
        import torch

        features: np.ndarray = self._forward(torch.zeros(1, 3, *self.frame.shape), level)[0]
        return features

    def rounding(self, films: np.ndarray) -> float:
        """Largest difference of the pooled features in bf16, as a share of their largest value.

        Args:
            films: uint8 [n, H, W] to compare on.
        """
        exact = ImageEncoder(self._known, self.weights, self._device, self._batch).encode(films)
        rounded = ImageEncoder(self._known, self.weights, self._device, self._batch, "bf16").encode(
            films
        )
        return float(np.abs(rounded - exact).max() / np.abs(exact).max())

    def _forward(self, batch: torch.Tensor, level: str) -> np.ndarray:
        import torch

        with self._lock:  # several threads may ask for the network first
            network, width, device = self._ready
        bf16 = torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bf16")
        with one_thread(), torch.inference_mode(), bf16:
            batch = batch.to(device, memory_format=torch.channels_last)
            pooled, grid = network(batch)
        out = grid if level == "grid" else pooled
        if out.shape[-1] != width:
            raise ConfigError(f"{self.name}: expected {width} features, found {out.shape[-1]}")
        kind = torch.float16 if level == "grid" else torch.float32
        features: np.ndarray = out.to(kind).contiguous().cpu().numpy()
        return features


__all__ = ["MEAN", "STD", "WIDTHS", "ImageEncoder"]
