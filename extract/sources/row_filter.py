"""The rows of a CSV text that may have one of some ids in one field, before anything is split.

What is left out has a plain number there and it is none of the ids, or no such field; a reader
judges the rest. A small compiled module does it; where cm2 was installed without a C compiler, a
regular expression finds the same in about five times the time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

try:
    from ._row_filter import find
except ImportError:  # there was no C compiler
    COMPILED = False
else:
    COMPILED = True
"""Whether the compiled module is there."""

_ANY = {"row": pl.String}
_LINE_END, _QUOTE = ord("\n"), ord('"')


class Candidates(NamedTuple):
    """What was found in a text.

    Args:
        text: The rows to be read, as they stand there.
        used: Bytes of the text that hold whole rows.
        rows: How many rows those are.
    """

    text: bytes
    used: int
    rows: int


def row_filter(place: int, ids: Sequence[int]) -> Callable[[bytes], Candidates]:
    """Return a function that looks at the whole rows of a text; a row ends with its line end.

    A line end within quotes ends none. Of a text that is not UTF-8 all rows are handed on, for the
    reader to refuse.

    Args:
        place: Position of the field, from 0.
        ids: Ids that are wanted.
    """
    return _compiled(place, ids) if COMPILED else _by_pattern(place, ids)


def _compiled(place: int, ids: Sequence[int]) -> Callable[[bytes], Candidates]:
    wanted = np.array(ids, np.int64)

    def look(text: bytes) -> Candidates:
        found, used, rows, plain = find(text, place, wanted)
        readable = plain or _is_utf8(text, used)
        return Candidates(found if readable else text[:used], used, rows)

    return look


def _by_pattern(place: int, ids: Sequence[int]) -> Callable[[bytes], Candidates]:
    pattern = _candidates(place, ids)

    def look(text: bytes) -> Candidates:
        ends = _row_ends(text)
        used = int(ends[-1]) if len(ends) else 0
        found = _matching(text, ends, pattern) if _is_utf8(text, used) else text[:used]
        return Candidates(found, used, len(ends))

    return look


def _is_utf8(text: bytes, used: int) -> bool:
    with suppress(UnicodeDecodeError):
        return text.isascii() or bool(text[:used].decode()) or not used
    return False


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


__all__ = ["COMPILED", "Candidates", "row_filter"]
