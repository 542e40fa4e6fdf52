"""How a file of the user is read: a table [modality.NAME] of a TOML file, or NAME=FILE."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ...errors import ConfigError
from ...settings import read_toml
from ..config import ExtractConfig

Kind = Literal["arrays", "table", "events", "images", "texts"]
KNOWN = "known:"
"""Prefix of the column that is 1 where the column it names has a value, and 0 where it has none."""
MEASURED = "measured:"
"""Prefix of the column that is 1 where a bin holds a measurement of its own."""


class OwnFile(BaseModel):
    """One file of the user; every field is a key of its TOML table.

    Columns of times: `hours` after the entry of the stay, `minute` after it, or the clock `time`,
    for which the table of stays has the column intime. The first of them that is there is used.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    file: Path = Field(description="npz, csv, csv.gz, tsv, tsv.gz or parquet")
    kind: Kind | None = Field(default=None, description="by default told from the columns")
    id: str = "stay_id"
    hours: str = "hours"
    minute: str = "minute"
    time: str = "time"
    variable: str = "variable"
    value: str = "value"
    path: str = "path"
    text: str = "text"
    folder: Path | None = Field(default=None, description="of the images; else that of the table")
    keep: tuple[str, ...] = Field(default=(), description="variables or columns to use, in order")
    drop: tuple[str, ...] = Field(default=(), description="variables or columns not to use")
    where: dict[str, tuple[str | int | float | bool, ...]] = Field(
        default_factory=dict, description="rows to use: column = [values]"
    )
    missing: tuple[float | str, ...] = Field(default=(), description="values that mean unknown")
    categories: tuple[str, ...] = Field(default=(), description="columns that are no numbers")
    levels: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="categories of a column, in order; others are unknown"
    )
    columns: tuple[str, ...] = Field(default=(), description="names of the last axis of an array")
    grey: tuple[float, float] | None = Field(
        default=None, description="of 16-bit images: the values that become black and white"
    )
    encoder: str | None = Field(
        default=None, description="of images and texts; of arrays what made them, for the record"
    )

    @model_validator(mode="after")
    def _fits(self) -> OwnFile:
        if self.grey is not None and not self.grey[0] < self.grey[1]:
            raise ValueError(f"grey: expected two rising values, found {list(self.grey)}")
        both = sorted(set(self.keep) & set(self.drop))
        if both:
            raise ValueError(f"keep and drop both name {both[0]}")
        return self

    @property
    def table(self) -> str:
        """How messages call it."""
        return f"[modality.{self.name}]"


def own_files(config: ExtractConfig) -> tuple[OwnFile, ...]:
    """Return the files of a call, those of --modality in their order.

    Raises:
        ConfigError: A name without a file, a file named twice, an unknown key.
    """
    tables: dict[str, Any] = {}
    if config.config is not None:
        found = read_toml(config.config).get("modality", {})
        tables = dict(found) if isinstance(found, dict) else {}
    files = []
    for word in config.modality:
        name, equals, path = word.partition("=")
        entry: Any = {"file": path} if equals else tables.get(name)
        if not isinstance(entry, dict):
            raise ConfigError(
                f"--modality {word}: your own data need NAME=FILE, or a table [modality.{name}] "
                "with the key file in the TOML file of --config"
            )
        files.append(_checked(name, entry, None if equals else config.config))
    names = [file.name for file in files]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"--modality {twice[0]}: named {names.count(twice[0])} times, expected 1")
    for word in (*config.encoder, *config.weights):
        name, equals, _ = word.partition("=")
        if equals and name not in names and "/" not in name:
            raise ConfigError(f"{word}: no modality of this call is called {name!r}")
    return tuple(files)


def _checked(name: str, entry: dict[str, Any], toml: Path | None) -> OwnFile:
    base = Path() if toml is None else toml.parent
    entry = dict(entry)
    for key in ("file", "folder"):
        if isinstance(entry.get(key), str):
            entry[key] = base / Path(entry[key]).expanduser()
    try:
        return OwnFile.model_validate({**entry, "name": name})
    except ValidationError as error:
        lines = [
            f"{'.'.join(map(str, item['loc'])) or 'the table'}: {item['msg']}"
            for item in error.errors(include_url=False)
        ]
        known = ", ".join(key for key in OwnFile.model_fields if key != "name")
        raise ConfigError(
            f"{toml or '--modality'}: [modality.{name}]: {'; '.join(lines)}. Known keys: {known}"
        ) from None


__all__ = ["KNOWN", "MEASURED", "Kind", "OwnFile", "own_files"]
