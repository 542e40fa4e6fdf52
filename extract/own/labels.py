"""Labels of one task in a table of the user, for a cohort that is there already."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from ...errors import SchemaError
from .stays import bits, flags
from .tables import collect, header, id_text, require, scan


def read(path: Path, task: str) -> pa.Table:
    """Read the labels of a task.

    Args:
        path: Columns stay_id and one of: y, <task>, y_<task>, or several y_<task>__<label> (0, 1
            or empty); optional in_<task> (0 or 1).
        task: Its name.

    Returns:
        stay_id as text, y_<task> or y_<task>__<label> as int8, and in_<task> if it is there.

    Raises:
        DataError: It cannot be read.
        SchemaError: A column is missing, ambiguous, or holds something else.
    """
    table = scan(path)
    schema = header(path, table)
    require(path, schema, ["stay_id"], "It names the rows.")
    several = [name for name in schema if name.startswith(f"y_{task}__")]
    single = [name for name in ("y", task, f"y_{task}") if name in schema and name != "stay_id"]
    if len(single) + bool(several) != 1:
        raise SchemaError(
            f"{path}: expected the labels in one column y, {task} or y_{task}, or in several "
            f"y_{task}__<label>; found {', '.join([*single, *several]) or 'none of them'}"
        )
    frame = collect(path, table.with_columns(id_text(path, schema, "stay_id")))
    if frame["stay_id"].null_count():
        row = frame["stay_id"].is_null().arg_true()[0]
        raise SchemaError(f"{path}, row {row + 1}: expected a stay_id, found none")
    columns = {"stay_id": pa.array(frame["stay_id"].to_list(), pa.string())}
    for name in several or single:
        column = name if several else f"y_{task}"
        columns[column] = pa.array(bits(path, frame, name), pa.int8())
    if f"in_{task}" in schema:
        columns[f"in_{task}"] = flags(path, frame, f"in_{task}")
    return pa.table(columns)


__all__ = ["read"]
