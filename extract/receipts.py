"""Receipts: what a finished extraction was made of, so that a repeated one returns at once.

A receipt holds only while the options, the files of the source, the code and every stored file
are what they were. It is a shortcut and no authority: without it everything is looked at again.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ..cache import atomic, layout
from ..cache.cohort import Cohort
from ..cache.fingerprint import fingerprint
from ..errors import IntegrityError
from .config import ExtractConfig

FOLDER = "receipts"
_DEPTH = 3
_TABLES_OF_COHORT = "cohort"
_HUGE = "files"  # films and reports: only those that are linked are looked at
_TABLES = (".csv", ".csv.gz", ".json")
# Options that say where and how work is done, not what comes out.
_INDIFFERENT = {
    *("data", "cache", "cohort", "modality", "max_reject", "limit"),
    *("device", "workers", "engine", "shard"),
}


Looks = list[list[object]]
"""Name, size and time of files; they stand for the content."""


def asked(config: ExtractConfig, modality: str, tables: Looks) -> str:
    """Fingerprint of everything that decides what an extraction finds, films and texts apart."""
    options = config.model_dump(mode="json")
    named = [word.rpartition("=")[2] for word in config.weights]
    given = (config.splits, config.items, config.variables)
    paths = [Path(word) for word in named] + [path for path in given if path is not None]
    outside = [file for path in paths for file in _files_of(path)]
    return fingerprint(
        {
            "modality": modality,
            "options": {key: options[key] for key in sorted(set(options) - _INDIFFERENT)},
            "tables": tables,
            "outside": [_look(file) for file in outside],
            "code": _code(),
        }
    )


def sources(root: Path) -> Looks:
    """Name, size and time of every table up to three folders below the root."""
    found = []
    for folder, inner, names in os.walk(root):
        here = Path(folder)
        depth = len(here.relative_to(root).parts)
        inner[:] = sorted(n for n in inner if n != _HUGE and depth < _DEPTH)
        for name in sorted(names):
            if name.lower().endswith(_TABLES):
                path = here / name
                found.append([path.relative_to(root).as_posix(), *_look(path)[1:]])
    return found


def look_at(paths: Iterable[Path]) -> Looks:
    """Path, size and time of some files; nulls where one cannot be seen."""
    return [_look(path) for path in paths]


def write_tables(config: ExtractConfig, tables: Looks) -> None:
    """Record which tables the cohort was built from, or found equal to."""
    content = {"tables": fingerprint(tables)}
    atomic.write_json(_path(config, _TABLES_OF_COHORT), content)


def seen_tables(config: ExtractConfig, tables: Looks) -> bool:
    """Whether the tables of the source are those that `write_tables` recorded."""
    path = _path(config, _TABLES_OF_COHORT)
    if not path.is_file():
        return False
    try:
        recorded = atomic.read_json(path, "It is written anew.")["tables"]
    except IntegrityError:
        return False
    return bool(recorded == fingerprint(tables))


def write(
    config: ExtractConfig,
    cohort: Cohort,
    modality: str,
    store: Path,
    tables: Looks,
    files: Sequence[Path],
    result: dict[str, Any],
) -> None:
    """Record a complete extraction of one modality.

    Args:
        config: Its options.
        cohort: Its cohort.
        modality: Its name.
        store: Folder of its store.
        tables: Name, size and time of the tables of its source.
        files: Source files beyond the tables.
        result: What to tell when nothing has changed, JSON-able.
    """
    relative = [os.path.relpath(file, config.data) for file in files]
    content = {
        "asked": asked(config, modality, tables),
        "store": store.relative_to(config.cache).as_posix(),
        "stored": _stored(config, cohort, modality, store),
        "files": relative,
        "looks": fingerprint(_looks(config.data, relative)),
        "result": result,
    }
    atomic.write_json(_path(config, modality), content)


def read(
    config: ExtractConfig, cohort: Cohort, modality: str, tables: Looks
) -> dict[str, Any] | None:
    """Return the result of the extraction that the receipt tells of; None when it does not hold."""
    path = _path(config, modality)
    if not path.is_file():
        return None
    try:
        content = atomic.read_json(path, "It is written anew.")
        store = config.cache / content["store"]
        holds = (
            content["asked"] == asked(config, modality, tables)
            and content["looks"] == fingerprint(_looks(config.data, content["files"]))
            and content["stored"] == _stored(config, cohort, modality, store)
        )
    except (IntegrityError, OSError):
        return None
    return dict(content["result"]) if holds else None


def _path(config: ExtractConfig, modality: str) -> Path:
    return layout.cohort_folder(config.cache, config.cohort) / FOLDER / f"{modality}.json"


def _stored(config: ExtractConfig, cohort: Cohort, modality: str, store: Path) -> str:
    """Hash of every file that the extraction wrote; reading them finds a flipped bit."""
    links = layout.cohort_folder(config.cache, cohort.name) / layout.LINKS
    files = [*links.glob(f"{modality}.json"), *links.glob(f"{modality}-*.parquet")]
    files += [file for file in store.iterdir() if file.name != layout.PROVENANCE]
    if modality == "ehr":
        files += list((config.cache / layout.EVENTS).glob("*"))
    whole = [
        [file.relative_to(config.cache).as_posix(), atomic.sha256_file(file)]
        for file in sorted(files)
        if not atomic.TEMPORARY.fullmatch(file.name)
    ]
    return fingerprint({"cohort": cohort.fingerprint, "files": whole})


def _looks(root: Path, files: Iterable[str]) -> Looks:
    return [[file, *_look(root / file)[1:]] for file in files]


def _look(path: Path) -> list[object]:
    """Path, size and time of a file; nulls where it cannot be seen."""
    try:
        found = path.stat()
    except OSError:
        return [str(path), None, None]
    return [str(path), found.st_size, found.st_mtime_ns]


def _files_of(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from sorted(child for child in path.iterdir() if child.is_file())
    else:
        yield path


def _code() -> list[list[object]]:
    """Name, size and time of the files of stage one and of the cache: another release, another."""
    package = Path(__file__).resolve().parents[1]
    files = [
        file
        for folder in ("extract", "cache")
        for file in (package / folder).rglob("*")
        if file.suffix in (".py", ".csv", ".txt")
    ]
    return [[file.relative_to(package).as_posix(), *_look(file)[1:]] for file in sorted(files)]


__all__ = [
    "Looks",
    "asked",
    "look_at",
    "read",
    "seen_tables",
    "sources",
    "write",
    "write_tables",
]
