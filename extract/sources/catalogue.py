"""What is read of a release: the variables, and which item ids measure them.

The published catalogue is items.csv and variables.csv beside this file; `own_catalogue` lays the
user's rows over it. A catalogue is always handed on, never looked up.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
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

    @property
    def level_names(self) -> tuple[str, ...]:
        """Levels as they stand in names of columns."""
        return tuple(f"{level:g}" for level in self.levels)


@dataclass(frozen=True)
class Item:
    """One item id of a source system and what it measures.

    Args:
        source: Source system, such as `mimic3_carevue`.
        itemid: The id.
        variable: Position in `Catalogue.variables`.
        unit: Unit in which it is charted.
        label: Its name in the source's dictionary.
    """

    source: str
    itemid: int
    variable: int
    unit: str
    label: str


@dataclass(frozen=True)
class Catalogue:
    """Variables in the order of their columns, and the item map.

    Args:
        preset: `reference` is the published item list and cleaning; `corrected` is without urine
            and other fluids among the blood values, with capillary refill of the newer bedside
            system, the set inspired oxygen of the older one, manual diastolic pressure and later
            blood glucose.
        variables: The variables; the published 17 come first, alphabetical, pH last.
        items: The item map of every source system.
        own: Fingerprint of the user's rows; empty when there are none.
    """

    preset: Preset
    variables: tuple[Variable, ...]
    items: tuple[Item, ...]
    own: str = ""

    def items_of(self, sources: Iterable[str]) -> list[Item]:
        """Return the item map of some source systems."""
        wanted = set(sources)
        return [item for item in self.items if item.source in wanted]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the variables."""
        return tuple(variable.name for variable in self.variables)

    def place(self, name: str) -> int:
        """Position of a variable."""
        return self.names.index(name)

    def columns(self) -> tuple[str, ...]:
        """Return the names of the grid's columns: 59 corrected, 76 reference, more with own."""
        values: list[str] = []
        masks: list[str] = []
        for variable in self.variables:
            reference = self.preset == "reference"
            name = variable.reference_name if reference else variable.name
            levels = variable.reference_levels if reference else variable.level_names
            values += [f"{name}->{level}" for level in levels] if variable.categorical else [name]
            masks.append(f"mask->{name}")
        return (*values, *masks)


def parts(cell: str) -> list[str]:
    """Split a cell that lists several words."""
    return cell.split("|") if cell else []


def rows_of(name: str) -> list[dict[str, str]]:
    """Read one of the tables beside this file."""
    text = files(__package__).joinpath(name).read_text(encoding="utf-8")
    return list(csv.DictReader(io.StringIO(text)))


@cache
def published(preset: Preset) -> Catalogue:
    """Return the published catalogue under a preset."""
    variables = tuple(
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
            levels=tuple(float(level) for level in parts(row["levels"])),
            texts={
                text.lower(): float(level)
                for text, level in (part.rsplit("=", 1) for part in parts(row["texts"]))
            },
            reference_levels=tuple(parts(row["reference_levels"])),
            reference_normal=row["reference_normal"],
        )
        for row in rows_of("variables.csv")
    )
    position = {variable.name: index for index, variable in enumerate(variables)}
    items = tuple(
        Item(
            row["source"], int(row["itemid"]), position[row["variable"]], row["unit"], row["label"]
        )
        for row in rows_of("items.csv")
        if row["preset"] in ("both", preset)
    )
    return Catalogue(preset, variables, items)


__all__ = ["Catalogue", "Item", "Preset", "Variable", "parts", "published", "rows_of"]
