"""Where the texts of radiology reports lie: a tree of .txt files, the released zip, or a table.

The zip is read in place. The table is what the published sectioning writes: one row per study with
its sections, so nothing is sectioned again.
"""

from __future__ import annotations

import hashlib
import os
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import polars as pl

from ...errors import DataError
from .mimic_cxr import find_reports, folders_below, reports
from .tables import ENDINGS, open_table

ZIP = "mimic-cxr-reports.zip"
SECTIONED = "mimic_cxr_sectioned"
_SECTIONS = ("impression", "findings", "last_paragraph", "comparison")
_MEMBER = re.compile(r"(?:^|/)p\d+/s(\d+)\.txt$")
_READERS = 8
_HASHED_BYTES = 200_000  # a longer text is refused when it is read


@dataclass(frozen=True)
class ZippedText:
    """A text inside a zip file.

    Args:
        zip: The zip file.
        member: Its name in there.
        size: Bytes of the text.
    """

    zip: Path
    member: str
    size: int

    def read(self) -> bytes:
        """Its bytes, checked against the sum that the zip file keeps.

        Raises:
            OSError, zipfile.BadZipFile: It cannot be read.
        """
        try:
            return _opened(self.zip, os.getpid()).read(self.member)
        except (RuntimeError, NotImplementedError, zlib.error) as error:
            raise zipfile.BadZipFile("encrypted, or packed in an unknown way") from error


@dataclass(frozen=True)
class SectionedText:
    """A report whose sections were found before.

    Args:
        sections: impression, findings, last_paragraph, comparison; "" where there is none.
    """

    sections: tuple[str, ...]


Payload = Path | ZippedText | SectionedText


class ReportTexts(Protocol):
    """The reports of one place."""

    @property
    def kind(self) -> str:
        """One of tree, zip, table."""

    def files(self, studies: pl.DataFrame) -> Sequence[Path]:
        """Files that hold them, or would: another look at these tells whether one has changed."""

    def of(self, studies: pl.DataFrame) -> Mapping[int, tuple[str, Payload]]:
        """Stamp and payload of the reports that are there.

        Args:
            studies: subject_id, study_id; each study once.
        """

    def expected(self, studies: pl.DataFrame) -> str:
        """Where the first of them should be, for a message."""


class TextTree:
    """Files such as files/p10/p10000032/s50414267.txt below a folder."""

    kind = "tree"

    def __init__(self, root: Path) -> None:
        self._root = root

    def of(self, studies: pl.DataFrame) -> Mapping[int, tuple[str, Payload]]:
        """Stamp and path of the reports that are there."""
        table = reports(self._root, studies)
        paths = [Path(path) for path in table["path"]]
        with ThreadPoolExecutor(_READERS) as pool:  # discs make one reader wait
            stamps = list(pool.map(_stamp_of_file, paths, chunksize=64))
        ids = table["study_id"].to_list()
        return {
            study: (stamp, path)
            for study, stamp, path in zip(ids, stamps, paths, strict=True)
            if stamp is not None
        }

    def files(self, studies: pl.DataFrame) -> Sequence[Path]:
        """Where each report lies or should lie."""
        return [Path(path) for path in reports(self._root, studies)["path"]]

    def expected(self, studies: pl.DataFrame) -> str:
        """Path of the first report."""
        return str(reports(self._root, studies)["path"][0])


class ZippedTexts:
    """The texts inside mimic-cxr-reports.zip."""

    kind = "zip"

    def __init__(self, path: Path) -> None:
        self._path = path

    def of(self, studies: pl.DataFrame) -> Mapping[int, tuple[str, Payload]]:
        """Stamp and place of the reports that are there.

        Raises:
            DataError: The zip file is damaged, or holds a study twice.
        """
        members = self._members()
        found: dict[int, tuple[str, Payload]] = {}
        for study in studies["study_id"].to_list():
            member = members.get(study)
            if member is None:
                continue
            if member.size > _HASHED_BYTES:
                found[study] = (f"{member.size} bytes", member)
                continue
            try:
                found[study] = (_stamp(member.read()), member)
            except (OSError, zipfile.BadZipFile):
                found[study] = ("unreadable", member)
        return found

    def files(self, studies: pl.DataFrame) -> Sequence[Path]:
        """The zip file."""
        return [self._path]

    def expected(self, studies: pl.DataFrame) -> str:
        """Place of the first report."""
        return f"s{studies['study_id'][0]}.txt in {self._path}"

    def _members(self) -> dict[int, ZippedText]:
        members: dict[int, ZippedText] = {}
        try:
            listed = _opened(self._path, os.getpid()).infolist()
        except (OSError, zipfile.BadZipFile) as error:
            raise DataError(
                f"{self._path}: not a readable zip file. Download it again and compare it with "
                "the SHA256SUMS.txt of the release."
            ) from error
        for entry in listed:
            name = _MEMBER.search(entry.filename)
            if name is None:
                continue
            study = int(name[1])
            if study in members:
                raise DataError(f"{self._path}: holds the report of study s{study} twice.")
            members[study] = ZippedText(self._path, entry.filename, entry.file_size)
        return members


class SectionedTable:
    """The table mimic_cxr_sectioned.csv of the published sectioning."""

    kind = "table"

    def __init__(self, folder: Path) -> None:
        self._table = open_table(folder, SECTIONED)

    def of(self, studies: pl.DataFrame) -> Mapping[int, tuple[str, Payload]]:
        """Stamp and sections of the reports that are there.

        Raises:
            DataError: A study stands there twice.
        """
        rows = self._table.read({"study": "text", **dict.fromkeys(_SECTIONS, "text")})
        wanted = studies.select(study=pl.format("s{}", pl.col("study_id")), study_id="study_id")
        rows = rows.join(wanted, on="study").sort("study_id")
        if rows["study_id"].is_duplicated().any():
            raise DataError(f"{self._table.path}: holds a study twice; expected one row each.")
        found: dict[int, tuple[str, Payload]] = {}
        for row in rows.iter_rows(named=True):
            sections = tuple((row[name] or "").strip() for name in _SECTIONS)
            stamp = _stamp("\0".join(sections).encode())
            found[row["study_id"]] = (stamp, SectionedText(sections))
        return found

    def files(self, studies: pl.DataFrame) -> Sequence[Path]:
        """The table."""
        return [self._table.path]

    def expected(self, studies: pl.DataFrame) -> str:
        """Row of the first report."""
        return f"the row s{studies['study_id'][0]} of {self._table.path}"


def find_texts(root: Path) -> ReportTexts | None:
    """Return the reports at a root or up to three folders below: texts, else zip, else table."""
    if find_reports(root) is not None:
        return TextTree(root)
    folders = list(folders_below(root))
    for folder in folders:
        if (folder / ZIP).is_file():
            return ZippedTexts(folder / ZIP)
    for folder in folders:
        if any((folder / (SECTIONED + ending)).is_file() for ending in ENDINGS):
            return SectionedTable(folder)
    return None


def open_texts(root: Path) -> ReportTexts:
    """Return the reports below a root.

    Raises:
        DataError: There are none in any form.
    """
    found = find_texts(root)
    if found is None:
        raise DataError(
            f"{root}: expected reports of MIMIC-CXR here or up to three folders below, as "
            f"{ZIP}, as texts such as files/p10/p10000032/s50414267.txt, or as {SECTIONED}.csv; "
            "found none. Put one of them there, or extract only the modalities that are there."
        )
    return found


@lru_cache(maxsize=4)
def _opened(path: Path, process: int) -> zipfile.ZipFile:
    """A zip file, opened once in each process: two must not share the place in it."""
    return zipfile.ZipFile(path)


def _stamp(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _stamp_of_file(path: Path) -> str | None:
    """Hash of a text; None when it does not exist."""
    try:
        size = path.stat().st_size
        return _stamp(path.read_bytes()) if size <= _HASHED_BYTES else f"{size} bytes"
    except FileNotFoundError:
        return None
    except OSError:
        return "no access"


__all__ = [
    "SECTIONED",
    "ZIP",
    "Payload",
    "ReportTexts",
    "SectionedTable",
    "SectionedText",
    "TextTree",
    "ZippedText",
    "ZippedTexts",
    "find_texts",
    "open_texts",
]
