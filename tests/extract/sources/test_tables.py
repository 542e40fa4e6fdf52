from __future__ import annotations

import gzip
from pathlib import Path

import polars as pl
import pytest

from cm2.errors import DataError, SchemaError
from cm2.extract.sources.tables import Table, collect, find, open_table

ROWS = "".join(f"{i},2150-01-01 00:{i % 60:02d}:00,secret{i * 7919 % 1000}\n" for i in range(9000))
TEXT = "Subject_ID,CHARTTIME,Value\n" + ROWS
KINDS = {"subject_id": "id", "charttime": "time", "value": "text"}


def put(root: Path, data: bytes, name: str = "t.csv.gz") -> Path:
    path = root / name
    path.write_bytes(data)
    return path


def test_gz_and_plain_and_any_case_and_line_ends_read_alike(tmp_path: Path) -> None:
    frames = []
    for i, (name, data) in enumerate(
        [
            ("T.CSV.gz", gzip.compress(TEXT.encode())),
            ("t.csv", TEXT.encode()),
            ("T.csv", TEXT.upper().replace("SECRET", "secret").encode()),
            ("t.csv", b"\xef\xbb\xbf" + TEXT.replace("\n", "\r\n").encode()),
            ("t.csv", TEXT.rstrip("\n").encode()),
        ]
    ):
        folder = tmp_path / str(i)
        folder.mkdir()
        put(folder, data, name)
        frames.append(open_table(folder, "t").read(KINDS))
    assert frames[0].height == 9000
    assert frames[0].columns == list(KINDS)
    assert all(frame.equals(frames[0]) for frame in frames[1:])


def test_no_word_means_missing_and_no_number_is_guessed(tmp_path: Path) -> None:
    put(tmp_path, b'id,value\n1,None\n2,NA\n3,\n4,""\n5,.2\n6,007\n7,"a\nb ""c"", d"\n', "t.csv")
    frame = open_table(tmp_path, "t").read({"id": "id", "value": "text"})
    assert frame["value"].to_list()[:2] == ["None", "NA"]
    assert frame["value"].to_list()[4:] == [".2", "007", 'a\nb "c", d']
    assert frame["value"].null_count() >= 1


def test_the_released_gz_is_preferred_to_an_unpacked_copy(tmp_path: Path) -> None:
    put(tmp_path, b"id\n1\n", "t.csv")
    put(tmp_path, gzip.compress(b"id\n2\n"), "t.csv.gz")
    assert open_table(tmp_path, "t").read({"id": "id"})["id"].to_list() == [2]


def test_tables_are_found_in_their_folder_at_the_root_and_in_core(tmp_path: Path) -> None:
    (tmp_path / "Hosp").mkdir()
    (tmp_path / "core").mkdir()
    put(tmp_path / "Hosp", b"a\n1\n", "LabEvents.csv")
    put(tmp_path / "core", b"a\n1\n", "patients.csv")
    put(tmp_path, b"a\n1\n", "chartevents.csv")
    assert find(tmp_path, "hosp/labevents") is not None
    assert find(tmp_path, "hosp/patients") is not None
    assert find(tmp_path, "icu/chartevents") is not None
    assert find(tmp_path, "icu/icustays") is None


GOOD = gzip.compress(TEXT.encode(), mtime=0)


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 16]) + data[at + 1 :]


@pytest.mark.parametrize(
    ("data", "name", "says"),
    [
        (GOOD[: len(GOOD) // 2], "t.csv.gz", "truncated"),
        (GOOD[:-4], "t.csv.gz", "truncated"),
        (flipped(GOOD, len(GOOD) - 6), "t.csv.gz", "checksum"),
        (flipped(GOOD, len(GOOD) // 2), "t.csv.gz", "checksum|truncated"),
        (b"not gzip at all", "t.csv.gz", "damaged"),
        (b"", "t.csv", "empty file"),
        (b"", "t.csv.gz", "empty file"),
        (b"subject_id,charttime,value\n", "t.csv", "expected rows below the header"),
        (b"subject_id,charttime,value\n1,2150-01-01 00:00:00,a\n2,2150-01", "t.csv", "truncated"),
        (b'subject_id,charttime,value\n1,2150-01-01 00:00:00,"a\n', "t.csv", "well-formed"),
        (
            b"subject_id,charttime,value\n1,2150-01-01 00:00:00,ok\n2,2150-01-01 00:00:00,\xb0F\n",
            "t.csv",
            "line 3: not UTF-8",
        ),
    ],
)
def test_damage_is_named_with_its_file(tmp_path: Path, data: bytes, name: str, says: str) -> None:
    put(tmp_path, data, name)
    with pytest.raises(DataError, match=says) as caught:
        open_table(tmp_path, "t").read(KINDS)
    assert name in str(caught.value)


def test_a_renamed_column_is_named_with_the_nearest_one(tmp_path: Path) -> None:
    put(tmp_path, b"subject_id,chart_time,value\n1,2,3\n", "t.csv")
    with pytest.raises(SchemaError, match=r"charttime.*Did you rename chart_time"):
        open_table(tmp_path, "t").scan(["charttime"])


def test_a_column_twice_is_refused(tmp_path: Path) -> None:
    put(tmp_path, b"value,VALUE\n1,2\n", "t.csv")
    with pytest.raises(SchemaError, match="value more than once"):
        open_table(tmp_path, "t")


def test_a_missing_table_says_what_is_there(tmp_path: Path) -> None:
    put(tmp_path, b"a\n1\n", "chart_events.csv")
    with pytest.raises(DataError, match=r"chartevents.*chart_events\.csv"):
        open_table(tmp_path, "icu/chartevents")


@pytest.mark.parametrize(
    ("line", "column"),
    [
        ("1e5,2150-01-01 00:00:00,secret", "subject_id"),
        ("7.0,2150-01-01 00:00:00,secret", "subject_id"),
        ("99999999999999999999,2150-01-01 00:00:00,secret", "subject_id"),
        ("7,2150-02-30 00:00:00,secret", "charttime"),
        ("7,None,secret", "charttime"),
        ("7,01/02/2150,secret", "charttime"),
    ],
)
def test_an_unreadable_cell_is_named_by_column_and_row_and_not_shown(
    tmp_path: Path, line: str, column: str
) -> None:
    body = TEXT.splitlines()[:3000]
    put(tmp_path, "\n".join([*body, line, *body[1:]]).encode(), "t.csv")
    with pytest.raises(SchemaError, match=rf"column {column}, data row 3000") as caught:
        open_table(tmp_path, "t").read(KINDS)
    assert "secret" not in str(caught.value)
    assert line.split(",")[0 if column == "subject_id" else 1] not in str(caught.value)


def test_dates_without_time_of_day_and_centuries_back_are_read(tmp_path: Path) -> None:
    put(tmp_path, b"dod\n2180-01-31\n1850-01-01 00:00:00\n", "t.csv")
    frame = open_table(tmp_path, "t").read({"dod": "time"})
    assert frame["dod"].dt.year().to_list() == [2180, 1850]


def test_messages_of_the_reader_never_carry_cells(tmp_path: Path) -> None:
    put(tmp_path, b'subject_id,value\n1,"secret never closes\n2,x\n', "t.csv")
    with pytest.raises(DataError) as caught:
        collect(open_table(tmp_path, "t").scan(["value"]), open_table(tmp_path, "t"))
    assert "secret" not in str(caught.value)


def test_the_inventory_depends_on_content_not_on_place_or_time(tmp_path: Path) -> None:
    for folder in ("a", "b", "c"):
        (tmp_path / folder).mkdir()
    put(tmp_path / "a", GOOD)
    put(tmp_path / "b", GOOD).touch()
    put(tmp_path / "c", flipped(GOOD, 100))
    a, b, c = (
        Table("t", tmp_path / folder / "t.csv.gz", ("a",)).inventory() for folder in ("a", "b", "c")
    )
    assert a == b != c


def test_only_asked_columns_are_read(tmp_path: Path) -> None:
    put(tmp_path, TEXT.encode(), "t.csv")
    lazy = open_table(tmp_path, "t").scan(["value"])
    assert isinstance(lazy, pl.LazyFrame)
    assert "PROJECT 1/3" in lazy.explain()


@pytest.mark.parametrize(
    "names",
    [
        ["icu/chartevents_1.csv", "icu/chartevents_2.csv.gz", "icu/chartevents_3.csv"],
        ["CHARTEVENTS.part00.csv.gz", "CHARTEVENTS.part01.csv.gz", "CHARTEVENTS.part02.csv.gz"],
        ["icu/chartevents/0.csv", "icu/chartevents/1.csv", "icu/chartevents/2.csv"],
        [f"icu/chartevents-{number}-of-3.csv" for number in (1, 2, 3)],
    ],
)
def test_a_table_in_numbered_parts_reads_as_one(names: list[str], tmp_path: Path) -> None:
    header, *rows = TEXT.splitlines()
    for number, name in enumerate(names):
        lines = [header, *rows[number * 3000 : number * 3000 + 3000]]
        if number == 1:  # another order and case of columns
            lines = [",".join(reversed(line.split(","))) for line in lines]
            lines[0] = lines[0].upper()
        data = "\n".join(lines).encode() + b"\n"
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    (tmp_path / "chartevents_notes.csv").write_text("a\n1\n")
    put(tmp_path, TEXT.encode(), "whole.csv")
    frame = open_table(tmp_path, "icu/chartevents").read(KINDS)
    assert frame.equals(open_table(tmp_path, "whole").read(KINDS))


@pytest.mark.parametrize("there", [(1, 3), (2, 3)])
def test_a_missing_part_is_refused(there: tuple[int, ...], tmp_path: Path) -> None:
    for number in there:
        put(tmp_path, TEXT.encode(), f"t_{number}.csv")
    with pytest.raises(DataError, match=f"part {6 - sum(there)} is missing"):
        open_table(tmp_path, "t")


def test_a_part_without_a_header_is_refused_and_its_row_not_shown(tmp_path: Path) -> None:
    put(tmp_path, TEXT.encode(), "t_0.csv")
    put(tmp_path, ROWS.encode(), "t_1.csv")
    with pytest.raises(SchemaError, match=r"t_1\.csv: expected a header") as caught:
        open_table(tmp_path, "t")
    assert "secret" not in str(caught.value)


def test_a_bad_cell_is_named_with_its_part(tmp_path: Path) -> None:
    put(tmp_path, TEXT.encode(), "t_0.csv")
    put(tmp_path, b"subject_id,charttime,value\n5,2150-01-01 00:00:00,a\nx,,b\n", "t_1.csv")
    with pytest.raises(SchemaError, match=r"t_1\.csv, column subject_id, data row 2"):
        open_table(tmp_path, "t").read(KINDS)
