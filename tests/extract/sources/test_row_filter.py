from __future__ import annotations

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cm2.extract.sources import blocks, row_filter
from cm2.extract.sources.cells import Kind
from cm2.extract.sources.row_filter import Found, Wanted

IDS = (5, 7, 211, 220045, 10**18 - 1)
HEADER = ("a", "b", "c", "d")
KINDS: tuple[dict[str, Kind], ...] = (
    {"b": "id", "d": "text"},
    {"d": "text", "c": "time", "b": "id"},
    {"a": "text", "b": "id", "c": "id"},
    {"b": "id"},
)
FIELDS = ["", "0", "5", "7", "21", "211", "2110", "220045", "007", "+7", "-7", "7x", "x", "7 "]
FIELDS += ["9" * 18, "9" * 19, "9" * 30, '"211"', '"a,b"', '"two\nlines"', '""', "é", "\r"]
FIELDS += ["2150-01-31 23:59:59", "2150-02-29 00:00:00", '"2148-02-29 00:00:00"', "2150-01-31"]
FIELDS += ["2150-01-31T23:59:59", "2150-01-31 23:59:60"]
compiled = pytest.mark.skipif(
    not row_filter.COMPILED, reason="cm2 was installed without a C compiler"
)


def texts(fields: list[str], letters: str) -> st.SearchStrategy[str]:
    field = st.sampled_from(fields)
    key = st.sampled_from(["5", "7", "211", '"7"'])
    row = st.one_of(
        st.lists(field, min_size=4, max_size=4).map(",".join),
        st.tuples(field, key, field, field).map(",".join),
        st.lists(field, min_size=1, max_size=6).map(",".join),
        st.text(letters, max_size=12),
    )
    ended = row.flatmap(lambda row: st.sampled_from([row + "\n", row + "\r\n"]))
    return st.lists(ended, max_size=8).map("".join)


def read(wanted: Wanted, found: Found) -> list[tuple[object, ...]] | None:
    """The rows; None if they are refused."""
    try:
        return sorted(blocks._block(wanted, [found]).found.rows(), key=str)
    except (blocks.UnreadableCell, pl.exceptions.PolarsError):
        return None


@compiled
@given(text=texts([*FIELDS, 'a"'], '0257,\r"x'), cut=st.integers(0, 3))
def test_the_compiled_module_sees_the_rows_that_the_pattern_sees(text: str, cut: int) -> None:
    data = text.encode()[: len(text.encode()) - cut]
    wanted = Wanted(HEADER, KINDS[0], "b", IDS)
    ours = row_filter._compiled(wanted)(data)
    theirs = row_filter._by_pattern(wanted)(data)
    # What a quote that never closes swallows is cut off by both; rows before it are found.
    assert (ours.used, ours.rows) == (theirs.used, theirs.rows)


@compiled
@given(text=texts(FIELDS, "0257,\rx"), kinds=st.sampled_from(KINDS))
@example(text="a\r,5,,\n", kinds=KINDS[2])
def test_the_compiled_module_reads_what_polars_reads(text: str, kinds: dict[str, Kind]) -> None:
    wanted = Wanted(HEADER, kinds, "b", IDS)
    ours = row_filter._compiled(wanted)(text.encode())
    assert read(wanted, ours) == read(wanted, row_filter._by_pattern(wanted)(text.encode()))


def test_plain_rows_of_other_ids_are_left_out_and_all_whole_rows_are_counted() -> None:
    text = b"1,211,a\n2,212,b\n3,0211,c\n4,,d\n5\n6,+7,e\r\n7,7\r\n8,8\r\n9,211,half"
    wanted = Wanted(("x", "y", "z"), {"y": "id", "z": "text"}, "y", IDS)
    kept = b"1,211,a\n3,0211,c\n6,+7,e\r\n7,7\r\n"
    used = len(text) - len(b"9,211,half")
    assert row_filter._by_pattern(wanted)(text) == Found([], kept, used, 8)


@compiled
def test_only_rows_out_of_the_ordinary_are_left_to_a_reader() -> None:
    text = (
        b'1,211,a\n2,212,b\n3,0211,"c,d"\r\n4,,d\n5\n6,+7,e\r\n7,7\r\n7,7,a"b"\n8,8\r\n9,211,half'
    )
    wanted = Wanted(("x", "y", "z"), {"y": "id", "z": "text"}, "y", IDS)
    found = row_filter._compiled(wanted)(text)
    assert found.text == b'6,+7,e\r\n7,7\r\n7,7,a"b"\n'
    assert (found.used, found.rows) == (len(text) - len(b"9,211,half"), 9)
    assert row_filter.frame(wanted, found.cells).rows() == [(211, "a"), (211, "c,d")]


@compiled
def test_many_ids_are_told_apart_from_all_others() -> None:
    ids = range(3, 300_000, 7)
    text = "".join(f"{i},x\n" for i in range(1, 200_000)).encode()
    wanted = Wanted(("x", "y"), {"x": "id"}, "x", ids)
    found = row_filter.frame(wanted, row_filter._compiled(wanted)(text).cells)
    assert found["x"].to_list() == [i for i in range(1, 200_000) if i in ids]


@compiled
@pytest.mark.parametrize("kinds", [b"i", b"it", b"-s", b""])
def test_ids_are_looked_for_only_where_there_are_ids(kinds: bytes) -> None:
    with pytest.raises(ValueError, match="ids at the place of the key"):
        row_filter.find(b"1,2\n", kinds, 1, row_filter.np.array(IDS))


@compiled
def test_what_is_no_text_is_refused_with_its_place_in_the_arguments() -> None:
    with pytest.raises(TypeError):
        row_filter.find("1,2\n", b"i", 0, row_filter.np.array(IDS))  # type: ignore[arg-type]
