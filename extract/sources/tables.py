"""Open any source table as a polars scan: explicit schema, .csv or .csv.gz, any header case."""

from __future__ import annotations

import csv
import difflib
import gzip
import hashlib
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, cast

import polars as pl

from ...errors import DataError, SchemaError

Kind = Literal["text", "id", "number", "time"]

ENDINGS = (".csv.gz", ".csv")  # the released form first: its checksum proves that it is whole
_EDGE = 1 << 16
_REMEDY = "Download it again and compare it with the SHA256SUMS.txt of the release."


def parsed(column: str, kind: Kind) -> pl.Expr:
    """Return the expression that reads a text column as `kind`; null where that is impossible.

    Args:
        column: Name of a text column.
        kind: `id` whole number, `number` float, `time` date with or without time of day, `text`.
    """
    value = pl.col(column)
    if kind == "id":
        return value.cast(pl.Int64, strict=False)
    if kind == "number":
        return value.cast(pl.Float64, strict=False)
    if kind == "time":
        full = value.str.to_datetime("%Y-%m-%d %H:%M:%S", strict=False, time_unit="us")
        return full.fill_null(value.str.to_datetime("%Y-%m-%d", strict=False, time_unit="us"))
    return value


def unreadable(column: str, kind: Kind) -> pl.Expr:
    """Return the expression that is true where a cell is filled and cannot be read as `kind`."""
    return pl.col(column).is_not_null() & parsed(column, kind).is_null()


@dataclass(frozen=True)
class Table:
    """One source file whose header has been read and checked.

    Args:
        name: Its name in the release, lower case, such as `icu/chartevents`.
        path: The file.
        header: Column names in file order, as written.
    """

    name: str
    path: Path
    header: tuple[str, ...]

    def has(self, column: str) -> bool:
        """Tell whether the column is there, in any case."""
        return column.lower() in {name.lower() for name in self.header}

    def scan(self, columns: Sequence[str]) -> pl.LazyFrame:
        """Scan some columns as text under their lower-case names; empty cells are null.

        Nothing is inferred and no word means missing: `None` and `NA` stay text.

        Raises:
            SchemaError: A column is absent; the message names the nearest one.
        """
        written = {name.lower(): name for name in self.header}
        missing = [column for column in columns if column not in written]
        if missing:
            near = difflib.get_close_matches(missing[0], list(written), n=1, cutoff=0.5)
            hint = f" Did you rename {written[near[0]]}?" if near else ""
            raise SchemaError(
                f"{self.path}: expected the column{'s' if len(missing) > 1 else ''} "
                f"{', '.join(missing)}; found {', '.join(self.header)}.{hint}"
            )
        lazy = pl.scan_csv(
            self.path,
            schema=dict.fromkeys(self.header, pl.String),
            has_header=True,
            glob=False,
        )
        return lazy.select(pl.col(written[column]).alias(column) for column in columns)

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
        rows = self.scan([column]).with_row_index("row", offset=1).filter(unreadable(column, kind))
        first = collect(rows.select(pl.col("row").min()), self).item()
        meaning = {
            "id": "a whole number",
            "number": "a number",
            "time": "a time such as 2150-01-31 23:59:00",
        }[kind]
        return SchemaError(
            f"{self.path}, column {column}, data row {first}: expected {meaning}, found other text "
            f"(not shown, it may be clinical). {_REMEDY}"
        )

    def inventory(self) -> dict[str, object]:
        """Return a cheap identity of the content: size and hash of both ends, no path, no time."""
        size = self.path.stat().st_size
        with self.path.open("rb") as file:
            edges = hashlib.sha256(file.read(_EDGE))
            file.seek(max(0, size - _EDGE))
            edges.update(file.read(_EDGE))
        return {
            "table": self.name,
            "file": self.path.name,
            "bytes": size,
            "edges": edges.hexdigest(),
        }


def folders(root: Path, name: str) -> Iterable[Path]:
    """Yield the folders where a table may lie: its own, the root (flat copies), core (v1.0)."""
    inner = {
        child.name.lower(): child
        for child in sorted(root.iterdir(), reverse=True)
        if child.is_dir()
    }
    own, _, _ = name.rpartition("/")
    for folder in (own, "core" if own == "hosp" else own):
        if folder and folder in inner:
            yield inner[folder]
    yield root


def find(root: Path, name: str) -> Path | None:
    """Return the file of a table, or None; names match in any case, .csv.gz before .csv.

    Args:
        root: Folder of the release.
        name: Table with its folder, lower case, such as `hosp/labevents` or `chartevents`.
    """
    if not root.is_dir():
        return None
    stem = name.rpartition("/")[2]
    for folder in folders(root, name):
        files = {child.name.lower(): child for child in sorted(folder.iterdir(), reverse=True)}
        for ending in ENDINGS:
            path = files.get(stem + ending)
            if path is not None and path.is_file():
                return path
    return None


def open_table(root: Path, name: str) -> Table:
    """Find a table and read its header.

    Raises:
        DataError: The table is missing, empty or damaged.
        SchemaError: Two columns have one name.
    """
    path = find(root, name)
    if path is None:
        present = [child.name for child in sorted(root.rglob("*.csv*"))[:200]]
        stem = name.rpartition("/")[2]
        near = difflib.get_close_matches(stem, present, n=1, cutoff=0.4)
        hint = f" The nearest name there is {near[0]}." if near else ""
        raise DataError(
            f"{root}: expected the table {name} (.csv or .csv.gz, any case), found none.{hint} "
            "Point --data at the folder that holds the tables of the release."
        )
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
    return Table(name, path, tuple(header))


def collect(lazy: pl.LazyFrame, *tables: Table) -> pl.DataFrame:
    """Run a scan in streaming mode and turn what goes wrong into one clear message.

    Args:
        lazy: The query.
        tables: The tables it reads, for the message.

    Raises:
        DataError: A file is truncated, damaged or no well-formed CSV.
    """
    try:
        for table in tables:
            _refuse_cut_last_line(table)
        return lazy.collect(engine="streaming")
    except (pl.exceptions.PolarsError, OSError) as error:
        for table in tables:
            found = _damage(table.path)
            if found:
                raise DataError(found) from error
        names = ", ".join(str(table.path) for table in tables)
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


def _refuse_cut_last_line(table: Table) -> None:
    """Refuse a plain .csv that ends inside a row: polars would pad it with nulls."""
    if table.path.name.lower().endswith(".gz"):
        return
    size = table.path.stat().st_size
    with table.path.open("rb") as file:
        file.seek(max(0, size - _EDGE))
        tail = file.read()
    if tail.endswith(b"\n"):
        return
    last = tail.rpartition(b"\n")[2].decode("utf-8", errors="replace")
    with suppress(csv.Error):
        fields = next(csv.reader([last]), [])
        if len(fields) != len(table.header):
            raise DataError(
                f"{table.path}: truncated, its last line has {len(fields)} of "
                f"{len(table.header)} fields. {_REMEDY}"
            )


__all__ = ["Kind", "Table", "collect", "find", "open_table", "parsed", "unreadable"]
