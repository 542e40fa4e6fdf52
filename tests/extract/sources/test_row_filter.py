from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cm2.extract.sources import row_filter
from cm2.extract.sources.row_filter import Candidates

IDS = (5, 7, 211, 220045, 10**18 - 1)
FIELDS = ["", "0", "5", "7", "21", "211", "2110", "220045", "007", "+7", "-7", "7x", "x", "7 "]
FIELDS += ["9" * 18, "9" * 19, "9" * 30, '"211"', '"a,b"', '"two\nlines"', '""', 'a"', "é", "\r"]
compiled = pytest.mark.skipif(
    not row_filter.COMPILED, reason="cm2 was installed without a C compiler"
)

fields = st.sampled_from(FIELDS)
texts = st.lists(
    st.one_of(
        st.lists(fields, min_size=1, max_size=5).map(",".join),
        st.text('0257,\r"x', max_size=12),
    ).flatmap(lambda row: st.sampled_from([row + "\n", row + "\r\n"])),
    max_size=8,
).map("".join)


@compiled
@given(text=texts, cut=st.integers(0, 3), place=st.integers(0, 3))
def test_the_compiled_module_finds_what_the_pattern_finds(text: str, cut: int, place: int) -> None:
    data = text.encode()[: len(text.encode()) - cut]
    looked = row_filter._compiled(place, IDS)(data)
    # What a quote that never closes swallows is cut off by both; rows before it are found.
    assert looked == row_filter._by_pattern(place, IDS)(data)


@pytest.mark.parametrize("make", [pytest.param("_compiled", marks=compiled), "_by_pattern"])
def test_plain_rows_of_other_ids_are_left_out_and_all_whole_rows_are_counted(make: str) -> None:
    text = b"1,211,a\n2,212,b\n3,0211,c\n4,,d\n5\n6,+7,e\r\n7,7\r\n8,8\r\n9,211,half"
    looked = getattr(row_filter, make)(1, IDS)(text)
    kept = b"1,211,a\n3,0211,c\n6,+7,e\r\n7,7\r\n"
    assert looked == Candidates(kept, len(text) - len(b"9,211,half"), 8)


@compiled
def test_many_ids_are_told_apart_from_all_others() -> None:
    ids = range(3, 300_000, 7)
    text = "".join(f"{i},x\n" for i in range(1, 200_000)).encode()
    found = row_filter._compiled(0, ids)(text).text
    assert [int(row) for row in re.findall(rb"^(\d+)", found, re.MULTILINE)] == [
        i for i in range(1, 200_000) if i in ids
    ]


@compiled
def test_what_is_no_text_is_refused_with_its_place_in_the_arguments() -> None:
    with pytest.raises(TypeError):
        row_filter.find("1,2\n", 0, row_filter.np.array(IDS))  # type: ignore[arg-type]
