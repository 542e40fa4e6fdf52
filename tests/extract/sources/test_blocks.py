from __future__ import annotations

import csv
import gc
import gzip
import io
import random
import threading
from pathlib import Path

import polars as pl
import pytest

from cm2.errors import DataError
from cm2.extract.sources import blocks, row_filter
from cm2.extract.sources.blocks import wanted_rows
from cm2.extract.sources.tables import open_table

HEADER = ("row", "stay", "item", "value", "unit")
WANTED = (7, 211, 220045)
ITEMS = ("7", "211", "220045", "21", "2110", "900000", "", "0211", "+7", "x", "7x", "9" * 20)
VALUES = ("5", "", "a,b", 'say "x"', "two\nlines, 1,2,211,9", "\n\n", "7", "é")


@pytest.fixture(autouse=True, params=["compiled", "pattern"])
def _filter(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "pattern":
        monkeypatch.setattr(row_filter, "COMPILED", False)
    elif not row_filter.COMPILED:
        pytest.skip("cm2 was installed without a C compiler")


def rows(seed: int, n: int = 200) -> list[list[str]]:
    draw = random.Random(seed)
    return [
        [str(i), draw.choice(("", "12", "a b")), draw.choice(ITEMS), draw.choice(VALUES), "u"]
        for i in range(n)
    ]


def write(path: Path, table: list[list[str]], *, newline: str = "\n", quote_all: bool) -> Path:
    text = io.StringIO(newline="")
    quoting = csv.QUOTE_ALL if quote_all else csv.QUOTE_MINIMAL
    csv.writer(text, lineterminator=newline, quoting=quoting).writerows([HEADER, *table])
    data = text.getvalue().encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def is_found(item: str, quoted: bool) -> bool:
    """Wanted, or filled with what is no whole number of 64 bits; nothing in quotes is filled."""
    if not item:
        return quoted
    try:
        number = int(item)
    except ValueError:
        return True
    return number in WANTED or number >= 1 << 63


def read(path: Path, key: str = "item") -> tuple[list[tuple[str, ...]], int]:
    found = list(wanted_rows(path, HEADER, ("row", "item", "value"), key, WANTED))
    return pl.concat([part.found for part in found]).rows(), sum(part.rows for part in found)


def test_a_reader_that_stops_early_leaves_no_thread_and_no_open_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 100)
    monkeypatch.setattr(blocks, "FOUND_BYTES", 100)
    path = write(tmp_path / "t.csv", rows(0, 5000), quote_all=False)
    before = threading.active_count()
    found = wanted_rows(path, HEADER, ("row", "item"), "item", WANTED)
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
def test_exactly_the_wanted_and_the_odd_rows_are_found_and_all_are_counted(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    block_bytes: int,
    quote_all: bool,
    ending: str,
    newline: str,
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", block_bytes)
    monkeypatch.setattr(blocks, "FOUND_BYTES", 5 * block_bytes)
    table = rows(block_bytes)
    path = write(tmp_path / f"t{ending}", table, newline=newline, quote_all=quote_all)
    found, n = read(path)
    expected = [(r[0], r[2], r[3]) for r in table if is_found(r[2], quote_all)]
    assert [(row, item, value or "") for row, item, value in found] == expected
    assert n == len(table)


def test_the_ids_may_stand_in_the_first_and_in_the_last_column(tmp_path: Path) -> None:
    table = [["7", "", "1", "", "211"], ["70", "", "7", "", "2110"], ["211", "", "7", "", "21"]]
    path = write(tmp_path / "t.csv", table, newline="\r\n", quote_all=False)
    assert [row[0] for row in read(path, "row")[0]] == ["7", "211"]
    assert [row[0] for row in read(path, "unit")[0]] == ["7"]


def test_most_rows_are_dropped_before_they_are_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split: list[int] = []
    scan = pl.scan_csv
    monkeypatch.setattr(
        blocks.pl, "scan_csv", lambda text, **k: split.append(len(text)) or scan(text, **k)
    )
    table = [[str(i), "", "211" if i % 100 == 0 else "900000", "5", "u"] for i in range(5000)]
    path = write(tmp_path / "t.csv", table, quote_all=False)
    assert read(path)[1] == 5000
    assert 0 < sum(split) < path.stat().st_size / 50


def test_bytes_that_are_no_text_are_refused_in_any_row(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"row,stay,item,value,unit\n1,2,211,5,F\n2,2,9,5,\xb0F\n")
    with pytest.raises(DataError, match=r"line 3: not UTF-8"):
        list(open_table(tmp_path, "t").blocks(("row", "item"), "item", WANTED))


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
    path.write_text(",".join(HEADER) + f'\n1,2,{item},"5,u\n' + "3,4,9,5,u\n" * 10_000)
    with pytest.raises(pl.exceptions.PolarsError):
        read(path)


def test_without_the_faster_library_the_same_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "t.csv.gz", rows(3), quote_all=False)
    fast = read(path)
    monkeypatch.setattr(blocks, "_gzip", gzip)
    assert read(path) == fast
