"""File names, columns, data types and versions of a cache: the one place.

```
CACHE/
  cohorts/<name>/     stays.parquet, cohort.json, links/<modality>.json and its table,
                      labels/<task>.json and its table
  events/             cleaned measurements in long form
  stores/<modality>/<space id>/
                      manifest.json and its two tables, provenance.json, blank.safetensors,
                      shard-<name>.h5 and shard-<name>.json
  runs/<identity>/    trained models
  sweeps/<identity>/  which runs belong to a sweep
```
A JSON file is the commit of the tables it names by hash. A table that may be written again
(items, rejects, links, labels) carries the first digits of its hash in its file name, so that
neither a kill nor a reader can ever meet a new table beside an old JSON file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from ..errors import ConfigError, IntegrityError, quoted

SCHEMA_VERSION = 1
SHARD_FORMAT = "cm2.shard"
STORE_FORMAT = "cm2.store"
COHORT_FORMAT = "cm2.cohort"
LINKS_FORMAT = "cm2.links"
LABELS_FORMAT = "cm2.labels"
CHECKPOINT_FORMAT = "cm2.checkpoint"

COHORTS = "cohorts"
EVENTS = "events"
STORES = "stores"
RUNS = "runs"
SWEEPS = "sweeps"
LEASE = "lease.json"
MANIFEST = "manifest.json"
PROVENANCE = "provenance.json"
BLANK = "blank.safetensors"
COHORT = "cohort.json"
STAYS = "stays.parquet"
LINKS = "links"
LABELS = "labels"

RUN_INFO, RUN_BEST = "run.json", "best.safetensors"
TRAINING_SUBJECTS = "data.training_subjects"
"""Tensor of a run's weights: keys of the patients that it was trained on, int64."""

SPLITS = ("train", "val", "test")
STAGES = ("read", "decode", "tokenise", "encode", "nonfinite")
ITEM_COLUMNS = ("item_id", "source_hash", "shard", "row", "vector_hash", "stamp")
REJECT_COLUMNS = ("item_id", "stage", "error", "message", "shard", "stamp")
LINK_COLUMNS = ("stay_id", "items", "has", "why_no")

VALUE_DTYPES = ("float32", "float16")
BYTE_DTYPES = ("uint8",)
ARRAY_VIEWS = ("series", "vector")
"""Views that are arrays in memory; pixels are read image by image."""

FILM_VIEWS = ("pixels", "files")
"""Views of films that are read one by one, from the store or from the files it names."""

ARRAY_DTYPES = (*VALUE_DTYPES, *BYTE_DTYPES, "int64", "int32", "bool")

# Libraries whose version may change an encoded vector or the bytes of a file.
LIBRARIES = (
    "h5py",
    "numpy",
    "pillow",
    "polars",
    "pyarrow",
    "torch",
    "torchvision",
    "transformers",
)

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
_HEX = re.compile(r"[0-9a-f]{12}")
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)


def check_name(name: str, what: str) -> str:
    """Return `name` when it can be a folder on every system.

    Args:
        name: Name of a cohort, modality or run as the user gave it.
        what: What it names, for the message.

    Raises:
        ConfigError: It is empty, too long, leaves its folder, or is reserved by Windows.
    """
    if not _NAME.fullmatch(name) or name.endswith(".") or _RESERVED.fullmatch(name):
        raise ConfigError(
            f"{what} {name!r} cannot name a folder on every system: use 1 to 64 letters, digits, "
            "'.', '_' or '-', not starting with '.' or '-', not ending with '.', and no device "
            "name such as 'con' or 'nul'."
        )
    return name


def check_hex(name: str, what: str) -> str:
    """Return `name` when it is 12 hexadecimal digits, as the names of shards and spaces are."""
    if not _HEX.fullmatch(name):
        raise ConfigError(f"{what} must be 12 hexadecimal digits in lower case, found {name!r}.")
    return name


def confined(cache: Path, path: Path) -> Path:
    """Return `path` when it lies inside the cache after every symbolic link is followed.

    Raises:
        IntegrityError: It leads out of the cache.
    """
    if not path.resolve().is_relative_to(cache.resolve()):
        raise IntegrityError(
            f"{path} leads out of the cache {cache}, to {path.resolve()}. Replace the symbolic "
            "link by the folder itself, or name the other cache with --cache."
        )
    return path


def claim(folder: Path) -> Path:
    """Return `folder` unless a sibling's name differs only in upper and lower case.

    Raises:
        ConfigError: There is such a sibling; some file systems would mix the two.
    """
    siblings = [p.name for p in folder.parent.iterdir()] if folder.parent.is_dir() else []
    for other in sorted(siblings):
        if other != folder.name and other.casefold() == folder.name.casefold():
            raise ConfigError(
                f"{folder} differs from the existing {other!r} only in upper and lower case, "
                f"which some file systems cannot keep apart. Use {other!r} or another name."
            )
    return folder


def cohort_folder(cache: Path, name: str) -> Path:
    """Folder of one cohort."""
    return confined(cache, cache / COHORTS / check_name(name, "Cohort"))


def modality_folder(cache: Path, modality: str) -> Path:
    """Folder that holds the stores of one modality."""
    return confined(cache, cache / STORES / check_name(modality, "Modality"))


def store_folder(cache: Path, modality: str, space_id: str) -> Path:
    """Folder of one store."""
    return confined(cache, modality_folder(cache, modality) / check_hex(space_id, "Space"))


def shard_paths(store: Path, name: str) -> tuple[Path, Path]:
    """Data and record of one shard: shard-<name>.h5, shard-<name>.json."""
    check_hex(name, "Shard name")
    return store / f"shard-{name}.h5", store / f"shard-{name}.json"


def table_name(stem: str, sha256: str) -> str:
    """File name of a table that may be written again: <stem>-<12 digits of its hash>.parquet."""
    return f"{stem}-{sha256[:12]}.parquet"


def subject_words(keys: Iterable[int]) -> tuple[str, ...]:
    """Keys of patients as text, sorted: 16 hexadecimal digits each."""
    return tuple(sorted(f"{key:016x}" for key in keys))


def extract_again(cache: Path, modality: str, cohort: str | None = None) -> str:
    """The command that repairs what belongs to one modality."""
    option = f" --cohort {cohort}" if cohort not in (None, "default") else ""
    return (
        f"Run `cm2 extract --modality {modality} --data ROOT --cache {quoted(cache)}{option}` "
        "again: it rebuilds only what is damaged or missing."
    )
