"""ExtractConfig: every option of `cm2 extract`, its default and its meaning."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ..settings import DEFAULT_CACHE, read_toml
from .encoders import ENCODED

MODALITIES = ("ehr", "cxr", "report", "note", "static")
PREDICTION_HOURS = 48
_MOST_WORKERS = 1024
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def _fraction(value: Any) -> Any:
    """Read `0.1%` as 0.001; leave anything else to pydantic."""
    if isinstance(value, str) and value.strip().endswith("%"):
        return float(value.strip()[:-1]) / 100
    return value


def settings_of(file: Path) -> dict[str, Any]:
    """Read the options that a TOML file sets; its tables of modalities give their names.

    Raises:
        ConfigError: It is not there, or not TOML.
    """
    content = read_toml(file)
    tables = content.pop("modality", None)
    if isinstance(tables, dict):
        content["modality"] = tuple(tables)
    elif tables is not None:
        content["modality"] = tables
    for name in ("stays", "splits", "cache", "data", "items", "variables"):
        if isinstance(content.get(name), str):
            content[name] = file.parent / content[name]
    return {name.replace("-", "_"): value for name, value in content.items()}


def _own_words(modality: Any) -> list[str]:
    """The values of `--modality` that name a file."""
    words = [modality] if isinstance(modality, str) else list(modality or ())
    return [word for word in words if "=" in str(word)]


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
    cache: Path = Field(default=DEFAULT_CACHE, description="Cache folder; made when absent.")
    modality: tuple[str, ...] = Field(
        default=("ehr",),
        description="What to extract: ehr, cxr, report, note, static, or all; or NAME=FILE for a "
        "file of your own (see --stays); may be repeated.",
    )
    stays: Path | None = Field(
        default=None,
        description="Your own data: a table with stay_id, subject_id and, where known, split, "
        "y_TASK, in_TASK, intime and columns for subgroups.",
    )
    config: Path | None = Field(
        default=None,
        description="Your own data: a TOML file with a table [modality.NAME] for each file, which "
        "names its columns and filters, and any option of this command.",
    )
    dataset_name: str | None = Field(
        default=None,
        description="Your own data: name of the data set, own by default. Patients of one name and "
        "id count as the same patient, so give each hospital its own.",
    )
    subject_is_stay: bool = Field(
        default=False,
        description="Your own data: every stay is another patient, so no subject_id is needed.",
    )
    dataset: Literal["auto", "mimic3", "mimic4"] = Field(
        default="auto",
        description="Layout of the source; auto reads it off the tables that are present.",
    )
    cohort: str = Field(
        default="default",
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
    encoder: tuple[str, ...] = Field(
        default=(),
        description="Encoder by name, preceded by MODALITY= when several modalities have one; by "
        "default that of the paper. It is required for images and texts of your own.",
    )
    weights: tuple[str, ...] = Field(
        default=(),
        description="Encoder weights as PATH, hub:ID@REVISION (of the offline cache) or "
        "random:SEED, preceded by MODALITY= when several modalities are extracted; required on "
        "anything but the synthetic demo.",
    )
    preset: Literal["corrected", "reference"] = Field(
        default="corrected",
        description="corrected: known defects of the published pipeline mended (59 columns); "
        "reference: the published behaviour, cell by cell (76 columns).",
    )
    items: Path | None = Field(
        default=None,
        description="Item ids of your own for ehr: a CSV file with the columns source, itemid, "
        "variable, unit. A row takes the place of the built-in one for that id, or is added; with "
        "an empty variable the item is not read.",
    )
    variables: Path | None = Field(
        default=None,
        description="Variables of your own for ehr: a CSV file with the columns variable, kind, "
        "unit, normal, outlier_low, valid_low, valid_high, outlier_high, levels, texts. A row "
        "takes the place of the built-in variable of that name, or is added behind the 17.",
    )
    step_hours: float = Field(
        default=2.0,
        ge=0,
        allow_inf_nan=False,
        description="Width of one bin of the series, hours; 0 keeps every measurement at its own "
        "time, with the hours as a column.",
    )
    until_hours: float = Field(
        default=48.0,
        gt=0,
        allow_inf_nan=False,
        description="End of the series in hours after ICU entry: the prediction time, after which "
        "nothing is read. At most 48, your own data apart.",
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
    level: Literal["pooled", "grid", "pixels", "files"] = Field(
        default="pooled",
        description="What is stored of a film: one vector, the vector of every place (float16), "
        "its pixels (uint8, no encoder), or, of MIMIC's films, the place of its file and the hash "
        "of its pixels, so that training decodes the files themselves.",
    )
    side: int = Field(
        default=256,
        ge=32,
        le=2048,
        description="Short side to which a film is resized. Of pixels and files the square centre "
        "is stored, and training cuts 7/8 of it; other levels encode those 7/8: 224 of 256, as "
        "published.",
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
        "size: faster, up to 2 of 255 grey levels off.",
    )
    pooling: Literal["cls", "mean"] = Field(
        default="cls",
        description="Which vector of a text is kept: that of its first token [CLS] (the published "
        "choice), or the mean over its tokens.",
    )
    long: Literal["truncate", "windows"] = Field(
        default="truncate",
        description="A text longer than the encoder can take is cut (the published choice), or "
        "encoded in windows side by side whose vectors are averaged.",
    )
    note_min: int = Field(
        default=5,
        ge=1,
        description="A stay with fewer notes than this counts as one without notes.",
    )
    note_max: int = Field(
        default=5,
        ge=1,
        le=1000,
        description="Of more notes than this a stay keeps the last ones.",
    )
    note_lead_hours: float = Field(
        default=0.0,
        ge=0,
        le=8760,
        allow_inf_nan=False,
        description="Notes of the same admission count from so many hours before ICU entry.",
    )
    precision: Literal["fp32", "bf16"] = Field(
        default="fp32",
        description="Arithmetic of the encoders of films. bf16 is faster on GPUs and on CPUs with "
        "matrix units, slower on others; its difference is recorded.",
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
    def _notes_fit(self) -> ExtractConfig:
        if self.note_min > self.note_max:
            raise ValueError(
                f"--note-min {self.note_min} asks for more notes than --note-max {self.note_max} "
                "keeps"
            )
        return self

    @model_validator(mode="after")
    def _films_fit(self) -> ExtractConfig:
        end = self.until_hours if self.film_until_hours is None else self.film_until_hours
        if self.film_from_hours >= end:
            raise ValueError(
                f"the window of films begins {self.film_from_hours:g} hours after ICU entry and "
                f"ends {end:g} hours after it; --film-from-hours must be smaller"
            )
        if not self.encodes_films and self.views:
            raise ValueError(f"--level {self.level} stores no augmented copies; leave --views out")
        if self.level == "files" and self.own_data:
            raise ValueError("--level files is for the films of MIMIC; take --level pixels")
        return self

    @field_validator("cohort", "dataset_name")
    @classmethod
    def _plain(cls, value: str | None) -> str | None:
        if value is not None and not _PLAIN.fullmatch(value):
            raise ValueError(
                "expected 1 to 64 letters, digits, '_', '-' or '.', the first a letter or digit"
            )
        return value

    @field_validator("encoder", "weights", mode="before")
    @classmethod
    def _one_word(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("modality", "film_views", mode="before")
    @classmethod
    def _read_words(cls, value: Any) -> Any:
        words = [value] if isinstance(value, str) else list(value)
        parts = [p for word in words for p in ([word] if "=" in word else str(word).split(","))]
        return tuple(part.strip() for part in parts if part)

    @field_validator("modality")
    @classmethod
    def _known_modality(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return MODALITIES if "all" in value else tuple(dict.fromkeys(value))

    @model_validator(mode="before")
    @classmethod
    def _read_file(cls, values: Any) -> Any:
        """Take the options of --config that were not given; own data need no root folder."""
        if not isinstance(values, dict):
            return values
        values = dict(values)
        if values.get("config") is not None:
            values = {**settings_of(Path(values["config"])), **values}
        own = values.get("stays") or values.get("config") or _own_words(values.get("modality"))
        if own and "data" not in values:
            values["data"] = Path(values.get("stays") or values.get("config") or ".").parent
        return values

    @model_validator(mode="after")
    def _known_names(self) -> ExtractConfig:
        if self.own_data:
            return self
        unknown = sorted(set(self.modality) - set(MODALITIES))
        if unknown or not self.modality:
            raise ValueError(
                f"--modality: expected one or more of {', '.join(MODALITIES)}, all, or NAME=FILE "
                f"for a file of your own; found {', '.join(unknown) or 'none'}"
            )
        if self.until_hours > PREDICTION_HOURS:
            raise ValueError(
                f"--until-hours {self.until_hours:g}: the tasks of this data set are predicted at "
                f"{PREDICTION_HOURS} h, nothing later may be read"
            )
        return self

    @model_validator(mode="after")
    def _catalogue_fits(self) -> ExtractConfig:
        if self.items is None and self.variables is None:
            return self
        if self.own_data or self.from_tree is not None or "ehr" not in self.modality:
            raise ValueError(
                "--items and --variables say what is read of the tables of MIMIC: they need "
                "--modality ehr and the tables with --data"
            )
        if self.preset == "reference":
            raise ValueError(
                "--preset reference is the published list of variables; leave it out with --items "
                "and --variables"
            )
        return self

    @property
    def encodes_films(self) -> bool:
        """Whether films become vectors."""
        return self.level in ("pooled", "grid")

    def encodes(self, modality: str) -> bool:
        """Whether a modality of MIMIC goes through an encoder of films or texts."""
        return modality in ENCODED and (modality != "cxr" or self.encodes_films)

    @property
    def own_data(self) -> bool:
        """Whether the modalities are files of the user."""
        given = self.stays is not None or self.config is not None
        return given or bool(_own_words(self.modality))

    def encoder_of(self, modality: str) -> str | None:
        """The encoder that `--encoder` names for a modality; None when it names none."""
        named = [word.partition("=")[2] for word in self.encoder if word.startswith(f"{modality}=")]
        plain = [word for word in self.encoder if "=" not in word]
        return next(iter([*named, *plain]), None)


__all__ = ["MODALITIES", "ExtractConfig"]
