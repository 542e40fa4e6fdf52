"""What every source of ICU stays offers: four tables under one set of names, and its events."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

import polars as pl

from .cells import Kind
from .releases import Release, check, recognise
from .tables import Table, find, open_table

SYNTHETIC_MARKER = "SYNTHETIC.json"


@dataclass(frozen=True)
class EventTable:
    """A table of timed measurements and how its columns are called.

    Args:
        table: The file.
        systems: Source systems in items.csv whose items it holds.
        stay: Column with the id of the ICU stay; None for laboratory tables.
        error: Column that is 1 where a value was marked as wrong; None where there is none.
        rows: Rows in the full release, for estimates of time.
    """

    table: Table
    systems: tuple[str, ...]
    stay: str | None
    error: str | None
    rows: int


@dataclass(frozen=True)
class Need:
    """A table that is read, with the columns wanted from it, for checks before the work."""

    name: str
    columns: tuple[str, ...]
    purpose: str


@dataclass(frozen=True)
class Source(ABC):
    """One release of one data set in one folder; subclasses know where files and columns are.

    Args:
        root: Folder of the release.
    """

    root: Path
    dataset: ClassVar[Literal["mimic3", "mimic4"]]
    needs: ClassVar[tuple[Need, ...]]
    _tables: dict[str, Table] = field(default_factory=dict, repr=False, compare=False)

    @property
    def synthetic(self) -> bool:
        """Whether the tree was made by `cm2 demo`."""
        return (self.root / SYNTHETIC_MARKER).is_file()

    def table(self, name: str) -> Table:
        """Open a table of this release once."""
        if name not in self._tables:
            self._tables[name] = open_table(self.root, name)
        return self._tables[name]

    def has(self, name: str) -> bool:
        """Tell whether a table is there."""
        return find(self.root, name) is not None

    def _read(self, name: str, wanted: Mapping[str, tuple[str, Kind]]) -> pl.DataFrame:
        """Read columns `(as written, kind)` under the names of the mapping."""
        frame = self.table(name).read(dict(wanted.values()))
        return frame.select(pl.col(wanted[name][0]).alias(name) for name in wanted)

    @property
    def release(self) -> str:
        """Release, told by the lengths of the small tables, else as far as the layout tells it."""
        return self.known.name if self.known is not None else self._layout()

    @cached_property
    def known(self) -> Release | None:
        """The release that the small tables belong to; None for another one or synthetic data."""
        return None if self.synthetic else recognise(self.dataset, self.lengths)

    @cached_property
    def lengths(self) -> dict[str, int]:
        """Rows of the small tables."""
        return {
            "icustays": self.icustays.height,
            "admissions": self.admissions.height,
            "patients": self.patients.height,
        }

    def check_lengths(self, lengths: Mapping[str, int], *, allow: bool) -> None:
        """Refuse tables that are not as long as in their release.

        Args:
            lengths: Table, with or without folder, to its rows.
            allow: Only warn.

        Raises:
            DataError: A length deviates by more than half a percent.
        """
        bare = {name.rpartition("/")[2]: rows for name, rows in lengths.items()}
        check(self.dataset, self.known, bare, allow=allow)

    @abstractmethod
    def _layout(self) -> str:
        """What the layout alone tells of the release."""

    @cached_property
    @abstractmethod
    def patients(self) -> pl.DataFrame:
        """subject_id, sex, dod, and what `age` needs."""

    @cached_property
    @abstractmethod
    def admissions(self) -> pl.DataFrame:
        """subject_id, hadm_id, admittime, dischtime, deathtime, race, expire_flag."""

    @cached_property
    @abstractmethod
    def icustays(self) -> pl.DataFrame:
        """subject_id, hadm_id, stay_id, intime, outtime, los_days, unit, moved."""

    @property
    @abstractmethod
    def age(self) -> pl.Expr:
        """Age at ICU entry in years, over the joined tables."""

    @property
    @abstractmethod
    def events(self) -> tuple[EventTable, ...]:
        """The tables with the measurements of the 17 variables."""


__all__ = ["SYNTHETIC_MARKER", "EventTable", "Need", "Source"]
