"""Fold shard records into the tables and the manifest of a store.

The result is a function of the set of records alone, not of the order or process in which they
were written. Where two shards hold one item, the higher generation wins, then the higher name.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ..errors import DataError
from .layout import ITEM_COLUMNS, REJECT_COLUMNS
from .record import Record


@dataclass(frozen=True)
class Folded:
    """What the live rows of all records amount to.

    Args:
        items: One row per encoded item, ordered by item_id.
        rejects: One row per rejected item, ordered by item_id.
        shards: The shards that hold a live row, as the manifest lists them, ordered by name.
        arrays: Name -> dtype and largest shape of one item.
        versions: The distinct sets of library versions that made the live shards.
    """

    items: pa.Table
    rejects: pa.Table
    shards: list[dict[str, Any]]
    arrays: dict[str, dict[str, Any]]
    versions: list[dict[str, str]]

    @property
    def stamps(self) -> dict[str, str]:
        """Item id -> stamp, of items and rejects."""
        return table_stamps(self.items, self.rejects)


def table_stamps(items: pa.Table, rejects: pa.Table) -> dict[str, str]:
    """Item id -> stamp, of both tables of a store."""
    return {
        item: stamp
        for table in (items, rejects)
        for item, stamp in zip(
            table["item_id"].to_pylist(), table["stamp"].to_pylist(), strict=True
        )
    }


def winners(records: Iterable[Record]) -> dict[str, str]:
    """Item id -> name of the shard whose row counts."""
    return {
        item: record.name
        for record in sorted(records, key=lambda r: (r.generation, r.name))
        for item in record.stamps
    }


def fold(records: Sequence[Record]) -> Folded:
    """Fold records; see the module.

    Raises:
        DataError: Live shards disagree about their arrays.
    """
    winner = winners(records)
    names = set(winner.values())
    live = sorted((r for r in records if r.name in names), key=lambda r: r.name)
    item_rows: list[dict[str, Any]] = []
    reject_rows: list[dict[str, Any]] = []
    for record in live:
        item_rows += _item_rows(record, winner)
        reject_rows += _reject_rows(record, winner)
    facts = sorted({key for row in item_rows for key in row} - set(ITEM_COLUMNS))
    versions = {tuple(sorted(record.content["versions"].items())) for record in live}
    return Folded(
        items=_table(item_rows, ITEM_COLUMNS, facts),
        rejects=_table(reject_rows, REJECT_COLUMNS, []),
        shards=[_listed(record) for record in live],
        arrays=_arrays(live),
        versions=[dict(pairs) for pairs in sorted(versions)],
    )


def _item_rows(record: Record, winner: dict[str, str]) -> list[dict[str, Any]]:
    items = record.content["items"]
    rows = []
    for row, item in enumerate(items["item_id"]):
        if winner[item] == record.name:
            core = {key: items[key][row] for key in ("source_hash", "vector_hash", "stamp")}
            facts = {key: column[row] for key, column in items["facts"].items()}
            rows.append({"item_id": item, "shard": record.name, "row": row, **core, **facts})
    return rows


def _reject_rows(record: Record, winner: dict[str, str]) -> list[dict[str, Any]]:
    rejects = record.content["rejects"]
    return [
        {"shard": record.name, **{key: column[row] for key, column in rejects.items()}}
        for row, item in enumerate(rejects["item_id"])
        if winner[item] == record.name
    ]


def _table(rows: list[dict[str, Any]], columns: Sequence[str], facts: Sequence[str]) -> pa.Table:
    rows.sort(key=lambda row: row["item_id"])
    data = {
        name: pa.array(
            [row[name] for row in rows], type=pa.int64() if name == "row" else pa.string()
        )
        for name in columns
    }
    for name in facts:
        values = [row.get(name) for row in rows]
        data[name] = pa.array(values, type=_fact_type(name, values))
    return pa.table(data)


def _fact_type(name: str, values: Sequence[Any]) -> pa.DataType:
    kinds = {type(value) for value in values} - {type(None)}
    if not kinds or kinds == {str}:
        return pa.string()
    if kinds == {bool}:
        return pa.bool_()
    if kinds == {int}:
        return pa.int64()
    if kinds <= {int, float}:
        return pa.float64()
    raise DataError(
        f"The fact {name!r} mixes {sorted(kind.__name__ for kind in kinds)} over its items; one "
        "column has one type."
    )


def _listed(record: Record) -> dict[str, Any]:
    return {
        "name": record.name,
        "rows": len(record.content["items"]["item_id"]),
        "data": record.content["data"],
        "record": record.sha256,
    }


def _arrays(records: Sequence[Record]) -> dict[str, dict[str, Any]]:
    """Largest shape per array; dtypes, names and numbers of axes must agree."""
    merged: dict[str, dict[str, Any]] = {}
    for record in records:
        found: dict[str, dict[str, Any]] = record.content["arrays"]
        if not found:
            continue
        if not merged:
            merged = {key: {**spec, "shape": list(spec["shape"])} for key, spec in found.items()}
        if _kinds(found) != _kinds(merged):
            raise DataError(
                f"Shard {record.name} holds {_kinds(found)}, the shards before it "
                f"{_kinds(merged)}; items of one space must be encoded alike."
            )
        for key, spec in found.items():
            shape = merged[key]["shape"]
            merged[key]["shape"] = [max(a, b) for a, b in zip(shape, spec["shape"], strict=True)]
    return merged


def _kinds(arrays: dict[str, dict[str, Any]]) -> dict[str, tuple[str, int]]:
    return {key: (spec["dtype"], len(spec["shape"])) for key, spec in sorted(arrays.items())}
