"""From one table, or arrays by modality, to the values, masks and availability of each modality."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..cache.space import column_names
from ..errors import ConfigError, SchemaError
from .models.interface import ModalitySpec

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]


class Part(NamedTuple):
    """One modality of N rows as it was given.

    Attributes:
        view: `series` or `vector`.
        values: ``(N, L, width)``, NaN where unknown; L is 1 for a vector.
        names: Names of the last axis; empty if they mean nothing.
    """

    view: str
    values: Floats
    names: tuple[str, ...]


def from_table(
    table: Floats, modalities: Mapping[str, Any] | None, names: Sequence[str] = ()
) -> dict[str, Part]:
    """Take the columns of every modality from a table.

    Args:
        table: ``(N, columns)``, NaN where unknown.
        modalities: By name a slice, a column or a list of columns, each a position or a name; a
            list of lists of one length is a series, one inner list for each step. None is one
            modality of all columns.
        names: Names of the columns, if they have any.

    Raises:
        ConfigError: Something else, a column that is not there or in two modalities, or no column.
    """
    if modalities is None:
        modalities = {"table": slice(None)}
    if not isinstance(modalities, Mapping) or not modalities:
        raise ConfigError(
            "modalities maps names to columns, such as {'cxr': slice(0, 512)}; found "
            f"{modalities!r}. Only a dict of arrays needs no such map."
        )
    place = {name: i for i, name in enumerate(names)}
    parts: dict[str, Part] = {}
    owner: dict[int, str] = {}
    for name, wanted in modalities.items():
        steps = _steps(str(name), wanted, table.shape[1], place)
        for column in sorted({column for step in steps for column in step}):
            if column in owner:
                raise ConfigError(
                    f"Modalities {owner[column]!r} and {str(name)!r} both have column "
                    f"{names[column] if names else column!r}: give each column to one of them."
                )
            owner[column] = str(name)
        first = tuple(names[i] for i in steps[0]) if names else ()
        view = "series" if len(steps) > 1 else "vector"
        parts[str(name)] = Part(view, table[:, np.array(steps)], first if len(steps) == 1 else ())
    return parts


def from_arrays(arrays: Mapping[str, Any]) -> dict[str, Part]:
    """Take arrays by modality.

    Args:
        arrays: ``(N, width)`` vectors or ``(N, L, width)`` series, NaN where unknown; a table of
            vectors tells the names of its columns.

    Raises:
        SchemaError: Another shape, infinite values, no row, or arrays of different length.
    """
    parts = {}
    for name, given in arrays.items():
        with np.errstate(over="ignore"):
            values = np.asarray(given, dtype=np.float32)
        if values.ndim not in (2, 3) or 0 in values.shape[1:]:
            raise SchemaError(
                f"Modality {name!r}: expected an array [N, width] or [N, steps, width], found "
                f"{list(values.shape)}."
            )
        if np.isinf(values).any():
            raise SchemaError(f"Modality {name!r} holds infinite values: give NaN for unknown.")
        vector = values.ndim == 2
        parts[str(name)] = Part(
            "vector" if vector else "series",
            values[:, None] if vector else values,
            column_names(given),
        )
    lengths = {name: len(part.values) for name, part in parts.items()}
    if len(set(lengths.values())) != 1:
        raise SchemaError(f"Expected arrays of equally many rows, found {lengths or 'none'}.")
    if 0 in lengths.values():
        raise SchemaError(f"Expected arrays of one row or more, found {lengths}.")
    return parts


@dataclass(frozen=True)
class Reading:
    """How a model reads one modality, settled by its training rows.

    Where those have gaps, every column is told apart from `known:` of it, as in a cache. Where
    they have none, a gap of later rows takes the column's training mean.

    Attributes:
        name: The modality.
        view: `series` or `vector`.
        names: Names of the columns, without `known:`; empty if they mean nothing.
        gaps: Whether training rows have gaps.
        means: Mean of each column in the training rows.
    """

    name: str
    view: str
    names: tuple[str, ...]
    gaps: bool
    means: tuple[float, ...]

    @classmethod
    def learn(cls, name: str, part: Part) -> Reading:
        """Settle how to read a modality.

        Args:
            name: Its name.
            part: Its training rows.

        Raises:
            SchemaError: No training row has it.
        """
        known = ~np.isnan(part.values)
        if not known.any():
            raise SchemaError(
                f"No training row has {name!r}: all {len(part.values)} are NaN in it. Leave the "
                "modality out."
            )
        real = known.any(-1, keepdims=True)
        count = known.sum((0, 1))
        total = np.where(known, part.values, 0.0).sum((0, 1), dtype=np.float64)
        width = part.values.shape[-1]
        gaps = bool((real & ~known).any())
        names = part.names or (_numbered(width) if gaps else ())
        means = tuple((total / np.maximum(count, 1)).tolist())
        return cls(name, part.view, names, gaps, means)

    @property
    def spec(self) -> ModalitySpec:
        """The modality as a model sees it."""
        width = len(self.means) * (1 + self.gaps)
        known = tuple(f"known:{name}" for name in self.names) if self.gaps else ()
        return ModalitySpec(self.name, self.view, width, (*self.names, *known))

    def read(self, part: Part) -> tuple[Floats, Bools, Bools]:
        """Values ``(N, L, width)``, real steps ``(N, L)``, and who has the modality, ``(N,)``.

        Raises:
            SchemaError: The rows have another shape or other columns than those of the training.
        """
        width = part.values.shape[-1]
        if (part.view, width) != (self.view, len(self.means)):
            raise SchemaError(
                f"Modality {self.name!r}: expected a {self.view} of {len(self.means)} columns, "
                f"found a {part.view} of {width}."
            )
        if part.names and self.names not in ((), part.names, _numbered(width)):
            raise SchemaError(
                f"Modality {self.name!r}: expected the columns {', '.join(self.names[:8])} in "
                f"this order, as in fit; found {', '.join(part.names[:8])}."
            )
        known = ~np.isnan(part.values)
        mask: Bools = np.asarray(known.any(-1))
        there: Bools = np.asarray(mask.any(-1))
        fill = np.zeros(width) if self.gaps else np.array(self.means)
        values = np.where(known, part.values, fill.astype(np.float32))
        values[~mask] = 0.0
        if self.gaps:
            values = np.concatenate([values, known.astype(np.float32)], -1)
        return np.ascontiguousarray(values), mask, there


def _numbered(width: int) -> tuple[str, ...]:
    """Names of columns that have none, where `known:` columns need them."""
    return tuple(f"x{i}" for i in range(width))


def _steps(name: str, wanted: Any, width: int, place: Mapping[str, int]) -> list[list[int]]:
    """Positions of the columns of a modality, one list for each step."""
    if isinstance(wanted, slice):
        chosen: list[Any] = list(range(*wanted.indices(width)))
        # Python would take what there is of a slice that reaches too far: a silent misreading
        if any(bound is not None and abs(bound) > width for bound in (wanted.start, wanted.stop)):
            raise ConfigError(
                f"Modality {name!r}: {wanted!r} reaches beyond the {width} columns of the table. "
                "Leave an end out to mean the last one."
            )
    elif isinstance(wanted, str) or np.isscalar(wanted):
        chosen = [wanted]
    else:
        chosen = list(wanted)
    nested = bool(chosen) and all(not isinstance(c, str) and not np.isscalar(c) for c in chosen)
    steps = [list(c) for c in chosen] if nested else [chosen]
    if not steps[0] or len({len(step) for step in steps}) != 1:
        raise ConfigError(f"Modality {name!r}: expected columns, found {wanted!r} of {width}.")
    return [[_position(name, column, width, place) for column in step] for step in steps]


def _position(name: str, column: Any, width: int, place: Mapping[str, int]) -> int:
    if isinstance(column, str):
        if column not in place:
            known = ", ".join(list(place)[:8]) or "none, the table is an array"
            raise ConfigError(f"Modality {name!r}: no column {column!r}; names are {known}.")
        return place[column]
    if (
        isinstance(column, bool | np.bool_)
        or int(column) != column
        or not (-width <= column < width)
    ):
        raise ConfigError(f"Modality {name!r}: no column {column!r} among {width}.")
    return int(column) % width


def digests(given: Sequence[NDArray[np.float32]]) -> list[str]:
    """Hash what every row holds, however it was handed in.

    Of each modality the number of real steps counts, and these; it is 0 where the modality is
    absent. All NaN are one, and so are both zeros.

    Args:
        given: By modality, in the order of the model, ``(N, L, width)``; NaN where unknown.
    """
    plain = [np.where(np.isnan(values), np.float32(np.nan), values + 0.0) for values in given]
    return [
        hashlib.sha256(b"".join(map(_content, rows))).hexdigest()
        for rows in zip(*plain, strict=True)
    ]


def _content(steps: NDArray[np.float32]) -> bytes:
    """Number of the real steps of a row ``(L, width)``, and their bytes."""
    real = steps[~np.isnan(steps).all(1)]
    return len(real).to_bytes(4, "little") + real.tobytes()


__all__ = ["Part", "Reading", "digests", "from_arrays", "from_table"]
