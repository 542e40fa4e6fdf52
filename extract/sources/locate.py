"""Where the files of a source table lie: nested or flat, in any case, packed or not, in parts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from ...errors import DataError

ENDINGS = (".csv.gz", ".csv")  # the released form first: its checksum proves that it is whole
_PART = re.compile(r"[._-]?(?:part)?[._-]?(\d{1,5})(?:[._-]?of[._-]?(\d{1,5}))?")


def folders(root: Path, name: str) -> Iterable[Path]:
    """Yield the folders where a table may lie: its own, the root (flat copies), core (v1.0)."""
    inner = {
        child.name.lower(): child
        for child in sorted(root.iterdir(), reverse=True)
        if child.is_dir()
    }
    own, _, _ = name.rpartition("/")
    for folder in (own, "core" if own == "hosp" else own):
        if folder and folder in inner:
            yield inner[folder]
    yield root


def find(root: Path, name: str) -> Path | None:
    """Return the file of a table, its first part, or None; see `find_parts`."""
    parts = find_parts(root, name)
    return parts[0] if parts else None


def find_parts(root: Path, name: str) -> list[Path]:
    """Return the files of a table: names in any case, .csv.gz before .csv, whole before parts.

    Args:
        root: Folder of the release.
        name: Table with its folder, lower case, such as `hosp/labevents` or `chartevents`.

    Raises:
        DataError: Numbered parts are there and one between them is missing.
    """
    if not root.is_dir():
        return []
    stem = name.rpartition("/")[2]
    for folder in folders(root, name):
        entries = {child.name.lower(): child for child in sorted(folder.iterdir(), reverse=True)}
        for ending in ENDINGS:
            path = entries.get(stem + ending)
            if path is not None and path.is_file():
                return [path]
        parts = _numbered(entries, stem, root, name)
        inner = entries.get(stem)
        if not parts and inner is not None and inner.is_dir():
            below = {c.name.lower(): c for c in sorted(inner.iterdir(), reverse=True)}
            parts = _numbered(below, "", root, name) or _numbered(below, stem, root, name)
        if parts:
            return parts
    return []


def _numbered(entries: Mapping[str, Path], stem: str, root: Path, name: str) -> list[Path]:
    """Return the numbered parts of a table in order, refusing gaps."""
    found: dict[int, Path] = {}
    expected = 0
    for ending in reversed(ENDINGS):
        for lower, path in entries.items():
            if not (lower.startswith(stem) and lower.endswith(ending) and path.is_file()):
                continue
            match = _PART.fullmatch(lower[len(stem) : -len(ending)])
            if match is not None:
                found[int(match[1])] = path
                expected = max(expected, int(match[2] or 0))
    if not found:
        return []
    start = min(found)
    numbers = range(start, start + expected) if expected else range(start, max(found) + 1)
    missing = sorted({*numbers, *([] if start <= 1 else [1])} - set(found))
    if missing:
        raise DataError(
            f"{root}: the table {name} is in {len(found)} numbered parts, but part {missing[0]} is "
            f"missing (first {found[start].name}). Add it, or give the table in one file."
        )
    return [found[number] for number in sorted(found)]


__all__ = ["ENDINGS", "find", "find_parts"]
