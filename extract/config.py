"""ExtractConfig: every option of `cm2 extract`, its default and its meaning."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

MODALITIES = ("ehr", "cxr", "report")


def _fraction(value: Any) -> Any:
    """Read `0.1%` as 0.001; leave anything else to pydantic."""
    if isinstance(value, str) and value.strip().endswith("%"):
        return float(value.strip()[:-1]) / 100
    return value


class ExtractConfig(BaseModel):
    """What stage one reads, which rules it follows and where it stores the result.

    `cohort`, `dataset`, `splits`, `split_seed`, `readm_rule` and `death_rule` shape the table of
    stays, which is written once per cohort name; the other fields shape the stores.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    data: Path = Field(
        description="Root folder of the source tables: MIMIC-III, or MIMIC-IV (with its chest "
        "films and reports under files/)."
    )
    cache: Path = Field(default=Path("cm2-cache"), description="Cache folder; made when absent.")
    modality: tuple[str, ...] = Field(
        default=("ehr",), description="What to extract: ehr, cxr, report, or all; may be repeated."
    )
    dataset: Literal["auto", "mimic3", "mimic4"] = Field(
        default="auto",
        description="Layout of the source; auto reads it off the tables that are present.",
    )
    cohort: str = Field(
        default="default",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$",
        description="Name of the cohort inside the cache; cohorts share every encoded vector.",
    )
    splits: Path | None = Field(
        default=None,
        description="Your own split by patient: a table with the columns subject_id and split "
        "(train, val or test), or a folder with two header-less files of subject_id,0|1 lines, "
        "testset*.csv and valset*.csv.",
    )
    split_seed: int = Field(
        default=0,
        ge=0,
        description="Seed of the hashed 70/10/20 split by patient; ignored with --splits.",
    )
    readm_rule: Literal["icu", "hospital"] = Field(
        default="icu",
        description="What counts as a readmission within 30 days: icu, the patient's next eligible "
        "ICU admission (the published rule), or hospital, any next hospital admission.",
    )
    death_rule: Literal["deathtime", "dod"] = Field(
        default="deathtime",
        description="What counts as death in hospital: deathtime, the admission's time of death or "
        "its flag, or dod, date or time of death between admission and discharge (the published "
        "rule, which also counts deaths later on the day of discharge).",
    )
    encoder: str | None = Field(
        default=None,
        description="Encoder of films or reports by name; by default the one of the paper.",
    )
    weights: tuple[str, ...] = Field(
        default=(),
        description="Encoder weights as PATH or random:SEED, preceded by MODALITY= when several "
        "modalities are extracted; required on anything but the synthetic demo.",
    )
    preset: Literal["corrected", "reference"] = Field(
        default="corrected",
        description="corrected: known defects of the published pipeline mended (59 columns); "
        "reference: the published behaviour, cell by cell (76 columns).",
    )
    step_hours: float = Field(
        default=2.0,
        gt=0,
        le=48,
        allow_inf_nan=False,
        description="Width of one bin of the series, hours.",
    )
    until_hours: float = Field(
        default=48.0,
        gt=0,
        le=48,
        allow_inf_nan=False,
        description="End of the series in hours after ICU entry; at most 48, the prediction time.",
    )
    max_reject: float = Field(
        default=0.001,
        ge=0,
        le=1,
        description="Largest tolerated share of unreadable items, as 0.001 or 0.1%.",
    )
    limit: int | None = Field(
        default=None,
        ge=1,
        description="Encode at most this many items; a later full call continues.",
    )
    device: str = Field(
        default="auto", description="Where encoders run: auto, cpu, cuda or cuda:N."
    )

    @field_validator("max_reject", mode="before")
    @classmethod
    def _read_fraction(cls, value: Any) -> Any:
        return _fraction(value)

    @field_validator("modality", mode="before")
    @classmethod
    def _read_modality(cls, value: Any) -> Any:
        words = [value] if isinstance(value, str) else list(value)
        return tuple(part.strip() for word in words for part in str(word).split(",") if part)

    @field_validator("modality")
    @classmethod
    def _known_modality(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = sorted(set(value) - {*MODALITIES, "all"})
        if unknown or not value:
            raise ValueError(
                f"expected one or more of {', '.join(MODALITIES)}, all; found {unknown or 'none'}"
            )
        return MODALITIES if "all" in value else tuple(dict.fromkeys(value))


__all__ = ["MODALITIES", "ExtractConfig"]
