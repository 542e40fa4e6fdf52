"""From the values of each modality to one embedding per stay and modality."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from .attention import Summary, positions
from .interface import FusionBatch, ModalitySpec
from .layers import LSTM, Normaliser, masked_mean


class Encoder(nn.Module, ABC):
    """From the values of one modality to its embedding.

    Args:
        width: Columns of a step or part.
        columns: Their names, if they mean something.
    """

    def __init__(self, width: int, columns: Sequence[str] = ()) -> None:
        super().__init__()
        self.normaliser = Normaliser(width, columns)

    @abstractmethod
    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Encode ``(B, L, width)`` with real steps or parts ``(B, L)`` into ``(B, D)``."""


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

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """See `Encoder.forward`."""
        last: Tensor = self.lstm(self.normaliser(x, mask), mask)[1]
        return last


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
        self.size = size

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """See `Encoder.forward`."""
        steps = torch.arange(x.shape[-2], dtype=x.dtype, device=x.device)
        values = self.projection(self.normaliser(x, mask)) + positions(steps, self.size)
        embedding: Tensor = self.summary(values, mask)
        return embedding


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

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """See `Encoder.forward`."""
        embedding: Tensor = self.projection(masked_mean(self.normaliser(x, mask), mask))
        return embedding


SERIES_ENCODERS: dict[str, type[SeriesEncoder | SeriesTransformer]] = {
    "lstm": SeriesEncoder,
    "transformer": SeriesTransformer,
}


class Encoders(nn.Module):
    """One encoder per modality, and what an absent modality must not leak.

    Args:
        specs: The modalities.
        size: Width D of the embeddings.
        series: Encoder of time series, `lstm` or `transformer`.
    """

    def __init__(self, specs: Sequence[ModalitySpec], size: int, series: str = "lstm") -> None:
        super().__init__()
        self.names = tuple(spec.name for spec in specs)
        # ModuleDict refuses names with dots and those of its own methods
        self.parts = nn.ModuleList(
            (SERIES_ENCODERS[series] if spec.view == "series" else VectorEncoder)(
                spec.width, size, spec.columns
            )
            for spec in specs
        )

    def start(self, batches: Iterable[FusionBatch]) -> None:
        """Fit every normaliser to the training rows that have the modality."""
        batches = list(batches)
        for m, (name, part) in enumerate(zip(self.names, self.parts, strict=True)):
            assert isinstance(part, Encoder)
            part.normaliser.start((batch.x[name], _real(batch, name, m)) for batch in batches)

    def forward(self, batch: FusionBatch) -> Tensor:
        """Embed every modality.

        Args:
            batch: The stays.

        Returns:
            ``(B, M, D)``, zero where the modality is absent.
        """
        embeddings = [
            part(batch.x[name], _real(batch, name, m))
            for m, (name, part) in enumerate(zip(self.names, self.parts, strict=True))
        ]
        z = torch.stack(embeddings, 1)
        return torch.where(batch.available.unsqueeze(-1), z, 0.0)


def _real(batch: FusionBatch, name: str, m: int) -> Tensor:
    return batch.mask[name] & batch.available[:, m : m + 1]
