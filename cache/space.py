"""What a store holds: the space of its vectors, one encoded shard, the items that failed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ..errors import ConfigError, DataError
from .fingerprint import fingerprint
from .layout import (
    ARRAY_DTYPES,
    ARRAY_VIEWS,
    BYTE_DTYPES,
    FILM_VIEWS,
    ITEM_COLUMNS,
    SCHEMA_VERSION,
    STAGES,
    VALUE_DTYPES,
    check_name,
)

HOURS = "hours"
"""First column of a series whose steps are times of measurement; a grid has it not."""


@dataclass(frozen=True)
class Space:
    """What makes two vectors comparable: a model may be used wherever its spaces are the same.

    Args:
        modality: "ehr", "cxr", "report", or a name of the user's own.
        view: "series": an item is [T, C], steps in time order; "vector": [D], or [S, D] with S
            parts such as the sections of a report; "pixels": [H, W] grey values, which only
            models that read images themselves can use; "files": [32], SHA-256 of such pixels,
            which lie in the files that the table of items names.
        parts: Encoder, SHA-256 of its weights, preprocessing options: whatever changes a value.
            No path, no time.
        columns: Names of the last axis, when they mean something.

    Raises:
        ConfigError: The modality cannot name a folder, the view is unknown, or `parts` holds
            something that JSON cannot.
    """

    modality: str
    view: Literal["series", "vector", "pixels", "files"]
    parts: Mapping[str, object]
    columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_name(self.modality, "Modality")
        if self.view not in (*ARRAY_VIEWS, *FILM_VIEWS):
            offered = ", ".join((*ARRAY_VIEWS, *FILM_VIEWS))
            raise ConfigError(f"A view is one of {offered}; found {self.view!r}.")
        fingerprint(self.as_json())

    def as_json(self) -> dict[str, object]:
        """The space in clear, as it stands in the manifest."""
        return {
            "modality": self.modality,
            "view": self.view,
            "parts": dict(self.parts),
            "columns": list(self.columns),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Space:
        """Inverse of `as_json`."""
        return cls(
            modality=content["modality"],
            view=content["view"],
            parts=content["parts"],
            columns=tuple(content["columns"]),
        )

    @property
    def id(self) -> str:
        """First 12 hexadecimal digits of the space's fingerprint; names its folder."""
        return fingerprint({"schema_version": SCHEMA_VERSION, **self.as_json()})[:12]


@dataclass(frozen=True)
class Reject:
    """An item that exists in the source and could not be encoded.

    Args:
        item_id: The item.
        stage: read, decode, tokenise, encode or nonfinite.
        error: Class of the error.
        message: What is wrong, without clinical text.
    """

    item_id: str
    stage: str
    error: str
    message: str


@dataclass(frozen=True)
class EncodedShard:
    """The encoded items of one shard, and those that failed.

    Args:
        item_ids: n ids, each once.
        source_hashes: n hashes of what each item was encoded from.
        arrays: "values" [n, T, C], [n, D] or [n, S, D], float32 or float16, finite, or uint8, of
            pixels [n, H, W], of files [n, 32]; optional "mask" [n, L] bool with L = T or S, True
            where the step or part is real (default: all); further arrays [n, ...] such as "ids"
            and "length".
        facts: Further columns of the items table, n values each: text, number, bool or None.
        rejects: The items that failed.
    """

    item_ids: list[str]
    source_hashes: list[str]
    arrays: dict[str, np.ndarray]
    facts: dict[str, list[Any]]
    rejects: list[Reject]


def checked_arrays(space: Space, shard: EncodedShard) -> dict[str, np.ndarray]:
    """Validate a shard and return its arrays as they are stored.

    A mask is added where values have steps or parts; values at its False places become zero.

    Raises:
        ConfigError: Shapes, dtypes, names or counts do not fit together.
        DataError: A value is NaN or infinite, or an item has no real step.
    """
    _check_items(shard)
    n = len(shard.item_ids)
    if n == 0:
        return {}
    if "values" not in shard.arrays:
        raise ConfigError(f"A shard needs the array 'values', found {sorted(shard.arrays)}.")
    arrays = {name: np.asarray(shard.arrays[name]) for name in sorted(shard.arrays)}
    for name, array in arrays.items():
        kinds = BYTE_DTYPES if space.view in FILM_VIEWS else VALUE_DTYPES
        allowed = kinds if name == "values" else ARRAY_DTYPES
        if not name.isidentifier() or array.dtype.name not in allowed:
            raise ConfigError(f"Array {name!r}: expected {allowed}, found {array.dtype.name}.")
        if array.ndim < 1 or len(array) != n or 0 in array.shape:
            raise ConfigError(f"Array {name!r}: expected {n} rows, found shape {array.shape}.")
        if array.dtype.kind == "f":
            _check_finite(name, array, shard.item_ids)
    values = arrays["values"]
    dims = {"vector": (2, 3), "files": (2,)}.get(space.view, (3,))
    if values.ndim not in dims:
        raise ConfigError(
            f"Values of a {space.view} have {' or '.join(map(str, dims))} axes, items first; "
            f"found shape {values.shape}."
        )
    if space.columns and len(space.columns) != values.shape[-1]:
        raise ConfigError(
            f"The space names {len(space.columns)} columns, the values have {values.shape[-1]}."
        )
    if space.view == "pixels":
        if "mask" in arrays:
            raise ConfigError("Pixels have no steps or parts that a mask could mark.")
    elif values.ndim == 3:
        mask = arrays.setdefault("mask", np.ones(values.shape[:2], dtype=bool))
        if mask.dtype != np.bool_ or mask.shape != values.shape[:2]:
            raise ConfigError(
                f"The mask must be bool {values.shape[:2]}, found {mask.dtype} {mask.shape}."
            )
        for row in np.flatnonzero(~mask.any(axis=1)):
            raise DataError(
                f"Item {shard.item_ids[row]!r} has no real step or part; give it as a reject."
            )
        arrays["values"] = np.where(mask[..., None], values, values.dtype.type(0))
    elif "mask" in arrays:
        raise ConfigError(f"Values of shape {values.shape} have no parts that a mask could mark.")
    return dict(sorted(arrays.items()))


def vector_hashes(arrays: Mapping[str, np.ndarray]) -> list[str]:
    """SHA-256 of every item's values and mask up to its last real step.

    Trailing padding belongs to the shard, not to the item, and does not enter.
    """
    values, mask = arrays["values"], arrays.get("mask")
    little = values.dtype.newbyteorder("<")
    hashes = []
    for row in range(len(values)):
        item, marks = values[row], b""
        if mask is not None:
            end = int(np.flatnonzero(mask[row])[-1]) + 1
            item, marks = item[:end], mask[row, :end].tobytes()
        digest = hashlib.sha256(f"{values.dtype.name} {item.shape} ".encode())
        digest.update(np.ascontiguousarray(item, dtype=little).tobytes())
        digest.update(marks)
        hashes.append(digest.hexdigest())
    return hashes


def plain_facts(facts: Mapping[str, Sequence[Any]], n: int) -> dict[str, list[Any]]:
    """Check the extra columns and turn numpy scalars into Python's.

    Raises:
        ConfigError: A reserved name, a wrong length, or a value that is no plain scalar.
    """
    checked = {}
    for name, column in sorted(facts.items()):
        if name in ITEM_COLUMNS or len(column) != n:
            raise ConfigError(
                f"Fact {name!r}: expected {n} values under a name outside {ITEM_COLUMNS}, "
                f"found {len(column)}."
            )
        values = [v.item() if isinstance(v, np.generic) else v for v in column]
        for value in values:
            if not isinstance(value, (str, int, float, bool, type(None))):
                raise ConfigError(
                    f"Fact {name!r}: expected text, number, bool or None, found "
                    f"{type(value).__name__}."
                )
        checked[name] = values
    return checked


def column_names(table: Any) -> tuple[str, ...]:
    """Names of the columns of a table, if all are text; an array has none."""
    names = tuple(getattr(table, "columns", ()))
    return tuple(map(str, names)) if all(isinstance(name, str) for name in names) else ()


def _check_items(shard: EncodedShard) -> None:
    ids = [*shard.item_ids, *(reject.item_id for reject in shard.rejects)]
    if len(set(ids)) != len(ids):
        raise ConfigError("An item may stand once in a shard, as item or as reject.")
    for item in ids:
        if not isinstance(item, str) or not 0 < len(item) <= 256 or not item.isprintable():
            raise ConfigError(f"An item id is 1 to 256 printable characters, found {item!r}.")
    if len(shard.source_hashes) != len(shard.item_ids):
        raise ConfigError(
            f"{len(shard.item_ids)} items, but {len(shard.source_hashes)} source hashes."
        )
    for reject in shard.rejects:
        if reject.stage not in STAGES:
            raise ConfigError(f"A reject's stage is one of {STAGES}, found {reject.stage!r}.")


def _check_finite(name: str, array: np.ndarray, item_ids: Sequence[str]) -> None:
    finite = np.isfinite(array).reshape(len(array), -1).all(axis=1)
    if not finite.all():
        row = int(np.flatnonzero(~finite)[0])
        raise DataError(
            f"Array {name!r} of item {item_ids[row]!r} holds NaN or infinity, and "
            f"{int((~finite).sum())} of {len(array)} items do; give them as rejects with stage "
            "'nonfinite'."
        )
