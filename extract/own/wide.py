"""Wide tables of the user: one row per stay, columns of numbers and of categories."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from ...cache.cohort import Cohort
from ...cache.store import Space
from ...errors import DataError, SchemaError
from ..work import Plan
from . import rows
from .spec import KNOWN, OwnFile
from .tables import (
    collect,
    filtered,
    header,
    id_text,
    is_text,
    number,
    require,
    scan,
)
from .times import timed

MOST_LEVELS = 50
LONGEST_LEVEL = 60
"""Characters of a category: what is longer is a text, and levels are stored and shown."""
_SHOWN_WORDS, _SHOWN_CHARACTERS = 3, 20


def plan(spec: OwnFile, cohort: Cohort, stays: pl.DataFrame, until_hours: float) -> Plan:
    """Return the work of a wide table.

    A number becomes two columns, its value and `known:` of it; a category one column per level,
    all zero where it is unknown. Columns are numbers when every cell of the file is one, and
    categories when none is; of a mixture the user says what it is.

    Args:
        spec: The file.
        cohort: The stays.
        stays: `_id`, `_row` and perhaps `_intime` of the stays.
        until_hours: Rows later than this are not used, where the table has times.

    Raises:
        DataError: The file is unreadable, a stay stands twice, or none belongs to the cohort.
        SchemaError: A column is missing, mixes numbers and words, or has too many or too long
            levels.
    """
    table = scan(spec.file)
    schema = header(spec.file, table)
    require(spec.file, schema, [spec.id], f"Name it with id=… in {spec.table}.")
    wanted = _wanted(spec, schema)
    table = filtered(spec.file, table, schema, spec)
    whole = collect(spec.file, table.with_columns(_id=id_text(spec.file, schema, spec.id)))
    double = whole.filter(pl.col("_id").is_duplicated())["_id"]
    if len(double):
        raise DataError(
            f"{spec.file}: stay {double[0]} stands in several rows; a wide table has one row per "
            "stay. A long table needs the columns "
            f"{spec.variable!r}, {spec.value!r} and one of times."
        )
    mine, timing = timed(spec.file, table, schema, spec, stays, until_hours)
    frame = collect(spec.file, mine.sort("_row"))
    late = set(frame.filter("_late")["_id"])
    timeless = set(frame.filter("_timeless")["_id"])
    frame = frame.filter(~pl.col("_late") & ~pl.col("_timeless"))
    unread: npt.NDArray[np.bool_] = frame["_unread"].to_numpy()
    values, known, names, levels = _columns(spec, schema, wanted, whole, frame)
    there: npt.NDArray[np.bool_] = np.asarray(known.any(axis=1))
    infinite: npt.NDArray[np.bool_] = np.asarray(np.isinf(values).any(axis=1))
    ids = frame["_id"].to_list()
    space = Space(spec.name, "vector", {"own": "table", "levels": levels}, names)
    held = rows.Rows(
        stays=[stay for stay, here in zip(ids, there, strict=True) if here],
        values=values[there],
        mask=None,
        rejects={
            **{int(row): rows.INFINITE for row in np.flatnonzero(infinite[there])},
            **{int(row): rows.NOT_A_TIME for row in np.flatnonzero(unread[there])},
        },
        absent={
            **{stay: rows.ALL_EMPTY for stay, here in zip(ids, there, strict=True) if not here},
            **dict.fromkeys(timeless, rows.NO_TIME),
            **dict.fromkeys(late, rows.AFTER_PREDICTION),
        },
        ignored=whole.height - frame.height - len(late) - len(timeless),
        unused={rows.AFTER_PREDICTION: len(late), rows.NO_TIME: len(timeless)},
    )
    return rows.plan(spec, cohort, space, held, {"rows": "one per stay"}, timing)


def _wanted(spec: OwnFile, schema: pl.Schema) -> list[str]:
    if spec.keep:
        require(spec.file, schema, spec.keep, f"It is named by `keep` of {spec.table}.")
        return list(spec.keep)
    named = (*spec.categories, *spec.levels, *spec.drop)
    require(spec.file, schema, named, f"It is named in {spec.table}.")
    other = {spec.id, spec.hours, spec.minute, spec.time, "subject_id", "split", *spec.drop}
    other |= {name for name in schema if name.startswith(("y_", "in_"))} | set(spec.where)
    found = [name for name in schema if name not in other]
    if not found:
        raise SchemaError(f"{spec.file}: no column is left to use, found {', '.join(schema)}")
    return found


def _columns(
    spec: OwnFile, schema: pl.Schema, wanted: list[str], whole: pl.DataFrame, frame: pl.DataFrame
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_], tuple[str, ...], dict[str, list[str]]]:
    """Values [n, D], which source cells are known [n, columns], names, levels of categories."""
    values: list[npt.NDArray[np.float32]] = []
    known: list[npt.NDArray[np.bool_]] = []
    indicators: list[npt.NDArray[np.float32]] = []
    names: list[str] = []
    numbers: list[str] = []
    levels: dict[str, list[str]] = {}
    for name in wanted:
        kind = schema[name]
        if _is_number(spec, name, kind, whole):
            cells = frame.select(number(name, kind, spec.missing).alias("v"))["v"].to_numpy()
            cells = np.asarray(cells, dtype=np.float64)
            there = ~np.isnan(cells)
            with np.errstate(over="ignore"):
                values.append(np.where(there, cells, 0.0).astype(np.float32))
            indicators.append(there.astype(np.float32))
            numbers.append(name)
            names.append(name)
            known.append(there)
            continue
        words = _words(spec, frame, name)
        levels[name] = list(spec.levels.get(name) or _levels(spec, whole, name))
        coded = np.array([[word == level for level in levels[name]] for word in words], np.float32)
        coded = coded.reshape(len(words), len(levels[name]))
        values.extend(coded.T)
        names.extend(f"{name}={level}" for level in levels[name])
        known.append(np.asarray(coded.any(axis=1)))
    table = np.stack([*values, *indicators], axis=1)
    names.extend(f"{KNOWN}{name}" for name in numbers)
    return table, np.stack(known, axis=1), tuple(names), levels


def _is_number(spec: OwnFile, name: str, kind: pl.DataType, whole: pl.DataFrame) -> bool:
    if name in spec.categories or name in spec.levels or kind == pl.Boolean:
        return False
    if kind == pl.String:
        words = whole.filter(is_text(name, kind, spec.missing))[name]
        numbers = whole.select(number(name, kind, spec.missing).is_not_null().sum()).item()
        if numbers and len(words):
            raise _mixed(spec, name, numbers, words)
        return bool(numbers)
    if not kind.is_numeric():
        raise SchemaError(f"{spec.file}: column {name!r} must hold numbers or words, found {kind}")
    return True


def _mixed(spec: OwnFile, name: str, numbers: int, words: pl.Series) -> SchemaError:
    """The error of a column that is neither of numbers nor of words; shows only short words."""
    found = sorted(set(words.str.strip_chars()))
    _refuse_texts(spec, name, found)
    short = all(len(word) <= _SHOWN_CHARACTERS for word in found)
    shown = f" (such as {', '.join(map(repr, found[:_SHOWN_WORDS]))})" if short else ""
    return SchemaError(
        f"{spec.file}: column {name!r} must hold numbers or words, found {numbers:,} cells with a "
        f"number and {len(words):,} with another word{shown}. In {spec.table} list the words that "
        f"mean unknown in missing, or name the column in categories or drop; write numbers with a "
        "decimal point and nothing between thousands."
    )


def _words(spec: OwnFile, frame: pl.DataFrame, name: str) -> list[str | None]:
    unknown = {"", *(str(value) for value in spec.missing)}
    words = frame[name].cast(pl.String).str.strip_chars().to_list()
    return [None if word is None or word in unknown else word for word in words]


def _refuse_texts(spec: OwnFile, name: str, words: Sequence[str]) -> None:
    """Raise SchemaError, without a word of them, when some cells are no categories but texts."""
    if any(len(word) > LONGEST_LEVEL or len(word.splitlines()) > 1 for word in words):
        raise SchemaError(
            f"{spec.file}: column {name!r} has cells of more than {LONGEST_LEVEL} characters or "
            f"several lines; expected numbers or categories. A column of texts must be called "
            f"{spec.text!r}, or name it with text=… in {spec.table}; if it holds none, leave it "
            "out with drop."
        )


def _levels(spec: OwnFile, whole: pl.DataFrame, name: str) -> list[str]:
    found = sorted({word for word in _words(spec, whole, name) if word is not None})
    if not found:
        raise SchemaError(
            f"{spec.file}: column {name!r} is empty; leave it out with drop, or name its levels in "
            f"{spec.table}"
        )
    _refuse_texts(spec, name, found)
    if len(found) > MOST_LEVELS:
        raise SchemaError(
            f"{spec.file}: column {name!r} has {len(found)} different words, at most {MOST_LEVELS} "
            f"make categories. If it holds numbers, list what means unknown in missing; else "
            f"leave it out with drop, or name its levels in {spec.table}."
        )
    return found


__all__ = ["LONGEST_LEVEL", "MOST_LEVELS", "plan"]
