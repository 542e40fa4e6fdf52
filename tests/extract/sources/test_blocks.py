from __future__ import annotations

import csv
import gc
import gzip
import io
import random
import threading
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

from cm2.errors import DataError, SchemaError
from cm2.extract.sources import blocks, row_filter
from cm2.extract.sources.blocks import UnreadableCell, wanted_rows
from cm2.extract.sources.cells import Kind
from cm2.extract.sources.row_filter import Wanted
from cm2.extract.sources.tables import open_table

HEADER = ("row_id", "stay", "item", "value", "time", "unit")
KINDS: dict[str, Kind] = {
    "time": "time",
    "row_id": "id",
    "stay": "id",
    "item": "id",
    "value": "text",
}
IDS = (7, 211, 220045)
WANTED = Wanted(HEADER, KINDS, "item", IDS)
ITEMS = ("7", "211", "220045", "21", "2110", "900000", "0211", "+7", "-7", "0")
STAYS = ("", "12", "012", "-3", "+4", str(10**18), str(2**63 - 1))
VALUES = ("5", "", "a,b", 'say "x"', "two\nlines, 1,2,211,9", "\n\n", "7", "é", '"', " 7 ")
TIMES = ("", "2150-01-31 23:59:59", "2148-02-29 00:00:00", "2150-01-31", "0001-01-01 00:00:00")


@pytest.fixture(autouse=True, params=["compiled", "pattern"])
def _filter(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "pattern":
        monkeypatch.setattr(row_filter, "COMPILED", False)
    elif not row_filter.COMPILED:
        pytest.skip("cm2 was installed without a C compiler")


def rows(seed: int, n: int = 400) -> list[list[str]]:
    draw = random.Random(seed)
    choices = (STAYS, ITEMS, VALUES, TIMES)
    return [[str(i), *(draw.choice(cells) for cells in choices), "u"] for i in range(n)]


def write(path: Path, table: list[list[str]], *, newline: str = "\n", quote_all: bool) -> Path:
    text = io.StringIO(newline="")
    quoting = csv.QUOTE_ALL if quote_all else csv.QUOTE_MINIMAL
    csv.writer(text, lineterminator=newline, quoting=quoting).writerows([HEADER, *table])
    data = text.getvalue().encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def as_read(row: list[str], *, quoted: bool) -> tuple[object, ...]:
    """What a row means, by other means; nothing is null, but in quotes it is an empty text."""
    number, stay, item, value, time, _ = row
    when = datetime.fromisoformat(time) if time else None
    text = value if value or quoted else None
    return (when, int(number), int(stay) if stay else None, int(item), text)


def read(path: Path, wanted: Wanted = WANTED) -> tuple[list[tuple[object, ...]], int]:
    found = list(wanted_rows(path, wanted))
    whole = pl.concat([part.found for part in found])
    return whole.sort(*whole.columns).rows(), sum(part.rows for part in found)


def test_a_reader_that_stops_early_leaves_no_thread_and_no_open_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 100)
    monkeypatch.setattr(blocks, "FOUND_BYTES", 100)
    path = write(tmp_path / "t.csv", rows(0, 5000), quote_all=False)
    before = threading.active_count()
    found = wanted_rows(path, WANTED)
    next(found)
    assert threading.active_count() == before + 2
    found.close()
    assert threading.active_count() == before
    del found
    gc.collect()  # a file that was left open warns, and warnings are errors


@pytest.mark.parametrize("block_bytes", [37, 1000])
@pytest.mark.parametrize("quote_all", [False, True])
@pytest.mark.parametrize("ending", [".csv", ".csv.gz"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_the_wanted_rows_are_read_and_all_are_counted(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    block_bytes: int,
    quote_all: bool,
    ending: str,
    newline: str,
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", block_bytes)
    monkeypatch.setattr(blocks, "FOUND_BYTES", 5 * block_bytes)
    table = [row for row in rows(block_bytes) if not quote_all or (row[1] and row[4])]
    path = write(tmp_path / f"t{ending}", table, newline=newline, quote_all=quote_all)
    found, n = read(path)
    expected = [as_read(row, quoted=quote_all) for row in table if int(row[2]) in IDS]
    assert sorted(found, key=str) == sorted(expected, key=str)
    assert n == len(table)


@pytest.mark.parametrize(
    ("column", "cell"),
    [
        ("stay", "a b"),
        ("stay", "9" * 20),
        ("stay", '""'),
        ("time", "2150-02-30 00:00:00"),
        ("time", "2150-02-29 00:00:00"),
        ("time", "2150-13-01 00:00:00"),
        ("time", "2150-00-01 00:00:00"),
        ("time", "2150-01-00 00:00:00"),
        ("time", "2150-01-01 24:00:00"),
        ("time", "2150-01-01 23:60:00"),
        ("time", "2150-01-01 23:59"),
        ("time", "2150-01-01 23:59:5x"),
        ("time", '""'),
        ("item", "x"),
        ("item", "7x"),
        ("item", "9" * 20),
        ("item", '""'),
    ],
)
def test_a_filled_cell_of_another_kind_is_refused_by_the_name_of_its_column(
    tmp_path: Path, column: str, cell: str
) -> None:
    row = dict(zip(HEADER, ["1", "2", "211", "5", "2150-01-01 00:00:00", "u"], strict=True))
    bad = ",".join((row | {column: cell}).values())
    path = tmp_path / "t.csv"
    path.write_text("\n".join([",".join(HEADER), ",".join(row.values()), bad, ""]))
    with pytest.raises(UnreadableCell) as refused:
        read(path)
    assert refused.value.column == column
    with pytest.raises(SchemaError, match=rf"t\.csv, column {column}, data row 2"):
        list(open_table(tmp_path, "t").blocks(KINDS, "item", IDS))
    if column != "item":  # of a row that nobody wants nothing is read
        path.write_text(path.read_text().replace("211", "212"))
        assert read(path) == ([], 2)


def test_every_time_of_the_calendar_is_read_as_it_is_written(tmp_path: Path) -> None:
    draw = random.Random(1)
    first, last = datetime(1, 1, 1), datetime(9999, 12, 31)
    times = [first, last, *(first + draw.random() * (last - first) for _ in range(3000))]
    times += [datetime(year, 2, 28, 23, 59, 59) for year in range(1, 9999, 7)]
    times += [datetime(year, 3, 1) for year in range(1, 9999)]
    written = [f"{time:%Y}".zfill(4) + f"{time:-%m-%d %H:%M:%S}" for time in times]
    table = [[str(i), "", "7", "", time, "u"] for i, time in enumerate(written)]
    found, _ = read(write(tmp_path / "t.csv", table, quote_all=False))
    assert [row[0] for row in found] == sorted(time.replace(microsecond=0) for time in times)


def test_the_ids_may_stand_in_the_first_and_in_the_last_column(tmp_path: Path) -> None:
    ends = [("7", "211"), ("70", "7"), ("211", "21"), ("7", "")]
    table = [[first, "", "", "", "", last] for first, last in ends]
    path = write(tmp_path / "t.csv", table, newline="\r\n", quote_all=False)
    kinds: dict[str, Kind] = {"row_id": "id", "unit": "id"}
    by_first, by_last = (Wanted(HEADER, kinds, key, IDS) for key in ("row_id", "unit"))
    assert read(path, by_first)[0] == [(7, None), (7, 211), (211, 21)]
    assert read(path, by_last)[0] == [(7, 211), (70, 7)]


def test_most_rows_are_dropped_before_they_are_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split: list[int] = []
    scan = pl.scan_csv
    monkeypatch.setattr(
        blocks.pl, "scan_csv", lambda text, **k: split.append(len(text)) or scan(text, **k)
    )
    table = [[str(i), "", "211" if i % 100 == 0 else "900000", "5", "", "u"] for i in range(5000)]
    path = write(tmp_path / "t.csv", table, quote_all=False)
    assert read(path)[1] == 5000
    if row_filter.COMPILED:
        assert not split
    else:
        assert 0 < sum(split) < path.stat().st_size / 50


def test_bytes_that_are_no_text_are_refused_in_any_row(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(",".join(HEADER).encode() + b"\n1,2,211,5,,F\n2,2,9,5,,\xb0F\n")
    with pytest.raises(DataError, match=r"line 3: not UTF-8"):
        list(open_table(tmp_path, "t").blocks(KINDS, "item", IDS))


@pytest.mark.parametrize("text", ["", HEADER[0], ",".join(HEADER), ",".join(HEADER) + "\n"])
def test_a_table_without_rows_has_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    assert read(path) == ([], 0)


@pytest.mark.parametrize("item", ["211", "9"])  # a wanted one, and one that is not
@pytest.mark.parametrize("longest", [5_000, 1 << 20])
def test_a_quote_that_never_closes_is_refused_in_any_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, item: str, longest: int
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 1000)
    monkeypatch.setattr(blocks, "LONGEST_ROW", longest)
    path = tmp_path / "t.csv"
    path.write_text(",".join(HEADER) + f'\n1,2,{item},"5,,u\n' + "3,4,9,5,,u\n" * 10_000)
    with pytest.raises(pl.exceptions.PolarsError):
        read(path)


def test_without_the_faster_library_the_same_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "t.csv.gz", rows(3), quote_all=False)
    fast = read(path)
    monkeypatch.setattr(blocks, "_gzip", gzip)
    assert read(path) == fast
