"""ExtractConfig: every option of `cm2 extract`, its default and its meaning."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

MODALITIES = ("ehr", "cxr", "report")
_MOST_WORKERS = 1024


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
    from_tree: Path | None = Field(
        default=None,
        description="An existing tree of mimic3-benchmarks or MedFuse to import instead of raw "
        "tables: its folder root (per patient), one of its task folders, or both side by side.",
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
    allow_count_drift: bool = Field(
        default=False,
        description="Go on although a table has over 0.5 % more or fewer rows than its release.",
    )
    items: Path | None = Field(
        default=None,
        description="Your own rows for the item map: a table with the columns of items.csv "
        "(source, itemid, variable, unit, label); a row replaces that of the same source and item.",
    )
    variables: Path | None = Field(
        default=None,
        description="Your own rows for the list of variables: a table with the columns of "
        "variables.csv; a row replaces the variable of the same name, others are added at the end.",
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
    film: Literal["last", "first", "all"] = Field(
        default="last",
        description="Which films of the window a stay keeps: the last (the published rule), the "
        "first, or all in time order.",
    )
    film_views: tuple[str, ...] = Field(
        default=("AP",),
        min_length=1,
        description="View positions that count, spelled as in the metadata table.",
    )
    film_from_hours: float = Field(
        default=0.0,
        ge=-8760,
        le=48,
        allow_inf_nan=False,
        description="Start of the window of films in hours after ICU entry; negative before it.",
    )
    film_until_hours: float | None = Field(
        default=None,
        le=48,
        allow_inf_nan=False,
        description="End of the window of films in hours after ICU entry; as --until-hours "
        "unless given.",
    )
    level: Literal["pooled", "grid", "pixels"] = Field(
        default="pooled",
        description="What is stored of a film: one vector, the vector of every place (float16), or "
        "its pixels (uint8, no encoder).",
    )
    views: int = Field(
        default=0,
        ge=0,
        le=64,
        description="Augmented copies that are encoded beside every film, for training: flipped, "
        "turned, shifted and scaled as published, seeded by the film and the number of the copy.",
    )
    fast_decode: bool = Field(
        default=False,
        description="Decode films at the smallest JPEG scale of at least four times the target "
        "size: faster, a few grey values off.",
    )
    precision: Literal["fp32", "bf16"] = Field(
        default="fp32",
        description="Arithmetic of the encoders of films; the difference of bf16 is recorded.",
    )
    device: str = Field(
        default="auto", description="Where encoders run: auto, cpu, cuda or cuda:N."
    )
    workers: int | Literal["auto"] = Field(
        default="auto",
        description="Threads that decode and, on CPUs, encode; of the ray engine its CPUs. auto: "
        "as many as there are cores.",
    )
    engine: Literal["local", "ray"] = Field(
        default="local",
        description="Where shards are computed: in this process, or as tasks of a Ray cluster "
        "(pip install cm2[ray]; RAY_ADDRESS names one, else it is started here).",
    )
    shard: str | None = Field(
        default=None,
        description="Only part I of N equal parts of the work, as I/N with I from 0 to N-1, for "
        "job arrays; whichever job ends last completes the store.",
    )

    @model_validator(mode="before")
    @classmethod
    def _read_tree(cls, values: Any) -> Any:
        """A tree stands in the place of the source tables."""
        if isinstance(values, dict) and values.get("from_tree"):
            return {**values, "data": values["from_tree"]}
        return values

    @field_validator("max_reject", mode="before")
    @classmethod
    def _read_fraction(cls, value: Any) -> Any:
        return _fraction(value)

    @field_validator("workers")
    @classmethod
    def _some_worker(cls, value: Any) -> Any:
        if value != "auto" and not 1 <= value <= _MOST_WORKERS:
            raise ValueError(f"expected auto or 1 to {_MOST_WORKERS}")
        return value

    @field_validator("shard")
    @classmethod
    def _part_of_work(cls, value: str | None) -> str | None:
        if value is None:
            return None
        part, slash, parts = value.partition("/")
        if not (slash and part.isdecimal() and parts.isdecimal() and int(part) < int(parts)):
            raise ValueError("expected I/N with I from 0 to N-1, such as 0/4")
        return value

    @model_validator(mode="after")
    def _films_fit(self) -> ExtractConfig:
        end = self.until_hours if self.film_until_hours is None else self.film_until_hours
        if self.film_from_hours >= end:
            raise ValueError(
                f"the window of films begins {self.film_from_hours:g} hours after ICU entry and "
                f"ends {end:g} hours after it; --film-from-hours must be smaller"
            )
        if self.level == "pixels" and self.views:
            raise ValueError("--level pixels stores no augmented copies; leave --views out")
        return self

    @field_validator("modality", "film_views", mode="before")
    @classmethod
    def _read_words(cls, value: Any) -> Any:
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
