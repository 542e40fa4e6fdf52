"""Trunks: encoders of stage one that are trained, item by item, in front of the fusion."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from ...errors import ConfigError, UnsupportedError
from ...extract.encoders import networks
from ...extract.encoders.weights import Weights, assign
from .augment import augmented, centre, normalised


class Trunk(nn.Module, ABC):
    """From items to vectors.

    Attributes:
        width: Length D of a vector.

    Args:
        parts: Parts in which the items of a step pass. More than one are computed again on the
            way back, so that only one is in memory, and the loss is still that of the whole step
            (Gao et al., 2021); batch norms see one part at a time.
    """

    width: int

    def __init__(self, parts: int = 1) -> None:
        super().__init__()
        self.parts = parts

    @abstractmethod
    def encode(self, items: Tensor, noise: Tensor | None) -> Tensor:
        """Encode some items.

        Args:
            items: ``(n, ...)``.
            noise: Uniform numbers for their augmentation, ``(n, ·)``; None for none.

        Returns:
            ``(n, D)``.
        """

    @abstractmethod
    def load(self, weights: Weights) -> None:
        """Start from weights in a file."""

    def forward(self, items: Tensor, noise: Tensor | None = None) -> Tensor:
        """Encode any number of items; see `encode`."""
        if not len(items):
            return next(self.parameters()).new_zeros(0, self.width)
        if self.parts == 1:
            return self.encode(items, noise)
        pieces = items.chunk(self.parts)
        noises = [None] * len(pieces) if noise is None else noise.chunk(self.parts)
        vectors = []
        for piece, own in zip(pieces, noises, strict=True):
            if torch.is_grad_enabled():
                vectors.append(
                    checkpoint(
                        self.encode,
                        piece,
                        own,
                        use_reentrant=False,
                        preserve_rng_state=False,
                        context_fn=lambda: (nullcontext(), _statistics_kept(self)),
                    )
                )
            else:
                vectors.append(self.encode(piece, own))
        return torch.cat(vectors)


class FilmTrunk(Trunk):
    """A network for films, without its classifier.

    Args:
        name: One of `networks.NETWORKS`.
        crop: Side of the centre that it sees.
        seed: Of its random weights.
        norm: `own`; `frozen`, batch norms keep their statistics; `sync`, batch norms over all
            processes, which needs GPUs.
        parts: See `Trunk`.

    Raises:
        UnsupportedError: A vision transformer of another size than its positions.
    """

    def __init__(self, name: str, crop: int, seed: int, norm: str = "own", parts: int = 1) -> None:
        super().__init__(parts)
        known = networks.NETWORKS[name]
        if known.tokens and crop != 224:
            raise UnsupportedError(
                f"{name} has positions for 224 x 224 pixels, the films are cut to {crop}. Extract "
                "pixels with --side 256, or take a convolutional network."
            )
        network = networks.build(name, seed)
        body: nn.Module = networks.headless(
            networks.body(name, network, folded=False), tokens=known.tokens
        )
        if norm == "sync":
            sync: Any = nn.SyncBatchNorm
            body = sync.convert_sync_batchnorm(body)
        self.network = body
        self.name, self.width, self._crop, self._norm = name, known.width, crop, norm

    def encode(self, items: Tensor, noise: Tensor | None) -> Tensor:
        """Encode films ``(n, S, S)`` uint8.

        Raises:
            ConfigError: A single small film gives batch norms nothing to divide by.
        """
        grey = centre(items, self._crop) if noise is None else augmented(items, noise, self._crop)
        like = next(self.parameters())
        images = normalised(grey).to(like.dtype).contiguous(memory_format=torch.channels_last)
        try:
            pooled, _ = self.network(images)
        except ValueError as error:
            if len(items) > 1:
                raise
            raise ConfigError(
                f"{self.name}: of a single film of {self._crop} pixels its batch norms see one "
                "value per channel, and have no spread to divide by. Take a network with group "
                "norm, --trunk-norm frozen, a larger --crop or --batch-size, or a lower "
                "--accumulate."
            ) from error
        vectors: Tensor = pooled.to(like.dtype)
        return vectors

    def load(self, weights: Weights) -> None:
        """Start from weights in a file.

        Raises:
            ConfigError: They do not fit the network.
        """
        network = networks.build(self.name, 0)
        if weights.of_run:
            weights.trained.require("film")
            if weights.trained.facts["network"] != self.name:
                raise ConfigError(
                    f"{weights.trained.path} trained {weights.trained.facts['network']}, the trunk "
                    f"of {weights.modality} is {self.name}. Name it with --trunk."
                )
            body = networks.headless(
                networks.body(self.name, network, folded=False),
                tokens=networks.NETWORKS[self.name].tokens,
            )
            body.load_state_dict({f"body.{n}": t for n, t in weights.trained.tensors.items()})
            self.network.load_state_dict(body.state_dict())
            return
        head = networks.NETWORKS[self.name].head
        assign(network, weights.state(), (f"{head}.",), f"{weights.path} as {self.name}")
        body = networks.body(self.name, network, folded=False)
        tokens = networks.NETWORKS[self.name].tokens
        self.network.load_state_dict(networks.headless(body, tokens=tokens).state_dict())

    def train(self, mode: bool = True) -> FilmTrunk:
        """Switch between training and evaluation; frozen norms always evaluate."""
        super().train(mode)
        if self._norm == "frozen":
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self


@contextmanager
def _statistics_kept(trunk: nn.Module) -> Iterator[None]:
    """Leave batch norms' statistics alone while activations are computed a second time."""
    norms: list[Any] = [module for module in trunk.modules() if isinstance(module, _BatchNorm)]
    before = [(norm.momentum, _clone(norm.num_batches_tracked)) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum = momentum
            if count is not None:
                norm.num_batches_tracked.copy_(count)


def _clone(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.clone()


__all__ = ["FilmTrunk", "Trunk"]
