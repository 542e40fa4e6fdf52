"""Subgroups of stays by columns of the cohort: categories, or numbers cut at given values."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from ...errors import ConfigError
from ..config import unknown

UNKNOWN = "unknown"
MOST_GROUPS = 20


class Grouping(NamedTuple):
    """How stays are grouped.

    Attributes:
        column: Column of the stays.
        cuts: Values that begin a new group, rising; empty takes every value as a group.
    """

    column: str
    cuts: tuple[float, ...] = ()

    @classmethod
    def parse(cls, text: str, columns: Sequence[str]) -> Grouping:
        """Read `sex`, `age:65` or `age:40/65`.

        Args:
            text: What was asked for.
            columns: Those of the cohort; one whose own name holds a colon is taken as it is.

        Raises:
            ConfigError: Cuts that are no rising numbers, or no such column.
        """
        offered = tuple(c for c in columns if c not in ("stay_id", "subject_id"))
        if text in offered:
            return cls(text)
        column, colon, rest = text.rpartition(":") if ":" in text else (text, "", "")
        try:
            cuts = tuple(float(part) for part in rest.split("/")) if colon else ()
        except ValueError:
            cuts = (math.nan,)
        rising = all(a < b for a, b in itertools.pairwise(cuts))
        if not column or not rising or not all(map(math.isfinite, cuts)):
            raise ConfigError(
                f"--by expects COLUMN or COLUMN:CUT/CUT with rising numbers, such as sex,age:65, "
                f"found {text!r}."
            )
        if column not in offered:
            raise ConfigError(f"--by: {unknown('column', column, offered)}")
        return cls(column, cuts)


def group_names(stays: pa.Table, ids: Sequence[Any], grouping: Grouping) -> list[str]:
    """Name the subgroup of each of some stays.

    Args:
        stays: The cohort's table.
        ids: Stays.
        grouping: How.

    Returns:
        Names such as `F`, `age < 65`, `age 40 to < 65`, `age >= 65`, `unknown`.

    Raises:
        ConfigError: Cuts of a column that holds no numbers, or too many values.
    """
    values = stays[grouping.column].to_pylist()
    by_stay = dict(zip(stays["stay_id"].to_pylist(), values, strict=True))
    found = [by_stay.get(stay) for stay in ids]
    if grouping.cuts:
        wrong = next((v for v in found if not isinstance(v, int | float | None)), None)
        if wrong is not None:
            raise ConfigError(
                f"--by {grouping.column} cannot be cut at numbers: it holds {wrong!r}. Give the "
                "column alone."
            )
        return [_range(grouping, value) for value in found]
    # NaN alone differs from itself
    names = [UNKNOWN if value is None or value != value else str(value) for value in found]
    if len(set(names)) > MOST_GROUPS:
        numbers = all(isinstance(value, int | float | None) for value in found)
        raise ConfigError(
            f"--by {grouping.column} makes {len(set(names))} groups, more than {MOST_GROUPS}. "
            + (
                f"Cut it, for example --by {grouping.column}:50."
                if numbers
                else "Take a column of fewer different values."
            )
        )
    return names


def _range(grouping: Grouping, value: float | None) -> str:
    if value is None or math.isnan(value):
        return UNKNOWN
    column, cuts = grouping
    i = sum(value >= cut for cut in cuts)
    if i == 0:
        return f"{column} < {cuts[0]:g}"
    if i == len(cuts):
        return f"{column} >= {cuts[-1]:g}"
    return f"{column} {cuts[i - 1]:g} to < {cuts[i]:g}"


__all__ = ["UNKNOWN", "Grouping", "group_names"]
