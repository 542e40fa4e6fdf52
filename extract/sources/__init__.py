"""Where data comes from, one adapter each."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ...errors import DataError
from .mimic3 import Mimic3Source
from .mimic4 import Mimic4Source
from .source import Source
from .tables import find, open_table

SOURCES: dict[str, type[Source]] = {"mimic3": Mimic3Source, "mimic4": Mimic4Source}


def open_source(root: Path, dataset: Literal["auto", "mimic3", "mimic4"] = "auto") -> Source:
    """Open a folder of source tables.

    Args:
        root: Folder of the release.
        dataset: Its layout; `auto` reads it off the header of the table of ICU stays.

    Raises:
        DataError: The folder is missing or holds no table of ICU stays.
    """
    if not root.is_dir():
        raise DataError(f"{root}: expected a folder with source tables, found none there.")
    if dataset != "auto":
        return SOURCES[dataset](root)
    path = find(root, "icu/icustays")
    if path is None:
        inner = sorted(child.name for child in root.iterdir())[:8]
        raise DataError(
            f"{root}: expected ICUSTAYS (MIMIC-III) or icu/icustays (MIMIC-IV) as .csv or .csv.gz, "
            f"found {', '.join(inner) or 'an empty folder'}. Point --data at the folder of the "
            "release that holds the tables."
        )
    table = open_table(root, "icu/icustays")
    return SOURCES["mimic3" if table.has("icustay_id") else "mimic4"](root)


__all__ = ["SOURCES", "Source", "open_source"]
