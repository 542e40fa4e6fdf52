"""MIMIC-IV 1.0 to 3.x: where its files lie, how its columns are called, which release it is."""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar, Literal

import polars as pl

from .source import EventTable, Need, Source
from .tables import find


class Mimic4Source(Source):
    """MIMIC-IV or its open demo: folders hosp and icu (and core in 1.0), or one flat folder."""

    dataset: ClassVar[Literal["mimic3", "mimic4"]] = "mimic4"
    needs: ClassVar[tuple[Need, ...]] = (
        Need(
            "hosp/patients",
            ("subject_id", "gender", "anchor_age", "anchor_year", "dod"),
            "age, sex",
        ),
        Need(
            "hosp/admissions",
            (
                "subject_id",
                "hadm_id",
                "admittime",
                "dischtime",
                "deathtime",
                "race",
                "hospital_expire_flag",
            ),
            "labels",
        ),
        Need(
            "icu/icustays",
            (
                "subject_id",
                "hadm_id",
                "stay_id",
                "first_careunit",
                "last_careunit",
                "intime",
                "outtime",
                "los",
            ),
            "stays",
        ),
        Need(
            "icu/chartevents",
            (
                "subject_id",
                "hadm_id",
                "stay_id",
                "itemid",
                "charttime",
                "value",
                "valuenum",
                "valueuom",
            ),
            "ehr",
        ),
        Need(
            "hosp/labevents",
            ("subject_id", "hadm_id", "itemid", "charttime", "value", "valuenum", "valueuom"),
            "ehr",
        ),
    )

    def _layout(self) -> str:
        path = find(self.root, "hosp/patients")
        if path is not None and path.parent.name.lower() == "core":
            return "1.x"
        return "2.x or 3.x" if self.table("hosp/admissions").has("race") else "1.x"

    @cached_property
    def patients(self) -> pl.DataFrame:
        """subject_id, sex, dod, anchor_age, anchor_year."""
        return self._read(
            "hosp/patients",
            {
                "subject_id": ("subject_id", "id"),
                "sex": ("gender", "text"),
                "dod": ("dod", "time"),
                "anchor_age": ("anchor_age", "id"),
                "anchor_year": ("anchor_year", "id"),
            },
        )

    @cached_property
    def admissions(self) -> pl.DataFrame:
        """subject_id, hadm_id, admittime, dischtime, deathtime, race, expire_flag."""
        race = "race" if self.table("hosp/admissions").has("race") else "ethnicity"
        return self._read(
            "hosp/admissions",
            {
                "subject_id": ("subject_id", "id"),
                "hadm_id": ("hadm_id", "id"),
                "admittime": ("admittime", "time"),
                "dischtime": ("dischtime", "time"),
                "deathtime": ("deathtime", "time"),
                "race": (race, "text"),
                "expire_flag": ("hospital_expire_flag", "id"),
            },
        )

    @cached_property
    def icustays(self) -> pl.DataFrame:
        """subject_id, hadm_id, stay_id, intime, outtime, los_days, unit, moved."""
        frame = self._read(
            "icu/icustays",
            {
                "subject_id": ("subject_id", "id"),
                "hadm_id": ("hadm_id", "id"),
                "stay_id": ("stay_id", "id"),
                "intime": ("intime", "time"),
                "outtime": ("outtime", "time"),
                "los_days": ("los", "number"),
                "unit": ("first_careunit", "text"),
                "last_unit": ("last_careunit", "text"),
            },
        )
        same = pl.col("unit").eq(pl.col("last_unit"))
        return frame.with_columns(moved=~same.fill_null(value=False)).drop("last_unit")

    @property
    def age(self) -> pl.Expr:
        """Anchor age plus the years from the anchor year to ICU entry; 91 stands for over 89."""
        return (pl.col("anchor_age") + pl.col("intime").dt.year() - pl.col("anchor_year")).cast(
            pl.Float64
        )

    @property
    def events(self) -> tuple[EventTable, ...]:
        """Charted values and laboratory values."""
        return (
            EventTable(
                self.table("icu/chartevents"), ("mimic4_icu",), "stay_id", None, 313_645_063
            ),
            EventTable(self.table("hosp/labevents"), ("mimic4_lab",), None, None, 118_171_367),
        )


__all__ = ["Mimic4Source"]
