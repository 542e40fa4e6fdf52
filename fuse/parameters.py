"""Parameters of the classifier as JSON, as they stand in its file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import BaseModel


def plain(value: Any) -> Any:
    """A number of Python's own for one of numpy, which a grid search hands in."""
    return value.item() if isinstance(value, np.generic) else value


def encode(value: Any) -> Any:
    """JSON of a parameter; slices and arrays within `modalities` included."""
    if isinstance(value, slice):
        return {"slice": [value.start, value.stop, value.step]}
    if isinstance(value, Mapping):
        return {"map": {str(name): encode(part) for name, part in value.items()}}
    if isinstance(value, range):
        value = list(value)
    if not isinstance(value, np.generic) and hasattr(value, "tolist"):  # an array, or df.columns
        value = value.tolist()
    if isinstance(value, tuple):
        return {"tuple": [encode(part) for part in value]}
    if isinstance(value, list):
        return [encode(part) for part in value]
    if isinstance(value, BaseModel):
        return encode(value.model_dump(mode="json"))
    return plain(value)


def decode(value: Any) -> Any:
    """Inverse of `encode`."""
    if isinstance(value, Mapping):
        if "slice" in value:
            return slice(*value["slice"])
        if "tuple" in value:
            return tuple(decode(part) for part in value["tuple"])
        return {name: decode(part) for name, part in value["map"].items()}
    return [decode(part) for part in value] if isinstance(value, list) else value


__all__ = ["decode", "encode", "plain"]
