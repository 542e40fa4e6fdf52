"""The user's variables and item map, laid over the published ones.

Both files have the columns of items.csv and variables.csv beside this file. A row for a name, or
for a source and item id, that is known takes the place of the known one; any other is added. An
item whose cell `variable` is empty is not read.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from ...cache.fingerprint import fingerprint
from ...cache.space import HOURS
from ...errors import DataError, SchemaError, did_you_mean
from .catalogue import Catalogue, Item, Variable, parts, published

MOST_VARIABLES = 255
LONGEST_NAME = 100
KINDS = ("number", "category")
_BOUNDS = ("outlier_low", "valid_low", "valid_high", "outlier_high")
_VARIABLE_COLUMNS = ("variable", "kind", "unit", "normal", *_BOUNDS, "levels", "texts")
_REFERENCE_COLUMNS = ("reference_name", "reference_levels", "reference_normal")
_ITEM_COLUMNS = ("source", "itemid", "variable", "unit")
_FREE_COLUMNS = ("preset", "label")

Row = tuple[str, Mapping[str, str]]
"""Where a row stands, for messages, and its cells."""


def with_own(items: Path | None, variables: Path | None) -> Catalogue:
    """Lay the user's files over the corrected catalogue.

    Args:
        items: Table like items.csv: source, itemid, variable, unit; optional label, preset.
        variables: Table like variables.csv: variable, kind, unit, normal, outlier_low, valid_low,
            valid_high, outlier_high, levels, texts; bounds of a category may be empty.

    Raises:
        DataError: A file is not there or not readable as CSV.
        SchemaError: A column is missing or unknown, or a cell is not what it must be; the message
            names file and row.
    """
    base = published("corrected")
    if items is None and variables is None:
        return base
    described = list(_rows(variables, _VARIABLE_COLUMNS, _REFERENCE_COLUMNS)) if variables else []
    mapped = list(_rows(items, _ITEM_COLUMNS, _FREE_COLUMNS)) if items else []
    chosen = _variables(base, described)
    found = _items(base, chosen, mapped)
    measured = {item.variable for item in found}
    for i, variable in enumerate(chosen):
        if i not in measured:
            where = next((at for at, row in described if row["variable"] == variable.name), items)
            raise SchemaError(
                f"{where}: no item measures {variable.name!r}. Give its item ids with --items FILE "
                f"(columns {', '.join(_ITEM_COLUMNS)})."
            )
    rows = [[[sorted(row.items()) for _, row in part] for part in (described, mapped)]]
    return replace(base, variables=chosen, items=found, own=fingerprint(rows)[:16])


def _rows(path: Path, needed: tuple[str, ...], allowed: tuple[str, ...]) -> Iterator[Row]:
    """Every row of a table with the place where it stands; cells are stripped."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: expected a CSV file in UTF-8 ({type(error).__name__}: cannot be read)."
        ) from None
    reader = csv.DictReader(io.StringIO(text), strict=True)
    try:
        header = [name.strip() for name in reader.fieldnames or ()]
        reader.fieldnames = header
        lacking = [name for name in needed if name not in header]
        unknown = [name for name in header if name not in (*needed, *allowed)]
        if lacking or unknown or len(set(header)) < len(header):
            raise SchemaError(
                f"{path}: expected the columns {', '.join(needed)} (and perhaps "
                f"{', '.join(allowed)}), found {', '.join(header) or 'none'}."
            )
        for number, row in enumerate(reader, start=1):
            if None in row or None in row.values():
                raise SchemaError(f"{path}, row {number}: expected {len(header)} cells.")
            yield f"{path}, row {number}", {name: row[name].strip() for name in header}
    except csv.Error as error:
        raise DataError(f"{path}: not readable as CSV ({error}).") from None


def _variables(base: Catalogue, rows: Iterable[Row]) -> tuple[Variable, ...]:
    chosen = {variable.name: variable for variable in base.variables}
    seen: set[str] = set()
    for at, row in rows:
        name = row["variable"]
        if name in seen:
            raise SchemaError(f"{at}: {name!r} stands in two rows; expected one.")
        seen.add(name)
        chosen[name] = _variable(at, row, chosen.get(name))
    if len(chosen) > MOST_VARIABLES:
        raise SchemaError(
            f"Expected at most {MOST_VARIABLES} variables, the published ones among them; found "
            f"{len(chosen)}."
        )
    return tuple(chosen.values())


def _variable(at: str, row: Mapping[str, str], known: Variable | None) -> Variable:
    name, kind = row["variable"], row["kind"]
    if not 0 < len(name) <= LONGEST_NAME or not name.isprintable() or "->" in name or name == HOURS:
        raise SchemaError(
            f"{at}: expected a name of 1 to {LONGEST_NAME} printable characters without '->', "
            f"other than {HOURS!r}; found {name!r}."
        )
    if kind not in KINDS:
        raise SchemaError(f"{at}: kind must be {' or '.join(KINDS)}, found {kind!r}.")
    categorical = kind == "category"
    if known is not None and (known.categorical, known.unit) != (categorical, row["unit"]):
        raise SchemaError(
            f"{at}: {name!r} is cleaned as a {KINDS[known.categorical]} in {known.unit!r}; found "
            f"{kind} in {row['unit']!r}. Take another name for another quantity."
        )
    levels = tuple(_number(at, "levels", level) for level in parts(row["levels"]))
    texts = dict(_text(at, part, levels) for part in parts(row["texts"]))
    if categorical and not (texts and levels and list(levels) == sorted(set(levels))):
        raise SchemaError(
            f"{at}: a category needs levels, ascending (0|1), and texts (Brisk=0|Delayed=1)."
        )
    if not categorical and (levels or texts):
        raise SchemaError(f"{at}: a number has no levels and no texts.")
    ends = (levels[0], levels[0], levels[-1], levels[-1]) if categorical else ()
    low, valid_low, valid_high, high = (
        ends[i] if categorical and not row[bound] else _number(at, bound, row[bound])
        for i, bound in enumerate(_BOUNDS)
    )
    normal = _number(at, "normal", row["normal"])
    if not low <= valid_low <= normal <= valid_high <= high:
        raise SchemaError(
            f"{at}: expected outlier_low <= valid_low <= normal <= valid_high <= outlier_high, "
            f"found {low:g}, {valid_low:g}, {normal:g}, {valid_high:g}, {high:g}."
        )
    if categorical and normal not in levels:
        raise SchemaError(f"{at}: normal must be one of the levels, found {normal:g}.")
    return Variable(
        name=name,
        reference_name="",
        categorical=categorical,
        unit=row["unit"],
        normal=normal,
        low=low,
        valid_low=valid_low,
        valid_high=valid_high,
        high=high,
        levels=levels,
        texts=texts,
        reference_levels=(),
        reference_normal="",
    )


def _number(at: str, column: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise SchemaError(f"{at}: {column} must be a number, found {text!r}.")
    return value


def _text(at: str, part: str, levels: tuple[float, ...]) -> tuple[str, float]:
    text, equals, level = part.rpartition("=")
    value = _number(at, "the level of a text", level) if equals else math.nan
    if not text.strip() or value not in levels:
        raise SchemaError(
            f"{at}: texts must read TEXT=LEVEL with one of the levels, found {part!r}."
        )
    return text.strip().lower(), value


def _items(
    base: Catalogue, variables: tuple[Variable, ...], rows: Iterable[Row]
) -> tuple[Item, ...]:
    place = {variable.name: i for i, variable in enumerate(variables)}
    sources = sorted({item.source for item in base.items})
    chosen = {(item.source, item.itemid): item for item in base.items}
    seen: set[tuple[str, int]] = set()
    for at, row in rows:
        source, name = row["source"], row["variable"]
        if source not in sources:
            raise SchemaError(
                f"{at}: source must be one of {', '.join(sources)}, found {source!r}."
            )
        if not row["itemid"].isdecimal():
            raise SchemaError(f"{at}: itemid must be a whole number, found {row['itemid']!r}.")
        if row.get("preset", "") not in ("", "both", "corrected"):
            raise SchemaError(f"{at}: preset must be both or corrected, found {row['preset']!r}.")
        key = (source, int(row["itemid"]))
        if key in seen:
            raise SchemaError(f"{at}: item {key[1]} of {source} stands in two rows; expected one.")
        seen.add(key)
        if not name:
            chosen.pop(key, None)
            continue
        if name not in place:
            hint = did_you_mean(name, place)
            raise SchemaError(
                f"{at}: no variable is called {name!r}.{hint} Describe it with --variables FILE."
            )
        _check_unit(at, base, variables[place[name]], row["unit"])
        chosen[key] = Item(*key, place[name], row["unit"], row.get("label", ""))
    return tuple(chosen.values())


def _check_unit(at: str, base: Catalogue, variable: Variable, unit: str) -> None:
    """Refuse a number charted in a unit that no rule converts."""
    known = {variable.unit}
    if variable.name in base.names:
        place = base.place(variable.name)
        known |= {item.unit for item in base.items if item.variable == place}
    if not variable.categorical and unit not in known:
        raise SchemaError(
            f"{at}: {variable.name!r} is read in {' or '.join(sorted(known))}, found {unit!r}, "
            "which nothing converts. Leave the item out, or give it a variable of its own."
        )


__all__ = ["MOST_VARIABLES", "with_own"]
