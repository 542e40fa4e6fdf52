"""A method of the registry behind trunks: items in, the same losses out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor, nn

from ...errors import ConfigError
from ...extract.encoders.weights import Weights
from ..config import FuseConfig
from ..models.interface import (
    LEARNED,
    FusionBatch,
    FusionModel,
    FusionOutput,
    Hyper,
    ModalitySpec,
)
from ..random import key
from .augment import NUMBERS
from .batch import RawBatch
from .options import RANDOM, init_of, trunk_of
from .processes import add_gradients, gather, same_everywhere, share
from .text_start import described
from .text_trunk import TextTrunk
from .trunks import FilmTrunk, Trunk

AUGMENT = "augment."


class Streamed(FusionModel):
    """Goes in front of a method (see `streamed`): its trunks encode what the method reads.

    Only items that are there pass a trunk, in a batch of their own: an absent film touches no
    statistic of a batch norm.
    """

    trunks: nn.ModuleList

    def __init__(self, specs: Sequence[ModalitySpec], config: FuseConfig, targets: int = 1) -> None:
        super().__init__(specs, config, targets)
        self.trunked = [m for m, spec in enumerate(self.specs) if spec.view == LEARNED]
        self.trunks = nn.ModuleList(make_trunk(self.specs[m].name, config) for m in self.trunked)

    def encoded(self, batch: FusionBatch) -> FusionBatch:
        """Encode the items of a batch.

        Trunks learn in batches of training, once they are no longer frozen. What is asked without
        gradients is no training, whatever number its random streams are named by.
        """
        if not isinstance(batch, RawBatch):
            raise ConfigError("A model with trunks reads items; this batch holds vectors already.")
        x = dict(batch.x)
        for m, trunk in zip(self.trunked, self.trunks, strict=True):
            name = self.specs[m].name
            real = batch.mask[name] & batch.available[:, m : m + 1]  # (B, L)
            config = self.config
            text = isinstance(trunk, TextTrunk)
            frozen = config.freeze_text_epochs if text else config.freeze_trunk_epochs
            learns = torch.is_grad_enabled() and batch.number > frozen
            trunk.train(learns)
            noise = batch.noise.get(AUGMENT + name)
            if noise is not None:
                drawn = noise.unsqueeze(1).expand(-1, real.shape[1], -1)[real]
                noise = drawn[share(len(drawn))]
            with torch.set_grad_enabled(learns):
                vectors: Tensor = trunk(batch.raw[name], noise)
            rows = real.nonzero(as_tuple=True)
            there = gather(vectors, len(rows[0]))
            values = there.new_zeros(*real.shape, there.shape[-1])
            x[name] = values.index_put(rows, there)
        return batch.encoded(x)

    def noise(self, training: bool) -> dict[str, tuple[int, ...]]:
        """What the method draws, and the augmentation of every film."""
        shapes = super().noise(training)
        if training and self.config.augment:
            for m, trunk in zip(self.trunked, self.trunks, strict=True):
                if isinstance(trunk, FilmTrunk):
                    shapes[AUGMENT + self.specs[m].name] = (NUMBERS,)
        return shapes

    def forward(self, batch: FusionBatch, hyper: Hyper) -> FusionOutput:
        """Encode, predict and judge a batch."""
        return super().forward(self.encoded(batch), hyper)  # type: ignore[safe-super]

    def start(self, batches: Iterable[FusionBatch]) -> None:
        """Fit what must be known before the first step."""
        super().start(self._vectors(batches))

    def refresh(self, epoch: int, batches: Iterable[FusionBatch]) -> dict[str, float]:
        """Renew statistics; items are encoded only if the method asks for them."""
        return super().refresh(epoch, self._vectors(batches))

    def describe(
        self, batches: Iterable[FusionBatch], training: Iterable[FusionBatch] = ()
    ) -> dict[str, Any] | None:
        """Report what was learned beyond weights; items are encoded only if the method asks."""
        return super().describe(self._vectors(batches), self._vectors(training))

    def rates(self) -> dict[str, float]:
        """Learning rates of the method and of each trunk."""
        config = self.config
        own = {
            f"trunks.{i}.": config.lr_text if isinstance(trunk, TextTrunk) else config.lr_trunk
            for i, trunk in enumerate(self.trunks)
        }
        return {**super().rates(), **own}

    def combine_gradients(self) -> None:
        """Add up the gradients of the trunks over all processes, and take the first one's norms."""
        add_gradients(self.trunks.parameters())
        same_everywhere(self.trunks.buffers())  # statistics of batch norms

    def trunk(self, modality: str) -> Trunk:
        """Trunk of a modality."""
        names = [self.specs[m].name for m in self.trunked]
        return cast(Trunk, self.trunks[names.index(modality)])

    def begin(self, starts: Mapping[str, Weights]) -> None:
        """Start trunks, and encoders of series, from weights in files.

        Args:
            starts: By modality.
        """
        trunked = {self.specs[m].name for m in self.trunked}
        for name in trunked & starts.keys():
            self.trunk(name).load(starts[name])
        super().begin({name: w for name, w in starts.items() if name not in trunked})

    def _vectors(self, batches: Iterable[FusionBatch]) -> Iterable[FusionBatch]:
        for batch in batches:
            with torch.no_grad():
                vectors = self.encoded(batch)
            yield vectors


@cache
def streamed(method: type[FusionModel]) -> type[FusionModel]:
    """Put trunks in front of a method; it is otherwise unchanged."""
    return type(f"Streamed{method.__name__}", (Streamed, method), {"vmappable": False})


def make_trunk(modality: str, config: FuseConfig) -> Trunk:
    """Make the trunk of a modality, with random weights of its recorded seed."""
    origin = init_of(config, modality)
    seed = key(config.seed, "trunk", modality) >> 1
    if origin.removeprefix(RANDOM).isdecimal():
        seed = int(origin.removeprefix(RANDOM))
    word = trunk_of(config, modality)
    text = described(word)
    if text is not None:
        return TextTrunk(text, seed, config.accumulate)
    return FilmTrunk(word, config.crop, seed, config.trunk_norm, config.accumulate)


__all__ = ["AUGMENT", "Streamed", "make_trunk", "streamed"]
