"""MIMIC-CXR tables: study times, paths, where releases lie, and what is refused."""

from __future__ import annotations

import shutil
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

from cm2.errors import DataError, SchemaError
from cm2.extract.sources.mimic_cxr import (
    METADATA,
    films,
    find_metadata,
    find_reports,
    reports,
    study_time,
)

HEADER = "dicom_id,subject_id,study_id,ViewPosition,StudyDate,StudyTime"


def metadata(folder: Path, *rows: str, header: str = HEADER) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{METADATA}.csv").write_text("\n".join([header, *rows]) + "\n")
    return folder


@pytest.mark.parametrize(
    ("date", "time", "expected"),
    [
        (21800506, 213014.531, datetime(2180, 5, 6, 21, 30, 14)),
        (21800506, 93015.0, datetime(2180, 5, 6, 9, 30, 15)),
        (21800506, 5.875, datetime(2180, 5, 6, 0, 0, 5)),
        (21800506, 0.0, datetime(2180, 5, 6)),
        (21801345, 93015.0, None),
        (21800506, 250000.0, None),
        (21800506, None, None),
    ],
)
def test_study_time_pads_zeros_and_drops_the_fraction(
    date: int, time: float | None, expected: datetime | None
) -> None:
    table = pl.DataFrame(
        {"d": [date], "t": [time]}, schema={"d": pl.Int64, "t": pl.Float64}
    ).select(study_time(pl.col("d"), pl.col("t")))
    assert table.item() == expected


def test_a_film_lies_where_the_release_puts_it(tmp_path: Path) -> None:
    metadata(tmp_path, "aa-bb,10000032,50414267,AP,21800506,213014.531")
    found = films(tmp_path).row(0, named=True)
    assert found["path"] == str(tmp_path / "files/p10/p10000032/s50414267/aa-bb.jpg")
    assert (found["view"], found["study_time"]) == ("AP", datetime(2180, 5, 6, 21, 30, 14))


def test_releases_beside_each_other_are_found_but_files_are_never_walked(tmp_path: Path) -> None:
    metadata(tmp_path / "mimic-cxr-jpg/2.0.0", "a,10,20,PA,21800506,1")
    text = tmp_path / "mimic-cxr/2.0.0/files/p10/p10000032/s50414267.txt"
    text.parent.mkdir(parents=True)
    text.write_text("x")
    metadata(tmp_path / "files/deep", "a,10,20,PA,21800506,1")
    assert find_metadata(tmp_path) == tmp_path / "mimic-cxr-jpg/2.0.0"
    assert find_reports(tmp_path) == tmp_path / "mimic-cxr/2.0.0"
    shutil.rmtree(tmp_path / "mimic-cxr-jpg")
    assert find_metadata(tmp_path) is None


def test_the_report_of_a_study_is_named_after_it(tmp_path: Path) -> None:
    path = tmp_path / "files/p10/p10000032/s50414267.txt"
    path.parent.mkdir(parents=True)
    path.write_text("x")
    studies = pl.DataFrame({"subject_id": [10000032] * 2, "study_id": [50414267] * 2})
    assert reports(tmp_path, studies)["path"].to_list() == [str(path)]
    path.unlink()
    with pytest.raises(DataError, match="expected report texts"):
        reports(tmp_path, studies)


def test_no_table_of_films_is_told_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=METADATA):
        films(tmp_path)


def test_a_renamed_column_is_named(tmp_path: Path) -> None:
    metadata(tmp_path, "a,1,2,AP,3,4", header=HEADER.replace("ViewPosition", "View"))
    with pytest.raises(SchemaError, match="viewposition"):
        films(tmp_path)


def test_a_film_listed_twice_is_refused(tmp_path: Path) -> None:
    row = "a,10,20,AP,21800506,1"
    metadata(tmp_path, row, row)
    with pytest.raises(DataError, match="one row per film"):
        films(tmp_path)


@pytest.mark.parametrize("name", ["../../../etc/passwd", "a/b", "..", "a b"])
def test_a_name_that_leaves_its_folder_is_refused(name: str, tmp_path: Path) -> None:
    metadata(tmp_path, f"{name},10,20,AP,21800506,1")
    with pytest.raises(DataError, match="dicom_id"):
        films(tmp_path)
