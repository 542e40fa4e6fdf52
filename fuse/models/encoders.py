"""From the values of each modality to one embedding per stay and modality."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .attention import Summary, positions
from .interface import LEARNED, FusionBatch, ModalitySpec
from .layers import LSTM, Normaliser, PartNormaliser, masked_mean


class Reader(nn.Module):
    """Whatever reads the values of one modality; it standardises them first.

    Args:
        width: Columns of a step or part.
        columns: Their names, if they mean something.
        learned: The values come from a trunk that is trained with the model.
    """

    def __init__(self, width: int, columns: Sequence[str] = (), learned: bool = False) -> None:
        super().__init__()
        self.normaliser = PartNormaliser(width) if learned else Normaliser(width, columns)


class Encoder(Reader, ABC):
    """From the values of one modality to its embedding, in two halves.

    A method that lets modalities meet inside the encoders acts between the halves.

    Attributes:
        between: Width of the states between the halves.
    """

    between: int

    @abstractmethod
    def states(self, x: Tensor, mask: Tensor) -> Tensor:
        """First half: ``(B, L, width)`` with real steps or parts ``(B, L)`` to states.

        Returns:
            ``(B, L, between)``; a step that is not real says nothing.
        """

    @abstractmethod
    def gather(self, states: Tensor, mask: Tensor) -> Tensor:
        """Second half: states ``(B, L, between)``, zero where not real, to ``(B, D)``."""

    @abstractmethod
    def tokens(self, x: Tensor, mask: Tensor) -> Tensor:
        """Encode every step or part: ``(B, L, width)`` to ``(B, L, D)``; idle where not real."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Encode ``(B, L, width)`` with real steps or parts ``(B, L)`` into ``(B, D)``."""
        return self.gather(self.states(x, mask), mask)


class SeriesEncoder(Encoder):
    """Last state of a 2-layer LSTM over the standardised series.

    Args:
        width: Columns of the series.
        size: Width D of the embedding.
        columns: Names of the columns, if they mean something.
    """

    def __init__(self, width: int, size: int, columns: Sequence[str] = ()) -> None:
        super().__init__(width, columns)
        self.lstm = LSTM(width, size)
        self.between = size

    def states(self, x: Tensor, mask: Tensor) -> Tensor:
        """States of the first layer."""
        return self.lstm.read(0, self.normaliser(x, mask), mask)

    def gather(self, states: Tensor, mask: Tensor) -> Tensor:
        """Last state of the second layer."""
        return self.lstm.read(1, states, mask)[:, -1]

    def tokens(self, x: Tensor, mask: Tensor) -> Tensor:
        """States of the second layer after each step."""
        states: Tensor = self.lstm(self.normaliser(x, mask), mask)[0]
        return states


class SeriesTransformer(Encoder):
    """Two Transformer layers over the standardised series, gathered by a token of its own.

    The paper's Table 10 names a Transformer and no more; this one has sines and cosines as
    positions, up to four heads, pre-norm layers and no dropout inside.

    Args:
        width: Columns of the series.
        size: Width D of the embedding.
        columns: Names of the columns, if they mean something.
    """

    def __init__(self, width: int, size: int, columns: Sequence[str] = ()) -> None:
        super().__init__(width, columns)
        self.projection = nn.Linear(width, size)
        self.summary = Summary(size, layers=2)
        self.between = size

    def states(self, x: Tensor, mask: Tensor) -> Tensor:
        """Projected values with their positions."""
        steps = torch.arange(x.shape[-2], dtype=x.dtype, device=x.device)
        values: Tensor = self.projection(self.normaliser(x, mask))
        return values + positions(steps, self.between)

    def gather(self, states: Tensor, mask: Tensor) -> Tensor:
        """Output of the gathering token."""
        embedding: Tensor = self.summary(states, mask)
        return embedding

    def tokens(self, x: Tensor, mask: Tensor) -> Tensor:
        """Output at every step."""
        return self.summary.states(self.states(x, mask), mask)


class VectorEncoder(Encoder):
    """Linear projection of the mean over the standardised parts.

    Args:
        width: Length of a part.
        size: Width D of the embedding.
        columns: Names of the columns, if they mean something.
    """

    def __init__(self, width: int, size: int, columns: Sequence[str] = ()) -> None:
        super().__init__(width, columns)
        self.projection = nn.Linear(width, size)
        self.between = width

    def states(self, x: Tensor, mask: Tensor) -> Tensor:
        """The standardised parts."""
        standardised: Tensor = self.normaliser(x, mask)
        return standardised

    def gather(self, states: Tensor, mask: Tensor) -> Tensor:
        """Projection of their mean."""
        embedding: Tensor = self.projection(masked_mean(states, mask))
        return embedding

    def tokens(self, x: Tensor, mask: Tensor) -> Tensor:
        """Projection of every part."""
        projected: Tensor = self.projection(self.normaliser(x, mask))
        return projected


class LearnedEncoder(VectorEncoder):
    """Linear projection of the mean over parts that a trunk encodes, trained together with it."""

    def __init__(self, width: int, size: int, columns: Sequence[str] = ()) -> None:
        super().__init__(width, size, columns)
        self.normaliser = PartNormaliser(width)


SERIES_ENCODERS: dict[str, type[SeriesEncoder | SeriesTransformer]] = {
    "lstm": SeriesEncoder,
    "transformer": SeriesTransformer,
}


class Readers(nn.Module):
    """One reader per modality, and what an absent modality must not leak.

    Args:
        specs: The modalities.
        make: Makes the reader of a modality.
    """

    def __init__(
        self, specs: Sequence[ModalitySpec], make: Callable[[ModalitySpec], Reader]
    ) -> None:
        super().__init__()
        self.specs = tuple(specs)
        # ModuleDict refuses names with dots and those of its own methods
        self.parts = nn.ModuleList(make(spec) for spec in specs)

    def start(self, batches: Iterable[FusionBatch]) -> None:
        """Fit every normaliser to the training rows that have the modality."""
        batches = list(batches)
        reals = [self.real(batch) for batch in batches]
        for m, (spec, part) in enumerate(zip(self.specs, self.parts, strict=True)):
            assert isinstance(part, Reader)
            part.normaliser.start(
                (batch.x[spec.name], real[m]) for batch, real in zip(batches, reals, strict=True)
            )

    def real(self, batch: FusionBatch) -> list[Tensor]:
        """Steps or parts that are there, by modality ``(B, L)`` bool."""
        return [
            batch.mask[spec.name] & batch.available[:, m : m + 1]
            for m, spec in enumerate(self.specs)
        ]

    def read(self, batch: FusionBatch) -> tuple[list[Any], list[Tensor]]:
        """Let every reader read its values and their mask.

        Returns:
            By modality, what the reader makes of them, and which steps or parts are real.
        """
        real = self.real(batch)
        read = [
            part(batch.x[spec.name], mask)
            for spec, part, mask in zip(self.specs, self.parts, real, strict=True)
        ]
        return read, real


class Encoders(Readers):
    """One encoder per modality.

    Args:
        specs: The modalities.
        size: Width D of the embeddings.
        series: Encoder of time series, `lstm` or `transformer`.
    """

    def __init__(self, specs: Sequence[ModalitySpec], size: int, series: str = "lstm") -> None:
        super().__init__(specs, lambda spec: make_encoder(spec, size, series))

    def forward(self, batch: FusionBatch) -> Tensor:
        """Embed every modality.

        Args:
            batch: The stays.

        Returns:
            ``(B, M, D)``, zero where the modality is absent.
        """
        states, real = self.states(batch)
        return self.gather(states, real, batch.available)

    def between(self) -> list[int]:
        """Widths of the states of every modality."""
        return [part.between for part in self.parts if isinstance(part, Encoder)]

    def states(self, batch: FusionBatch) -> tuple[list[Tensor], list[Tensor]]:
        """Run the first half of every encoder.

        Returns:
            By modality, states ``(B, L, between)`` and which of them are real, ``(B, L)`` bool.
        """
        real = self.real(batch)
        states = [
            part.states(batch.x[spec.name], mask)
            for spec, part, mask in zip(self.specs, self.parts, real, strict=True)
            if isinstance(part, Encoder)
        ]
        return states, real

    def gather(self, states: list[Tensor], real: list[Tensor], available: Tensor) -> Tensor:
        """Run the second half of every encoder.

        Args:
            states: By modality, ``(B, L, between)``.
            real: By modality, ``(B, L)`` bool.
            available: ``(B, M)`` bool.

        Returns:
            ``(B, M, D)``, zero where the modality is absent.
        """
        embeddings = [
            part.gather(values, mask)
            for part, values, mask in zip(self.parts, states, real, strict=True)
            if isinstance(part, Encoder)
        ]
        return torch.where(available.unsqueeze(-1), torch.stack(embeddings, 1), 0.0)


def make_encoder(spec: ModalitySpec, size: int, series: str) -> Encoder:
    """Make the encoder of a modality.

    Args:
        spec: The modality.
        size: Width D of the embedding.
        series: Encoder of time series, `lstm` or `transformer`.
    """
    kind: type[SeriesEncoder | SeriesTransformer | VectorEncoder]
    if spec.view == "series":
        kind = SERIES_ENCODERS[series]
    else:
        kind = LearnedEncoder if spec.view == LEARNED else VectorEncoder
    return kind(spec.width, size, spec.columns)


def map_of(specs: Sequence[ModalitySpec]) -> int:
    """Position of the modality with a feature map: the first that is no series, or the first."""
    return next((m for m, spec in enumerate(specs) if spec.view != "series"), 0)


def anchor_of(specs: Sequence[ModalitySpec]) -> int:
    """Position of the modality that others act on: the first series, or the first of all."""
    views = [spec.view for spec in specs]
    return views.index("series") if "series" in views else 0
