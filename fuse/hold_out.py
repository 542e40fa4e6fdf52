"""Which rows choose the epoch: a share of the groups, of those with and without an event."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, DataError, SchemaError
from .random import order, stay_keys


def hold_out(y: NDArray[np.float32], groups: Any, fraction: float, seed: int) -> NDArray[np.bool_]:
    """Choose the groups whose rows are for validation.

    Args:
        y: Targets of 0 and 1, ``(N, C)``.
        groups: Group of each row; None for one each.
        fraction: Share of the groups, in (0, 1).
        seed: Of the choice.

    Returns:
        Which rows are for validation, ``(N,)``.

    Raises:
        ConfigError: No such share.
        SchemaError: The groups are no plain names, or not as many as rows.
        DataError: One side would lack a class.
    """
    if not 0 < fraction < 1:
        raise ConfigError(f"validation_fraction must lie between 0 and 1, found {fraction!r}.")
    if groups is not None and len(groups) != len(y):
        raise SchemaError(f"Expected as many groups as rows, {len(y)}; found {len(groups)}.")
    try:
        given = np.arange(len(y)) if groups is None else groups
        names, index = np.unique(given, return_inverse=True)
        if names.dtype.kind == "f" and np.isnan(names).any():
            raise SchemaError(
                "Expected a group for every row; found NaN. Give a row of which no patient is "
                "known a group of its own."
            )
    except TypeError:
        kinds = sorted({type(group).__name__ for group in groups})
        raise SchemaError(
            "Expected a group for every row, all numbers or all text; found "
            f"{' and '.join(kinds)}. Give a row of which no patient is known a group of its own."
        ) from None
    event = np.zeros(len(names), bool)
    np.logical_or.at(event, index, y.any(1))
    chosen = np.zeros(len(names), bool)
    for which in (True, False):
        members = np.flatnonzero(event == which)
        shuffled = members[order(seed, "hold out", stay_keys(names[members].tolist()))]
        chosen[shuffled[: max(round(fraction * len(members)), 1) if len(members) > 1 else 0]] = True
    held = chosen[index]
    for label, column in enumerate(y[~held].T):
        if not held.any() or len(set(column.tolist())) < 2:
            found = np.unique(y[:, label], return_counts=True)[1].tolist()
            raise DataError(
                f"Expected both classes in the training and some rows of each to choose the epoch "
                f"by; found {len(names)} groups and {'one class' if len(found) < 2 else 'classes'} "
                f"of {' and '.join(map(str, found))} rows."
            )
    return held


__all__ = ["hold_out"]
