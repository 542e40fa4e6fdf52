"""A stay as one row of numbers, for methods that read tables: statistics of series, vectors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ...cache.space import HOURS
from .interface import FusionBatch, ModalitySpec
from .layers import masked_mean

WINDOWS = {
    "all": (0.0, 1.0),
    "first10": (0.0, 0.1),
    "first25": (0.0, 0.25),
    "first50": (0.0, 0.5),
    "last50": (0.5, 1.0),
    "last25": (0.75, 1.0),
    "last10": (0.9, 1.0),
}
"""Parts of the time before the prediction (Harutyunyan et al., 2019): after the first end, which
counts for those that begin at 0, up to the second."""

STATISTICS = ("min", "max", "mean", "std", "skew")
LEVEL = "->"


def statistics(x: Tensor, there: Tensor) -> Tensor:
    """Minimum, maximum, mean, standard deviation and skewness over what was measured.

    Args:
        x: ``(B, L, V)`` float64.
        there: Cells that were measured, ``(B, L, V)`` bool.

    Returns:
        ``(B, 5, V)``; NaN where nothing was measured. Deviation and skewness of equal values are 0.
    """
    n = there.sum(1)
    some = n.clamp(min=1)
    mean = torch.where(there, x, 0.0).sum(1) / some
    apart = torch.where(there, x - mean.unsqueeze(1), 0.0)
    variance = apart.square().sum(1) / some
    equal = variance <= (1e-12 * mean.abs()).square()
    skew = apart.pow(3).sum(1) / some / torch.where(equal, 1.0, variance).pow(1.5)
    low = x.masked_fill(~there, torch.inf).amin(1)
    high = x.masked_fill(~there, -torch.inf).amax(1)
    parts = (low, high, mean, torch.where(equal, 0.0, variance.sqrt()), skew * ~equal)
    return torch.stack(parts, 1).masked_fill((n == 0).unsqueeze(1), torch.nan)


class SeriesStatistics(nn.Module):
    """Six statistics of every variable in seven windows, from the cells that were measured.

    A cell was measured if `measured:NAME` or `mask->NAME` says so, else if `known:NAME` does, else
    if its step is real. A level of a category (`NAME->LEVEL`) has its share alone; the number of
    measurements is that of the variable.

    Args:
        spec: A series.
    """

    def __init__(self, spec: ModalitySpec) -> None:
        super().__init__()
        names = spec.columns or tuple(f"{i}" for i in range(spec.width))
        place = {name: i for i, name in enumerate(names)}
        marks = [_mark(name, place) for name in names]
        used = [i for i, name in enumerate(names) if not _auxiliary(name, place)]
        numbers = [i for i in used if LEVEL not in names[i]]
        levels = [i for i in used if LEVEL in names[i]]
        counted = list(dict.fromkeys(marks[i] for i in used))
        self.numbers, self.levels, self.counted = numbers, levels, counted
        self.marks = marks
        said = ["steps" if mark < 0 else names[mark] for mark in counted]
        self.names = [
            f"{spec.name}.{name}.{window}"
            for window in WINDOWS
            for name in (
                *(f"{names[i]}.{kind}" for kind in STATISTICS for i in numbers),
                *(f"{names[i]}.share" for i in levels),
                *(f"{name}.count" for name in said),
            )
        ]

    def forward(self, x: Tensor, real: Tensor, time: Tensor) -> Tensor:
        """Summarise ``(B, L, width)`` with real steps ``(B, L)`` and times ``(B, L)`` in [0, 1].

        Returns:
            ``(B, F)``, NaN where nothing was measured; a number of measurements never is.
        """
        x = x.double()
        marked = {mark: real if mark < 0 else real & (x[..., mark] != 0) for mark in self.counted}
        result = []
        for begin, end in WINDOWS.values():
            # times are float32: a step at one tenth is not to fall to either side by rounding
            inside = (time <= end + 1e-6) & ((time > begin + 1e-6) | (begin == 0))
            there = {mark: steps & inside for mark, steps in marked.items()}
            parts = [torch.empty(len(x), 0, dtype=x.dtype, device=x.device)]
            for chosen, kinds in ((self.numbers, slice(None)), (self.levels, slice(2, 3))):
                if chosen:
                    cells = torch.stack([there[self.marks[i]] for i in chosen], -1)
                    parts.append(statistics(x[..., chosen], cells)[:, kinds].flatten(1))
            parts.append(torch.stack([there[mark].sum(1) for mark in self.counted], 1).double())
            result.append(torch.cat(parts, 1))
        return torch.cat(result, 1)


class VectorColumns(nn.Module):
    """The mean of a vector's parts, or the principal components of that mean.

    Where `known:NAME` is 0 the column NAME is NaN.

    Args:
        spec: A vector.
        components: Components that stand for a longer vector without named columns; 0 for none.
    """

    mean: Tensor
    directions: Tensor

    def __init__(self, spec: ModalitySpec, components: int) -> None:
        super().__init__()
        place = {name: i for i, name in enumerate(spec.columns)}
        self.known = [place.get(f"known:{name}", -1) for name in spec.columns]
        self.reduced = 0 < components < spec.width and not spec.columns
        names = spec.columns or tuple(f"{i}" for i in range(spec.width))
        self.names = [f"{spec.name}.{name}" for name in names]
        if self.reduced:
            self.names = [f"{spec.name}.component{i}" for i in range(components)]
            self.register_buffer("mean", torch.zeros(spec.width).double())
            self.register_buffer("directions", torch.zeros(components, spec.width).double())

    @torch.no_grad()
    def fit(self, pooled: Tensor) -> None:
        """Find the components of training rows ``(N, width)``."""
        if not self.reduced:
            return
        from sklearn.decomposition import PCA

        rows = pooled.cpu().numpy()
        most = min(len(self.directions), *rows.shape)
        found = PCA(most, svd_solver="full").fit(rows)
        self.mean.copy_(torch.from_numpy(found.mean_))
        self.directions.zero_()
        self.directions[:most] = torch.from_numpy(found.components_)

    def pooled(self, x: Tensor, real: Tensor) -> Tensor:
        """Mean of the parts that are real, ``(B, width)``."""
        return masked_mean(torch.where(real.unsqueeze(-1), x.double(), 0.0), real)

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        """Columns ``(B, F)`` of parts ``(B, L, width)``, of which ``(B, L)`` are real."""
        values = self.pooled(x, real)
        if self.reduced:
            return (values - self.mean) @ self.directions.T
        if any(mark >= 0 for mark in self.known):
            marks = torch.tensor(self.known, device=x.device)
            unknown = (values[:, marks.clamp(min=0)] == 0) & (marks >= 0)
            values = values.masked_fill(unknown, torch.nan)
        return values


class StayTable(nn.Module):
    """Every modality of a stay in one row of numbers, NaN where it is absent or unknown.

    Args:
        specs: The modalities.
        components: See `VectorColumns`.
    """

    def __init__(self, specs: Sequence[ModalitySpec], components: int) -> None:
        super().__init__()
        self.specs = tuple(specs)
        self.parts = nn.ModuleList(
            SeriesStatistics(spec) if spec.view == "series" else VectorColumns(spec, components)
            for spec in self.specs
        )
        self.names = [name for part in self.parts for name in part.names]  # type: ignore[union-attr]

    @torch.no_grad()
    def fit(self, batches: Iterable[FusionBatch]) -> None:
        """Find the principal components of the training rows."""
        batches = list(batches)
        for m, (spec, part) in enumerate(zip(self.specs, self.parts, strict=True)):
            if isinstance(part, VectorColumns):
                rows = [
                    part.pooled(b.x[spec.name], b.mask[spec.name])[b.available[:, m]]
                    for b in batches
                ]
                part.fit(torch.cat(rows))

    @torch.no_grad()
    def forward(self, batch: FusionBatch) -> Tensor:
        """Rows ``(B, F)`` float64."""
        columns = []
        for m, (spec, part) in enumerate(zip(self.specs, self.parts, strict=True)):
            there = batch.available[:, m : m + 1]
            read = [batch.x[spec.name], batch.mask[spec.name] & there]
            if spec.view == "series":
                read.append(batch.times(spec))
            columns.append(part(*read).masked_fill(~there, torch.nan))
        return torch.cat(columns, 1)

    def rows(self, batches: Iterable[FusionBatch]) -> tuple[np.ndarray, np.ndarray]:
        """Rows ``(N, F)`` and targets ``(N, C)`` of some stays, as arrays."""
        pairs = [(self(batch), batch.y) for batch in batches]
        x, y = (torch.cat(part).cpu().numpy() for part in zip(*pairs, strict=True))
        return x, y


def _mark(name: str, place: dict[str, int]) -> int:
    """Position of the column that says where a column was measured; -1 if none does."""
    variable = name.partition(LEVEL)[0]
    for mark in (f"measured:{name}", f"mask->{variable}", f"known:{name}"):
        if mark in place:
            return place[mark]
    return -1


def _auxiliary(name: str, place: dict[str, int]) -> bool:
    """Whether a column speaks of another one, or of the time."""
    if name == HOURS:
        return True
    return any(
        name.startswith(prefix) and _names_a_column(name.removeprefix(prefix), place)
        for prefix in ("mask->", "measured:", "known:")
    )


def _names_a_column(name: str, place: dict[str, int]) -> bool:
    return name in place or any(other.startswith(name + LEVEL) for other in place)


__all__ = ["STATISTICS", "WINDOWS", "SeriesStatistics", "StayTable", "VectorColumns", "statistics"]
