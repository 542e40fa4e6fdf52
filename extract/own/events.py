"""Long event tables of the user: stay, time, variable, value; on a grid or at their own times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import polars as pl

from ...cache.cohort import Cohort
from ...cache.store import Space
from ...errors import SchemaError, did_you_mean
from ..modalities.grid import Placed, forward, names, place
from ..work import Plan
from . import rows
from .spec import KNOWN, MEASURED, OwnFile
from .tables import (
    collect,
    filtered,
    header,
    is_text,
    number,
    require,
    scan,
)
from .times import NOT_CHECKED, timed

MOST_VARIABLES = 1000


def plan(
    spec: OwnFile, cohort: Cohort, stays: pl.DataFrame, step_hours: float, until_hours: float
) -> Plan:
    """Return the work of a long table: one series per stay with any measurement.

    Every variable becomes three columns: its value, carried forward from the last step that has
    one; `known:`, 0 before its first measurement; and `measured:`, 1 in steps of its own. Of
    several values at one time the largest counts. Rows before the entry, where the series begins,
    are not used; images, texts and rows of wide tables from before it are.

    Args:
        spec: The file.
        cohort: The stays.
        stays: `_id`, `_row` and perhaps `_intime` of the stays.
        step_hours: Width of a bin; 0 for one step per time of measurement.
        until_hours: End of the series; nothing later is used.

    Raises:
        DataError: The file is unreadable, or none of its rows belongs to the cohort.
        SchemaError: A column is missing, or there are no times.
    """
    table = scan(spec.file)
    schema = header(spec.file, table)
    needed = [spec.id, spec.variable, spec.value]
    require(spec.file, schema, needed, f"Name your columns in {spec.table}.")
    table = filtered(spec.file, table, schema, spec)
    word = pl.col(spec.variable).cast(pl.String).str.strip_chars()
    table = table.with_columns(_variable=word)
    variables, caution = _variables(spec, table)
    kind = schema[spec.value]
    table = table.filter(pl.col("_variable").is_in(variables)).with_columns(
        _value=number(spec.value, kind, spec.missing), _text=is_text(spec.value, kind, spec.missing)
    )
    mine, timing = timed(spec.file, table, schema, spec, stays, until_hours)
    if timing == NOT_CHECKED:
        raise SchemaError(
            f"{spec.file}: an event table needs times: one of the columns {spec.hours!r}, "
            f"{spec.minute!r}, {spec.time!r}; found {', '.join(schema)}. Name "
            f"yours in {spec.table}."
        )
    total = int(collect(spec.file, table.select(pl.len())).item())
    marks = ("_hours", "_late", "_unread", "_timeless")
    frame = collect(spec.file, mine.select("_id", "_row", *marks, "_variable", "_value", "_text"))
    late, timeless = frame.filter("_late"), frame.filter("_timeless")
    early = frame.filter(pl.col("_hours") < 0)
    inside = frame.filter(pl.col("_hours") >= 0, ~pl.col("_late"))
    unread = set(frame.filter("_unread")["_row"])
    words = set(inside.filter("_text")["_row"])
    held = inside.drop_nulls("_value")
    infinite = set(held.filter(pl.col("_value").is_infinite())["_row"])
    position = {name: i for i, name in enumerate(variables)}
    found = (
        held.filter(pl.col("_value").is_finite())
        .select(
            stay_id=pl.col("_row").cast(pl.Int64),
            hours="_hours",
            variable=pl.col("_variable").replace_strict(position, return_dtype=pl.Int64),
            value="_value",
        )
        .group_by("stay_id", "hours", "variable")
        .agg(pl.col("value").max())
        .sort("stay_id", "hours", "variable")
    )
    order = np.array(sorted({*found["stay_id"], *words, *infinite, *unread}), dtype=np.int64)
    placed = place(found, order, step_hours, until_hours, len(variables))
    cells = placed.cells
    texts = dict(stays.select("_row", "_id").iter_rows())
    ids = [texts[row] for row in order.tolist()]
    present = set(ids)
    reasons = {  # of a stay with several the last one counts
        **dict.fromkeys(timeless["_id"], rows.NO_TIME),
        **dict.fromkeys(early["_id"], rows.BEFORE_ENTRY),
        **dict.fromkeys(late["_id"], rows.AFTER_PREDICTION),
        **dict.fromkeys(inside["_id"], rows.ALL_EMPTY),
    }
    result = rows.Rows(
        stays=ids,
        values=_expand(placed),
        mask=placed.mask,
        rejects={
            **{int(i): rows.NOT_A_NUMBER for i in np.flatnonzero(np.isin(order, sorted(words)))},
            **{
                int(i): rows.INFINITE
                for i in np.flatnonzero(
                    np.isin(order, sorted(infinite)) | np.isinf(cells).any(axis=(1, 2))
                )
            },
            **{int(i): rows.NOT_A_TIME for i in np.flatnonzero(np.isin(order, sorted(unread)))},
        },
        absent={stay: reason for stay, reason in reasons.items() if stay not in present},
        ignored=total - frame.height,
        unused={
            rows.AFTER_PREDICTION: late.height,
            rows.BEFORE_ENTRY: early.height,
            rows.NO_TIME: timeless.height,
        },
    )
    columns = (*variables, *(KNOWN + v for v in variables), *(MEASURED + v for v in variables))
    space = Space(
        spec.name,
        "series",
        {"own": "events", "step_hours": float(step_hours), "until_hours": float(until_hours)},
        names(columns, step_hours),
    )
    rules = {
        "rows": "last of a bin" if step_hours else "own times",
        "rows_before_entry": early.height,
        "variables": variables,
    }
    return replace(rows.plan(spec, cohort, space, result, rules, timing), caution=caution)


def _variables(spec: OwnFile, table: pl.LazyFrame) -> tuple[list[str], str]:
    """The variables to use, and a warning of those that the file has not.

    Those are no error: two hospitals share a space only when both keep the same variables.
    """
    found = set(
        collect(spec.file, table.select(pl.col("_variable").unique()))["_variable"].drop_nulls()
    )
    absent = [name for name in spec.keep if name not in found]
    if absent and len(absent) == len(spec.keep):
        raise SchemaError(
            f"{spec.file}: none of the variables in `keep` of {spec.table} is in the column "
            f"{spec.variable!r}, the first of which is {sorted(found)[:1]}"
        )
    chosen = list(spec.keep) or sorted(found - set(spec.drop))
    if not chosen or len(chosen) > MOST_VARIABLES:
        raise SchemaError(
            f"{spec.file}: expected 1 to {MOST_VARIABLES} variables in the column "
            f"{spec.variable!r}, found {len(chosen)}; name them with `keep` in {spec.table}"
        )
    return chosen, _caution(spec, absent, sorted(found))


def _caution(spec: OwnFile, absent: Sequence[str], found: Sequence[str]) -> str:
    if not absent:
        return ""
    hints = "".join(did_you_mean(name, found) for name in absent)
    return (
        f"{spec.name}: `keep` names variables that are not in the column {spec.variable!r} of "
        f"{spec.file.name} and stay unknown for every stay: {', '.join(map(repr, absent))}.{hints}"
    )


def _expand(placed: Placed) -> npt.NDArray[np.float32]:
    """Own times where there are some, then values, known, measured: ``[N, T, 3 V (+ 1)]``."""
    carried, known = forward(placed.cells)
    values = np.where(known, carried, np.float32(0))
    parts = [values, known.astype(np.float32), (~np.isnan(placed.cells)).astype(np.float32)]
    times = [] if placed.hours is None else [placed.hours[..., None]]
    return np.concatenate([*times, *parts], axis=-1)


__all__ = ["MOST_VARIABLES", "plan"]
