"""The rows of a CSV text that have one of some ids in one field, with the cells that are wanted.

A small compiled module reads the cells of plain rows; where a cell or a quote is out of the
ordinary, the row is handed on as text, for a reader to judge. Where cm2 was installed without a C
compiler, a regular expression finds the rows that may be wanted, and all are handed on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from .cells import Kind

try:
    from ._row_filter import find
except ImportError:  # there was no C compiler
    COMPILED = False
else:
    COMPILED = True
"""Whether the compiled module is there."""

Text = bytes | memoryview

_CODES: dict[Kind | None, bytes] = {None: b"-", "id": b"i", "time": b"t", "text": b"s"}
_TYPES: dict[Kind, pl.DataType] = {"id": pl.Int64(), "time": pl.Datetime("us")}
_MISSING = np.iinfo(np.int64).min
_ANY = {"row": pl.String}
_LINE_END, _QUOTE = ord("\n"), ord('"')


class Wanted(NamedTuple):
    """What is wanted of a table.

    Args:
        header: Its column names.
        kinds: Columns to read, each an `id`, `time` or `text`.
        key: The one of the ids; it is read too.
        ids: Ids whose rows are wanted.
    """

    header: Sequence[str]
    kinds: Mapping[str, Kind]
    key: str
    ids: Sequence[int]


class Found(NamedTuple):
    """What was found in a text.

    Args:
        cells: Of the plain rows that are wanted, column by column as they stand there, see `frame`.
        text: Rows to be read, as they stand there; some may not be wanted.
        used: Bytes of the text that hold whole rows.
        rows: How many rows those are.
    """

    cells: list[bytes]
    text: bytes
    used: int
    rows: int


def row_filter(wanted: Wanted) -> Callable[[Text], Found]:
    """Return a function that looks at the whole rows of a text; a row ends with its line end.

    A line end within quotes ends none. Of a text that is not UTF-8 all rows are handed on, for the
    reader to refuse.
    """
    return _compiled(wanted) if COMPILED else _by_pattern(wanted)


def frame(wanted: Wanted, cells: Sequence[bytes]) -> pl.DataFrame:
    """Return cells as a table.

    Args:
        wanted: What they are.
        cells: For each wanted column in the order of the header: numbers, int64; or the lengths of
            texts, int32, and the texts one behind another, UTF-8. A time is in microseconds since
            1970. The lowest number and a negative length mean null.
    """
    left = iter(cells)
    columns: dict[str, pl.Series] = {}
    for name in wanted.header:
        if name in wanted.kinds:
            values = next(left, b"")
            columns[name] = (
                _texts(np.frombuffer(values, np.int32), next(left, b""))
                if wanted.kinds[name] == "text"
                else pl.Series(np.frombuffer(values, np.int64))
            )
    present = [
        pl.when(pl.col(name) != _MISSING).then(name).cast(_TYPES[kind])
        for name, kind in wanted.kinds.items()
        if kind in _TYPES
    ]
    return pl.DataFrame(columns).with_columns(present).select(*wanted.kinds)


def _texts(lengths: npt.NDArray[np.int32], text: bytes) -> pl.Series:
    ends = np.concatenate([[0], np.cumsum(np.maximum(lengths, 0), dtype=np.int64)])
    filled = np.packbits(lengths >= 0, bitorder="little")
    buffers = [pa.py_buffer(filled), pa.py_buffer(ends), pa.py_buffer(text)]
    whole = pa.Array.from_buffers(pa.large_string(), len(lengths), buffers)
    return cast("pl.Series", pl.from_arrow(whole))


def _compiled(wanted: Wanted) -> Callable[[Text], Found]:
    codes = b"".join(_CODES[wanted.kinds.get(name)] for name in wanted.header)
    place, ids = wanted.header.index(wanted.key), np.array(wanted.ids, np.int64)

    def look(text: Text) -> Found:
        cells, rest, used, rows, plain = find(text, codes, place, ids)
        if plain or _is_utf8(text[:used]):
            return Found(cells, rest, used, rows)
        return Found([], bytes(text[:used]), used, rows)

    return look


def _by_pattern(wanted: Wanted) -> Callable[[Text], Found]:
    pattern = _candidates(wanted.header.index(wanted.key), wanted.ids)

    def look(text: Text) -> Found:
        whole = bytes(text)
        ends = _row_ends(whole)
        used = int(ends[-1]) if len(ends) else 0
        readable = whole.isascii() or _is_utf8(whole[:used])
        found = _matching(whole, ends, pattern) if readable else whole[:used]
        return Found([], found, used, len(ends))

    return look


def _is_utf8(text: Text) -> bool:
    try:
        str(text, "utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _candidates(place: int, ids: Sequence[int]) -> str:
    """Return the pattern of a row that may have one of the ids at a place among its fields."""
    before = '[^,"]*'
    plain = "|".join(str(i) for i in sorted(ids))
    odd = r"0|[0-9]*(?:[^0-9,\r\n]|\r[^\n])|[0-9]{19}"  # zeros, signs, quotes; longer than any id
    return (
        rf"^(?:{before},){{{place}}}(?:(?:{plain})(?:,|\r?\n$)|{odd})"
        rf'|^(?:{before},){{0,{place}}}{before}"'
    )


def _matching(text: bytes, ends: npt.NDArray[np.int64], pattern: str) -> bytes:
    """Return the rows that match a pattern.

    Args:
        text: UTF-8 up to the last end.
        ends: Where each row ends, its line end included.
        pattern: Regular expression.
    """
    edges = np.append(0, ends)
    buffers = [None, pa.py_buffer(edges), pa.py_buffer(text)]
    whole = pa.Array.from_buffers(pa.large_string(), len(ends), buffers)
    matching = cast("pl.Series", pl.from_arrow(whole)).str.contains(pattern)
    kept = whole.filter(matching.to_arrow())
    _, kept_edges, kept_text = kept.buffers()
    return bytes(kept_text.slice(0, np.frombuffer(kept_edges, np.int64)[len(kept)]))


def _row_ends(text: bytes) -> npt.NDArray[np.int64]:
    data = np.frombuffer(text, np.uint8)
    ends = np.flatnonzero(data == _LINE_END)
    if b'"' in text and _rows_of(text) < len(ends) + (not text.endswith(b"\n")):
        within_quotes = np.searchsorted(np.flatnonzero(data == _QUOTE), ends) % 2 == 1
        ends = ends[~within_quotes]
    return ends + 1


def _rows_of(text: bytes) -> int:
    """Count the rows, one that is not whole yet too; much faster than to look at each quote."""
    return int(pl.scan_csv(text, schema=_ANY, has_header=False).select(pl.len()).collect().item())


__all__ = ["COMPILED", "Found", "Wanted", "frame", "row_filter"]
