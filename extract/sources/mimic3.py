"""MIMIC-III: where its files lie, how its columns are called, which release it is."""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar, Literal

import polars as pl

from .source import EventTable, Need, Source

YEAR_DAYS = 365.2425
AGE_OVER_89 = 91.4
"""Median age of patients over 89, whose birth dates the release moves back by 300 years."""


class Mimic3Source(Source):
    """MIMIC-III 1.4 or its open demo: one folder of tables."""

    dataset: ClassVar[Literal["mimic3", "mimic4"]] = "mimic3"
    needs: ClassVar[tuple[Need, ...]] = (
        Need("patients", ("subject_id", "gender", "dob", "dod"), "age, sex"),
        Need(
            "admissions",
            (
                "subject_id",
                "hadm_id",
                "admittime",
                "dischtime",
                "deathtime",
                "ethnicity",
                "hospital_expire_flag",
            ),
            "labels",
        ),
        Need(
            "icustays",
            (
                "subject_id",
                "hadm_id",
                "icustay_id",
                "first_careunit",
                "last_careunit",
                "first_wardid",
                "last_wardid",
                "intime",
                "outtime",
                "los",
            ),
            "stays",
        ),
        Need(
            "chartevents",
            (
                "subject_id",
                "hadm_id",
                "icustay_id",
                "itemid",
                "charttime",
                "value",
                "valuenum",
                "valueuom",
                "error",
            ),
            "ehr",
        ),
        Need(
            "labevents",
            ("subject_id", "hadm_id", "itemid", "charttime", "value", "valuenum", "valueuom"),
            "ehr",
        ),
    )

    def _layout(self) -> str:
        return "1.x"

    @cached_property
    def patients(self) -> pl.DataFrame:
        """subject_id, sex, dod, dob."""
        return self._read(
            "patients",
            {
                "subject_id": ("subject_id", "id"),
                "sex": ("gender", "text"),
                "dod": ("dod", "time"),
                "dob": ("dob", "time"),
            },
        )

    @cached_property
    def admissions(self) -> pl.DataFrame:
        """subject_id, hadm_id, admittime, dischtime, deathtime, race, expire_flag."""
        return self._read(
            "admissions",
            {
                "subject_id": ("subject_id", "id"),
                "hadm_id": ("hadm_id", "id"),
                "admittime": ("admittime", "time"),
                "dischtime": ("dischtime", "time"),
                "deathtime": ("deathtime", "time"),
                "race": ("ethnicity", "text"),
                "expire_flag": ("hospital_expire_flag", "id"),
            },
        )

    @cached_property
    def icustays(self) -> pl.DataFrame:
        """subject_id, hadm_id, stay_id, intime, outtime, los_days, unit, moved."""
        frame = self._read(
            "icustays",
            {
                "subject_id": ("subject_id", "id"),
                "hadm_id": ("hadm_id", "id"),
                "stay_id": ("icustay_id", "id"),
                "intime": ("intime", "time"),
                "outtime": ("outtime", "time"),
                "los_days": ("los", "number"),
                "unit": ("first_careunit", "text"),
                "last_unit": ("last_careunit", "text"),
                "ward": ("first_wardid", "text"),
                "last_ward": ("last_wardid", "text"),
            },
        )
        same = pl.col("unit").eq(pl.col("last_unit")) & pl.col("ward").eq(pl.col("last_ward"))
        return frame.with_columns(moved=~same.fill_null(value=False)).drop(
            "last_unit", "ward", "last_ward"
        )

    @property
    def age(self) -> pl.Expr:
        """Years from birth to ICU entry; `AGE_OVER_89` for birth dates moved by 300 years."""
        years = (pl.col("intime") - pl.col("dob")).dt.total_seconds() / (86400 * YEAR_DAYS)
        return pl.when(years > 120).then(AGE_OVER_89).otherwise(years)

    @property
    def events(self) -> tuple[EventTable, ...]:
        """Charted values of both bedside systems, and laboratory values."""
        return (
            EventTable(
                self.table("chartevents"),
                ("mimic3_carevue", "mimic3_metavision"),
                stay="icustay_id",
                error="error",
                rows=330_712_483,
            ),
            EventTable(self.table("labevents"), ("mimic3_lab",), None, None, 27_854_055),
        )


__all__ = ["AGE_OVER_89", "Mimic3Source"]
