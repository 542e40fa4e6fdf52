"""Open any source table as a polars scan: explicit schema, .csv or .csv.gz, any header case.

A table may be one file or numbered parts (`chartevents_1.csv`, `labevents.part02.csv.gz`, or a
folder `chartevents/`), each with the header; it reads the same either way.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import polars as pl

from ...errors import DataError, SchemaError, nearest
from .blocks import DAMAGE, Block, UnreadableCell, wanted_rows
from .cells import Kind, parsed, unreadable
from .locate import ENDINGS, find, find_parts
from .row_filter import Wanted

_BROKEN: tuple[type[Exception], ...] = (pl.exceptions.PolarsError, *DAMAGE)
_EDGE = 1 << 16
_REMEDY = "Download it again and compare it with the SHA256SUMS.txt of the release."


@dataclass(frozen=True)
class Table:
    """One source table whose header has been read and checked.

    Args:
        name: Its name in the release, lower case, such as `icu/chartevents`.
        path: The file; the first part of a table in parts.
        header: Column names in file order, as written.
        more: Further parts: file and header each.
    """

    name: str
    path: Path
    header: tuple[str, ...]
    more: tuple[tuple[Path, tuple[str, ...]], ...] = ()

    @property
    def parts(self) -> tuple[tuple[Path, tuple[str, ...]], ...]:
        """Every file of the table with its header."""
        return ((self.path, self.header), *self.more)

    def has(self, column: str) -> bool:
        """Tell whether the column is there, in any case."""
        return column.lower() in {name.lower() for name in self.header}

    def scan(self, columns: Sequence[str]) -> pl.LazyFrame:
        """Scan some columns as text under their lower-case names; empty cells are null.

        Nothing is inferred and no word means missing: `None` and `NA` stay text.

        Args:
            columns: Lower-case names.

        Raises:
            SchemaError: A column is absent; the message names the nearest one.
        """
        self._require(columns)
        lazy = [_scan(path, header, columns) for path, header in self.parts]
        return lazy[0] if len(lazy) == 1 else pl.concat(lazy)

    def blocks(self, kinds: Mapping[str, Kind], key: str, ids: Sequence[int]) -> Iterator[Block]:
        """Read some columns of the rows that have one of some ids, block by block.

        Args:
            kinds: Columns in lower case, each an `id`, `time` or `text`.
            key: The one of the ids.
            ids: Wanted ids.

        Raises:
            SchemaError: A column is absent; or a cell of a wanted row, or any of the key, cannot be
                read as its kind.
            DataError: A file is truncated, damaged or no well-formed CSV.
        """
        self._require(list(kinds))
        with _explained(self):
            for path, header in self.parts:
                lower = [name.lower() for name in header]
                try:
                    yield from wanted_rows(path, Wanted(lower, kinds, key, ids))
                except UnreadableCell as error:
                    raise self.refusal(error.column, kinds[error.column]) from None

    def _require(self, columns: Sequence[str]) -> None:
        lower = [name.lower() for name in self.header]
        missing = [column for column in columns if column not in lower]
        if missing:
            near = nearest(missing[0], self.header)
            hint = f" Did you rename {near}?" if near else ""
            raise SchemaError(
                f"{self.path}: expected the column{'s' if len(missing) > 1 else ''} "
                f"{', '.join(missing)}; found {', '.join(self.header)}.{hint}"
            )

    def read(self, columns: Mapping[str, Kind]) -> pl.DataFrame:
        """Read some columns into memory, each as its kind.

        Raises:
            SchemaError: A column is absent, or a cell cannot be read as its kind.
            DataError: The file is damaged or has no rows.
        """
        text = collect(self.scan(list(columns)), self)
        if text.is_empty():
            raise DataError(f"{self.path}: expected rows below the header, found none. {_REMEDY}")
        for column, kind in columns.items():
            if text.select(unreadable(column, kind).any()).item():
                raise self.refusal(column, kind)
        return text.select(parsed(column, kind).alias(column) for column, kind in columns.items())

    def refusal(self, column: str, kind: Kind) -> SchemaError:
        """Return the error for a column with unreadable cells; finds the first such row."""
        place = f"{self.path}, column {column}"
        for path, header in self.parts:
            rows = _scan(path, header, [column], "row").filter(unreadable(column, kind))
            first = collect(rows.select(pl.col("row").min()), self).item()
            if first is not None:
                place = f"{path}, column {column}, data row {first + 1}"
                break
        meaning = {
            "id": "a whole number",
            "number": "a number",
            "time": "a time such as 2150-01-31 23:59:00",
        }[kind]
        return SchemaError(
            f"{place}: expected {meaning}, found other text "
            f"(not shown, it may be clinical). {_REMEDY}"
        )

    def inventory(self) -> dict[str, object]:
        """Return a cheap identity of the content: size and hash of both ends, no path, no time."""
        total, edges = 0, hashlib.sha256()
        for path, _ in self.parts:
            size = path.stat().st_size
            total += size
            with path.open("rb") as file:
                edges.update(file.read(_EDGE))
                file.seek(max(0, size - _EDGE))
                edges.update(file.read(_EDGE))
        return {
            "table": self.name,
            "file": ", ".join(path.name for path, _ in self.parts),
            "bytes": total,
            "edges": edges.hexdigest(),
        }


def _scan(
    path: Path, header: Sequence[str], columns: Sequence[str], row_index: str | None = None
) -> pl.LazyFrame:
    """Scan one file; parts of one table may order and spell their columns differently."""
    written = {name.lower(): name for name in header}
    lazy = pl.scan_csv(
        path,
        schema=dict.fromkeys(header, pl.String),
        has_header=True,
        glob=False,
        row_index_name=row_index,
    )
    index = [pl.col(row_index)] if row_index else []
    return lazy.select(*index, *(pl.col(written[column]).alias(column) for column in columns))


def open_table(root: Path, name: str) -> Table:
    """Find a table and read the header of each of its files.

    Raises:
        DataError: The table is missing, empty or damaged.
        SchemaError: Two columns have one name, or two parts different columns.
    """
    paths = find_parts(root, name)
    if not paths:
        present = [child.name for child in sorted(root.rglob("*.csv*"))[:200]]
        stem = name.rpartition("/")[2]
        near = nearest(stem, present)
        hint = f" The nearest name there is {near}." if near else ""
        raise DataError(
            f"{root}: expected the table {name} (.csv or .csv.gz, any case), found none.{hint} "
            "Point --data at the folder that holds the tables of the release."
        )
    headers = [_header(path) for path in paths]
    first = {column.lower() for column in headers[0]}
    for path, header in zip(paths, headers, strict=True):
        if {column.lower() for column in header} != first:
            raise SchemaError(
                f"{path}: expected a header line with the {len(first)} columns of {paths[0].name}, "
                "found another first line (not shown, it may be clinical). Every part of a table "
                "needs the header."
            )
    return Table(name, paths[0], headers[0], tuple(zip(paths, headers, strict=True))[1:])


def _header(path: Path) -> tuple[str, ...]:
    try:
        with _open(path) as file:
            header = next(csv.reader(file), [])
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(_diagnosis(path, error)) from error
    if not header:
        raise DataError(f"{path}: expected a header line, found an empty file. {_REMEDY}")
    lower = [column.lower() for column in header]
    double = sorted({column for column in lower if lower.count(column) > 1})
    if double:
        raise SchemaError(f"{path}: the header names {', '.join(double)} more than once.")
    return tuple(header)


def collect(lazy: pl.LazyFrame, *tables: Table) -> pl.DataFrame:
    """Run a scan in streaming mode and turn what goes wrong into one clear message.

    Args:
        lazy: The query.
        tables: The tables it reads, for the message.

    Raises:
        DataError: A file is truncated, damaged or no well-formed CSV.
    """
    with _explained(*tables):
        return lazy.collect(engine="streaming")


@contextmanager
def _explained(*tables: Table) -> Iterator[None]:
    try:
        for table in tables:
            for path, header in table.parts:
                _refuse_cut_last_line(path, len(header))
        yield
    except _BROKEN as error:
        files = [path for table in tables for path, _ in table.parts]
        for path in files:
            found = _damage(path)
            if found:
                raise DataError(found) from error
        names = ", ".join(map(str, files))
        raise DataError(
            f"{names}: not a well-formed CSV table (a quote that never closes, or rows with "
            f"another number of fields than the header). {_REMEDY}"
        ) from error


def _open(path: Path) -> IO[str]:
    if path.name.lower().endswith(".gz"):
        return cast(
            "IO[str]", gzip.open(path, "rt", encoding="utf-8-sig", errors="replace", newline="")
        )
    return path.open(encoding="utf-8-sig", errors="replace", newline="")


def _diagnosis(path: Path, error: Exception) -> str:
    if isinstance(error, EOFError):
        return f"{path}: truncated, the compressed stream ends too early. {_REMEDY}"
    if isinstance(error, gzip.BadGzipFile | zlib.error):
        return f"{path}: damaged, its content does not have the stored checksum. {_REMEDY}"
    return f"{path}: cannot be read ({getattr(error, 'strerror', None) or 'input error'})."


def _damage(path: Path) -> str | None:
    """Read the whole file once to name what is wrong with it; None when its bytes are fine."""
    line = 1
    try:
        opener: Any = gzip.open if path.name.lower().endswith(".gz") else open
        with opener(path, "rb") as file:
            for text in file:
                text.decode("utf-8")
                line += 1
    except UnicodeDecodeError:
        return f"{path}, line {line}: not UTF-8 text. Convert the file to UTF-8. {_REMEDY}"
    except (OSError, EOFError, zlib.error) as error:
        return _diagnosis(path, error)
    return None


def _refuse_cut_last_line(path: Path, columns: int) -> None:
    """Refuse a plain .csv that ends inside a row: polars would pad it with nulls."""
    if path.name.lower().endswith(".gz"):
        return
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - _EDGE))
        tail = file.read()
    if tail.endswith(b"\n"):
        return
    last = tail.rpartition(b"\n")[2].decode("utf-8", errors="replace")
    with suppress(csv.Error):
        fields = next(csv.reader([last]), [])
        if len(fields) != columns:
            raise DataError(
                f"{path}: truncated, its last line has {len(fields)} of {columns} fields. {_REMEDY}"
            )


__all__ = [
    "ENDINGS",
    "Table",
    "collect",
    "find",
    "find_parts",
    "open_table",
]
