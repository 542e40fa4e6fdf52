"""Series whose steps are the times of measurement, taken apart for models that want no grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from torch import Tensor

from ..errors import ConfigError
from .space import HOURS

_MARKS = ("mask->", "measured:")
_HELPERS = (*_MARKS, "known:")


class Events(TypedDict):
    """Measurements of one modality at their own times; B stays, T times, V columns, C labels.

    Keys:
        times: float32 [B, T], hours from entry, ascending; zero where the mask is false.
        values: float32 [B, T, V], the last measurement of each until then, not normalised.
        measured: bool [B, T, V], whether it was measured at this very time.
        mask: bool [B, T], true for a real time.
        columns: Names of the V columns; a category has one per level.
        y: float32 [B, C] of 0, 1, NaN where unknown.
        labels: Names of the columns of y, C.
        stay_id, subject_id: B ids.
    """

    times: Tensor
    values: Tensor
    measured: Tensor
    mask: Tensor
    columns: tuple[str, ...]
    y: Tensor
    labels: tuple[str, ...]
    stay_id: list[Any]
    subject_id: list[Any]


def taken_apart(
    modality: str, x: Tensor, mask: Tensor, columns: Sequence[str]
) -> tuple[Tensor, Tensor, Tensor, tuple[str, ...]]:
    """Split series into times [B, T], values and measured [B, T, V], and names of the V columns.

    Args:
        modality: Its name, for the message.
        x: Series, [B, T, D].
        mask: Real steps, [B, T].
        columns: Names of the D columns.

    Raises:
        ConfigError: The series stand on a grid.
    """
    if HOURS not in columns[:1]:
        raise ConfigError(
            f"{modality} is stored on a grid or without times. Extract it once more with "
            f"--step-hours 0, which keeps every measurement at its own time, and name that space: "
            f"{modality}@SPACE."
        )
    told = marks(columns)
    kept = [i for i, place in enumerate(told) if place >= 0]
    measured = (x[..., [told[i] for i in kept]] > 0) & mask[..., None]
    return x[..., 0], x[..., kept], measured, tuple(columns[i] for i in kept)


def marks(columns: Sequence[str]) -> list[int]:
    """Place of the column that tells where each column was measured, -1 where none does.

    Args:
        columns: Names of the columns; levels of a category share one that tells.
    """
    place = {name: i for i, name in enumerate(columns)}
    return [-1 if name.startswith(_HELPERS) else _mark(name, place) for name in columns]


def _mark(name: str, place: Mapping[str, int]) -> int:
    words = [mark + part for part in (name, name.partition("->")[0]) for mark in _MARKS]
    return next((place[word] for word in words if word in place), -1)


__all__ = ["Events", "marks", "taken_apart"]
