"""The rows of a long table that have one of some ids, at about the speed of inflating it.

The file is inflated by a thread of its own, and another looks at the first fields of its rows; both
stay ahead. A row is dropped by that look, before it is split; what is left is read as any table.
"""

from __future__ import annotations

import gzip
import zlib
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar, cast

import polars as pl

from .row_filter import COMPILED, Candidates, row_filter

DAMAGE: tuple[type[Exception], ...] = (OSError, EOFError, zlib.error)
"""What reading a packed file may raise."""
_gzip: Any = gzip
try:  # several times faster than zlib; not there for every kind of processor
    from isal import igzip, isal_zlib
except ImportError:
    pass
else:
    _gzip, DAMAGE = igzip, (*DAMAGE, cast("type[Exception]", isal_zlib.error))

BLOCK_BYTES = 1 << (20 if COMPILED else 22)
"""What fits the processor's cache; the pattern pays for every call, so it gets more at once."""

FOUND_BYTES = 1 << 23
AHEAD = (1 << 26) // BLOCK_BYTES
"""Blocks whose rows may have been looked at before the wanted ones are split."""

LONGEST_ROW = 1 << 26
"""Bytes; a longer row is taken for a quote that never closes."""

_Item = TypeVar("_Item")


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
    look = row_filter(header.index(key), ids)
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

    with closing(_ahead(_looked_at(path, look), AHEAD)) as looked_at:
        for lines, rows in looked_at:
            waiting.append(lines)
            size, seen = size + len(lines), seen + rows
            if size >= FOUND_BYTES:
                yield block()
                size = seen = 0
    yield block()


def _looked_at(
    path: Path, look: Callable[[bytes], Candidates]
) -> Generator[tuple[bytes, int], None, None]:
    """By block, the rows that are candidates, and how many there are in all."""
    text = b""
    with closing(_ahead(_inflated(path), 1)) as inflated:
        for read in inflated:
            text += read
            found, used, rows = look(text)
            yield found, rows
            text = text[used:]
            if len(text) > LONGEST_ROW:
                break
    if text.count(b'"') % 2:
        raise pl.exceptions.ComputeError("a quote that never closes")
    if text:  # the last row may have no line end
        found, _, rows = look(text + b"\n")
        yield found, rows


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


def _inflated(path: Path) -> Generator[bytes, None, None]:
    """The text below the header, block by block."""
    packed = path.name.lower().endswith(".gz")
    with cast("IO[bytes]", _gzip.open(path, "rb")) if packed else path.open("rb") as file:
        file.readline()
        while read := file.read(BLOCK_BYTES):
            yield read


__all__ = ["DAMAGE", "Block", "wanted_rows"]
