"""The rows of a long table that have one of some ids, at about the speed of inflating it.

The file is inflated by a thread of its own, and another looks at the first fields of its rows; both
stay ahead. A row is dropped by that look, before it is split; what is left is read as any table.
"""

from __future__ import annotations

import gzip
import zlib
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar, cast

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

DAMAGE: tuple[type[Exception], ...] = (OSError, EOFError, zlib.error)
"""What reading a packed file may raise."""
_gzip: Any = gzip
try:  # several times faster than zlib; not there for every kind of processor
    from isal import igzip, isal_zlib
except ImportError:
    pass
else:
    _gzip, DAMAGE = igzip, (*DAMAGE, cast("type[Exception]", isal_zlib.error))

BLOCK_BYTES = 1 << 22
FOUND_BYTES = 1 << 23
AHEAD = 16
"""Blocks whose rows may have been looked at before the wanted ones are split."""

LONGEST_ROW = 1 << 26
"""Bytes; a longer row is taken for a quote that never closes."""

_ANY = {"row": pl.String}
_LINE_END, _QUOTE = ord("\n"), ord('"')
_Item = TypeVar("_Item")


class Rows(NamedTuple):
    """Some rows of a table that lie one after another.

    Args:
        text: They, and what follows them.
        ends: Where each ends, its line end included.
    """

    text: bytes
    ends: npt.NDArray[np.int64]


class Block(NamedTuple):
    """Part of a table.

    Args:
        found: Its rows of the wanted ids, and those whose id is no plain number, as text; empty
            cells are null.
        rows: How many rows it has.
    """

    found: pl.DataFrame
    rows: int


def wanted_rows(
    path: Path, header: Sequence[str], columns: Sequence[str], key: str, ids: Sequence[int]
) -> Generator[Block, None, None]:
    """Read some columns of the rows that have one of some ids, block by block.

    Args:
        path: The file, .csv or .csv.gz.
        header: Its column names.
        columns: Columns to read.
        key: Column of the ids.
        ids: Ids that are wanted.

    Raises:
        PolarsError: The text is no well-formed table.
        Exception: One of `DAMAGE`: the file cannot be read, is damaged, or ends too early.
    """
    pattern = _candidates(header.index(key), ids)
    number = pl.col(key).cast(pl.Int64, strict=False)
    wanted = number.is_in(list(ids)) | (pl.col(key).is_not_null() & number.is_null())
    schema = dict.fromkeys(header, pl.String)
    waiting: list[bytes] = []
    size = seen = 0

    def block() -> Block:
        lines = b"".join(waiting)
        waiting.clear()
        if not lines:
            return Block(pl.DataFrame(schema=dict.fromkeys(columns, pl.String)), seen)
        split = pl.scan_csv(lines, schema=schema, has_header=False)
        return Block(split.filter(wanted).select(columns).collect(), seen)

    with closing(_ahead(_looked_at(path, pattern), AHEAD)) as looked_at:
        for lines, rows in looked_at:
            waiting.append(lines)
            size, seen = size + len(lines), seen + rows
            if size >= FOUND_BYTES:
                yield block()
                size = seen = 0
    yield block()


def _looked_at(path: Path, pattern: str) -> Generator[tuple[bytes, int], None, None]:
    """By block, the rows that match a pattern, and how many there are in all."""
    with closing(_rows(path)) as blocks:
        for rows in blocks:
            yield _matching(rows, pattern), len(rows.ends)


def _ahead(source: Generator[_Item, None, None], depth: int) -> Generator[_Item, None, None]:
    """Draw from a generator in a thread of its own, at most `depth` items ahead."""
    thread = ThreadPoolExecutor(1)
    try:
        waiting = deque(thread.submit(next, source, None) for _ in range(depth))
        while (item := waiting.popleft().result()) is not None:
            waiting.append(thread.submit(next, source, None))
            yield item
    finally:
        thread.shutdown(cancel_futures=True)
        source.close()


def _candidates(place: int, ids: Sequence[int]) -> str:
    """Return the pattern of a row that may have one of the ids at a place among its fields.

    What it does not match has a plain number there and it is none of the ids, or no such field.
    """
    before = '[^,"]*'
    plain = "|".join(str(i) for i in sorted(ids))
    odd = r"0|[0-9]*(?:[^0-9,\r\n]|\r[^\n])|[0-9]{18}"  # zeros, signs, quotes; longer than any id
    return (
        rf"^(?:{before},){{{place}}}(?:(?:{plain})(?:,|\r?\n?$)|{odd})"
        rf'|^(?:{before},){{0,{place}}}{before}"'
    )


def _matching(rows: Rows, pattern: str) -> bytes:
    """Return the rows that match a pattern; all of them, for the reader to refuse, if no UTF-8."""
    text, ends = rows
    if not _is_utf8(text):
        return text[: ends[-1]]
    edges = np.append(0, ends)
    buffers = [None, pa.py_buffer(edges), pa.py_buffer(text)]
    whole = pa.Array.from_buffers(pa.large_string(), len(ends), buffers)
    matching = cast("pl.Series", pl.from_arrow(whole)).str.contains(pattern)
    kept = whole.filter(matching.to_arrow())
    _, kept_edges, kept_text = kept.buffers()
    return bytes(kept_text.slice(0, np.frombuffer(kept_edges, np.int64)[len(kept)]))


def _is_utf8(text: bytes) -> bool:
    with suppress(UnicodeDecodeError):
        return text.isascii() or bool(text.decode())
    return False


def _rows(path: Path) -> Generator[Rows, None, None]:
    """Yield all rows below the header; a line end within quotes ends none."""
    text = b""
    with closing(_ahead(_inflated(path), 1)) as inflated:
        for read in inflated:
            text += read
            ends = _row_ends(text)
            if len(ends):
                yield Rows(text, ends)
                text = text[ends[-1] :]
            elif len(text) > LONGEST_ROW:
                break
    if text.count(b'"') % 2:
        raise pl.exceptions.ComputeError("a quote that never closes")
    if text:
        yield Rows(text, np.array([len(text)]))


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


def _inflated(path: Path) -> Generator[bytes, None, None]:
    """The text below the header, block by block."""
    packed = path.name.lower().endswith(".gz")
    with cast("IO[bytes]", _gzip.open(path, "rb")) if packed else path.open("rb") as file:
        file.readline()
        while read := file.read(BLOCK_BYTES):
            yield read


__all__ = ["DAMAGE", "Block", "wanted_rows"]
