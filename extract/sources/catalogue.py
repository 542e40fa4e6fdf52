"""The item map and the 17 variables, read from items.csv and variables.csv beside this file."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

Preset = Literal["corrected", "reference"]


@dataclass(frozen=True)
class Variable:
    """One measured quantity.

    Args:
        name: Its name; the column name of a number.
        reference_name: Its name in trees of mimic3-benchmarks (`Glascow` is their spelling).
        categorical: Whether it becomes one-hot columns.
        unit: Unit after cleaning.
        normal: What stands for it before its first observation; a level of a categorical one.
        low, high: Values outside are no measurements and become missing.
        valid_low, valid_high: Values between these and the outer bounds are moved to them.
        levels: Values of a categorical variable, ascending, one column each.
        texts: Charted text in lower case to level.
        reference_levels: One-hot columns of the reference, spellings kept apart, in its order.
        reference_normal: The reference level that stands before the first observation.
    """

    name: str
    reference_name: str
    categorical: bool
    unit: str
    normal: float
    low: float
    valid_low: float
    valid_high: float
    high: float
    levels: tuple[float, ...]
    texts: Mapping[str, float]
    reference_levels: tuple[str, ...]
    reference_normal: str


@dataclass(frozen=True)
class Item:
    """One item id of a source system and what it measures.

    Args:
        source: Source system, such as `mimic3_carevue`.
        itemid: The id.
        variable: Position in `variables()`.
        unit: Unit in which it is charted.
        label: Its name in the source's dictionary.
    """

    source: str
    itemid: int
    variable: int
    unit: str
    label: str


def _rows(name: str) -> list[dict[str, str]]:
    text = files(__package__).joinpath(name).read_text(encoding="utf-8")
    return list(csv.DictReader(io.StringIO(text)))


def _parts(cell: str) -> list[str]:
    return cell.split("|") if cell else []


@cache
def variables() -> tuple[Variable, ...]:
    """Return the variables in the order of their columns: alphabetical, pH last."""
    return tuple(
        Variable(
            name=row["variable"],
            reference_name=row["reference_name"],
            categorical=row["kind"] == "category",
            unit=row["unit"],
            normal=float(row["normal"]),
            low=float(row["outlier_low"]),
            valid_low=float(row["valid_low"]),
            valid_high=float(row["valid_high"]),
            high=float(row["outlier_high"]),
            levels=tuple(float(level) for level in _parts(row["levels"])),
            texts={
                text.lower(): float(level)
                for text, level in (part.rsplit("=", 1) for part in _parts(row["texts"]))
            },
            reference_levels=tuple(_parts(row["reference_levels"])),
            reference_normal=row["reference_normal"],
        )
        for row in _rows("variables.csv")
    )


def items(sources: Iterable[str], preset: Preset) -> list[Item]:
    """Return the item map of some source systems.

    Args:
        sources: Source systems, the column `source` of items.csv.
        preset: `reference` is the published list; `corrected` is without urine and other fluids
            among the blood values, with capillary refill of the newer bedside system, the set
            inspired oxygen of the older one, manual diastolic pressure and later blood glucose.
    """
    position = {variable.name: index for index, variable in enumerate(variables())}
    wanted = set(sources)
    return [
        Item(
            row["source"],
            int(row["itemid"]),
            position[row["variable"]],
            row["unit"],
            row["label"],
        )
        for row in _rows("items.csv")
        if row["source"] in wanted and row["preset"] in ("both", preset)
    ]


def columns(preset: Preset) -> tuple[str, ...]:
    """Return the names of the grid's columns: 59 corrected, 76 reference."""
    values: list[str] = []
    masks: list[str] = []
    for variable in variables():
        name = variable.reference_name if preset == "reference" else variable.name
        levels = (
            variable.reference_levels
            if preset == "reference"
            else tuple(f"{level:g}" for level in variable.levels)
        )
        values += [f"{name}->{level}" for level in levels] if variable.categorical else [name]
        masks.append(f"mask->{name}")
    return (*values, *masks)


__all__ = ["Item", "Preset", "Variable", "columns", "items", "variables"]
