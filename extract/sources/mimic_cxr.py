"""MIMIC-CXR-JPG and MIMIC-CXR: which films and reports there are, and where their files lie.

Nothing is opened here but the metadata table. A film is listed by that table; a report is known
by its study alone, because MIMIC-CXR names it after the study.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import polars as pl

from ...errors import DataError
from .tables import ENDINGS, open_table

METADATA = "mimic-cxr-2.0.0-metadata"
_DEPTH = 3
_DICOM_ID = r"^[0-9A-Za-z][0-9A-Za-z-]*$"
_PROBED_PATIENTS = 50


def find_metadata(root: Path) -> Path | None:
    """Return the folder that holds the metadata table: the root or up to three folders below.

    Args:
        root: Folder of the release, or one that holds several releases side by side.
    """
    for folder in folders_below(root):
        if any((folder / (METADATA + ending)).is_file() for ending in ENDINGS):
            return folder
    return None


def films(root: Path) -> pl.DataFrame:
    """Return every film of the metadata table.

    Args:
        root: As for `find_metadata`.

    Returns:
        dicom_id, subject_id, study_id, view (null where not stated), study_time (null where the
        table has no valid one), path (of the file that should be there).

    Raises:
        DataError: There is no metadata table, or a film stands in it twice.
        SchemaError: A column is missing or holds something else.
    """
    folder = find_metadata(root)
    if folder is None:
        raise DataError(
            f"{root}: expected {METADATA}.csv.gz (MIMIC-CXR-JPG) here or up to {_DEPTH} folders "
            "below, found none. Put MIMIC-CXR-JPG beside the tables of MIMIC-IV, or extract only "
            "the modalities that are there."
        )
    table = open_table(folder, METADATA).read(
        {
            "dicom_id": "text",
            "subject_id": "id",
            "study_id": "id",
            "viewposition": "text",
            "studydate": "id",
            "studytime": "number",
        }
    )
    _check_ids(table, folder / METADATA)
    path = pl.format(
        "{}/files/p{}/p{}/s{}/{}.jpg",
        pl.lit(str(folder)),
        pl.col("subject_id").cast(pl.String).str.slice(0, 2),
        pl.col("subject_id"),
        pl.col("study_id"),
        pl.col("dicom_id"),
    )
    return table.select(
        "dicom_id",
        "subject_id",
        "study_id",
        view=pl.col("viewposition"),
        study_time=study_time(pl.col("studydate"), pl.col("studytime")),
        path=path,
    )


def _check_ids(table: pl.DataFrame, name: Path) -> None:
    """Refuse repeated ids, missing ones, and ids that could lead a path out of its folder."""
    bad = table.filter(
        ~pl.col("dicom_id").str.contains(_DICOM_ID).fill_null(value=False)
        | pl.any_horizontal(pl.col("subject_id", "study_id").is_null())
    )
    double = table.filter(pl.col("dicom_id").is_duplicated())
    if bad.height or double.height:
        raise DataError(
            f"{name}: expected one row per film with subject_id, study_id and a dicom_id of "
            f"letters, digits and '-'; found {bad.height} rows without, and {double.height} that "
            "share a dicom_id. Download the table again."
        )


def study_time(date: pl.Expr, time: pl.Expr) -> pl.Expr:
    """Combine StudyDate (20110131) and StudyTime (93015.125 = 09:30:15, the fraction dropped)."""
    clock = time.cast(pl.Int64, strict=False).cast(pl.String).str.zfill(6)
    both = pl.concat_str(date.cast(pl.String), clock)
    return both.str.to_datetime("%Y%m%d%H%M%S", strict=False, time_unit="us")


def reports(root: Path, studies: pl.DataFrame) -> pl.DataFrame:
    """Return where the report of every given study should lie.

    Args:
        root: As for `find_metadata`; reports may be in another folder than the films.
        studies: subject_id, study_id.

    Returns:
        subject_id, study_id, path; each study once.

    Raises:
        DataError: No folder below the root holds report texts.
    """
    base = find_reports(root)
    if base is None:
        raise DataError(
            f"{root}: expected report texts such as files/p10/p10000032/s50414267.txt (MIMIC-CXR) "
            f"here or up to {_DEPTH} folders below, found none. Unzip mimic-cxr-reports.zip "
            "there, or extract only the modalities that are there."
        )
    path = pl.format(
        "{}/files/p{}/p{}/s{}.txt",
        pl.lit(str(base)),
        pl.col("subject_id").cast(pl.String).str.slice(0, 2),
        pl.col("subject_id"),
        pl.col("study_id"),
    )
    return studies.select("subject_id", "study_id", path=path).unique(maintain_order=True)


def find_reports(root: Path) -> Path | None:
    """Return the folder whose files/ hold report texts; a few patients of each are looked at."""
    for folder in folders_below(root):
        for patient in islice(_patients(folder / "files"), _PROBED_PATIENTS):
            if any(patient.glob("s*.txt")):
                return folder
    return None


def _patients(files: Path) -> Iterator[Path]:
    """Folders of patients, files/p10/p10000032 and so on."""
    for group in _subfolders(files):
        yield from (patient for patient in _subfolders(group) if patient.name.startswith("p"))


def folders_below(root: Path) -> Iterator[Path]:
    """The root and three levels below it, nearest first; never inside files/, which is huge."""
    level = [root]
    for _ in range(_DEPTH + 1):
        yield from level
        level = [child for folder in level for child in _subfolders(folder)]


def _subfolders(folder: Path) -> list[Path]:
    try:
        children = sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []
    return [child for child in children if child.is_dir() and child.name != "files"]


__all__ = [
    "METADATA",
    "films",
    "find_metadata",
    "find_reports",
    "folders_below",
    "reports",
    "study_time",
]
