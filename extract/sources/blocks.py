"""The rows of a long table that have one of some ids, at about the speed of inflating it.

The file is inflated by a thread of its own, and another picks the rows and reads the plain ones;
both stay ahead.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import IO, Any, NamedTuple, TypeVar, cast

import polars as pl

from .cells import parsed, unreadable
from .row_filter import COMPILED, Found, Text, Wanted, frame, row_filter

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

FOUND_BYTES = 1 << 22
"""Bytes of cells and rows that make a block for the caller."""

INFLATED_AHEAD = 4
"""Blocks of text that may wait until they are looked at."""

LOOKED_AHEAD = (1 << 26) // BLOCK_BYTES
"""Blocks of text that may have been looked at before the caller takes what was found."""

LONGEST_ROW = 1 << 26
"""Bytes; a longer row is taken for a quote that never closes."""

_Item = TypeVar("_Item")


class Block(NamedTuple):
    """Part of a table.

    Args:
        found: Its rows of the wanted ids, in any order; empty cells are null.
        rows: How many rows it has.
    """

    found: pl.DataFrame
    rows: int


class UnreadableCell(Exception):
    """A filled cell is not of the kind of its column.

    Args:
        column: Name of the column.
    """

    def __init__(self, column: str) -> None:
        super().__init__(column)
        self.column = column


def wanted_rows(path: Path, wanted: Wanted) -> Generator[Block, None, None]:
    """Read some columns of the rows that have one of some ids, block by block.

    Args:
        path: The file, .csv or .csv.gz.
        wanted: The columns and ids.

    Raises:
        UnreadableCell: A cell of a wanted row, or of the key in any row, is not of its kind.
        PolarsError: The text is no well-formed table.
        Exception: One of `DAMAGE`: the file cannot be read, is damaged, or ends too early.
    """
    waiting: list[Found] = []
    size = 0
    with closing(_ahead(_looked_at(path, row_filter(wanted)), LOOKED_AHEAD)) as looked_at:
        for found in looked_at:
            waiting.append(found)
            size += len(found.text) + sum(map(len, found.cells))
            if size >= FOUND_BYTES:
                yield _block(wanted, waiting)
                waiting, size = [], 0
    yield _block(wanted, waiting)


def _block(wanted: Wanted, parts: Sequence[Found]) -> Block:
    columns = zip(*(part.cells for part in parts if part.cells), strict=True)
    found = frame(wanted, [b"".join(column) for column in columns])
    text = b"".join(part.text for part in parts)
    if text:
        found = pl.concat([found, _read(wanted, text)])
    return Block(found, sum(part.rows for part in parts))


def _read(wanted: Wanted, text: bytes) -> pl.DataFrame:
    """Read rows; some may have none of the ids."""
    is_wanted = parsed(wanted.key, "id").is_in(list(wanted.ids)) | unreadable(wanted.key, "id")
    schema = dict.fromkeys(wanted.header, pl.String)
    empty = b"," * (len(schema) - 1) + b"\n"  # polars would refuse a first row that is too short
    split = pl.scan_csv(empty + text, schema=schema, has_header=False)
    cells = split.filter(is_wanted).select(*wanted.kinds).collect()
    read = cells.with_columns(parsed(column, kind) for column, kind in wanted.kinds.items())
    for column in wanted.kinds:
        if read[column].null_count() > cells[column].null_count():
            raise UnreadableCell(column)
    return read


def _looked_at(path: Path, look: Callable[[Text], Found]) -> Generator[Found, None, None]:
    """What is found in each block."""
    rest = b""
    with closing(_ahead(_inflated(path), INFLATED_AHEAD)) as inflated:
        for read in inflated:
            block = memoryview(read)
            if rest:  # finish its row, rather than copy the whole block behind it
                end = read.find(b"\n") + 1
                row = look(rest + read[:end])
                yield row
                block = block[end:] if row.used else memoryview(rest + read)  # within quotes
            found = look(block)
            yield found
            rest = bytes(block[found.used :])
            if len(rest) > LONGEST_ROW:
                break
    if rest.count(b'"') % 2:
        raise pl.exceptions.ComputeError("a quote that never closes")
    if rest:  # the last row may have no line end
        yield look(rest + b"\n")


def _ahead(source: Generator[_Item, None, None], depth: int) -> Generator[_Item, None, None]:
    """Draw from a generator in a thread of its own, at most `depth` items ahead."""
    asked: SimpleQueue[None] = SimpleQueue()
    drawn: SimpleQueue[_Item | Exception | None] = SimpleQueue()
    stopped = False

    def draw() -> None:
        while True:
            asked.get()
            if stopped:
                return
            try:
                drawn.put(next(source, None))
            except Exception as error:
                drawn.put(error)

    thread = Thread(target=draw)
    thread.start()
    try:
        for _ in range(depth):
            asked.put(None)
        while (item := drawn.get()) is not None:
            if isinstance(item, Exception):
                raise item
            asked.put(None)
            yield item
    finally:
        stopped = True
        asked.put(None)
        thread.join()
        source.close()


def _inflated(path: Path) -> Generator[bytes, None, None]:
    """The text below the header, block by block."""
    packed = path.name.lower().endswith(".gz")
    with cast("IO[bytes]", _gzip.open(path, "rb")) if packed else path.open("rb") as file:
        file.readline()
        while read := file.read(BLOCK_BYTES):
            yield read


__all__ = ["DAMAGE", "Block", "UnreadableCell", "wanted_rows"]
