"""Stays, labels and splits of one cohort, and which items each stay links per modality."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ..errors import ConfigError, DataError, IntegrityError, LeakageError, SchemaError, quoted
from . import atomic, labelled
from .layout import (
    COHORT,
    COHORT_FORMAT,
    COHORTS,
    LINK_COLUMNS,
    LINKS,
    LINKS_FORMAT,
    SCHEMA_VERSION,
    SPLITS,
    STAYS,
    check_name,
    claim,
    cohort_folder,
    extract_again,
    table_name,
)
from .record import require_schema


@dataclass(frozen=True)
class Links:
    """Which items of one modality each stay has.

    Args:
        modality: Name of the modality.
        table: One row per stay, in the order of stays.parquet: stay_id, items (ids in time
            order), has, why_no (reason code, null where `has`).
        rules: The rules that chose the items.
        fingerprint: Hash of table and rules.
    """

    modality: str
    table: pa.Table
    rules: dict[str, Any]
    fingerprint: str


class Cohort:
    """One cohort of a cache, read-only. Open one with `Cohort.open`.

    Args:
        cache: Folder of the cache.
        name: Name of the cohort.
        stays: One row per stay; its order is the row order of everything.
        info: Dataset, release, rules, attrition, as they were written.
        fingerprint: Hash of stays and info as the extraction wrote them; labels that were added
            later do not change it.
        labels: Per task whose labels were added later, the hash of them.
    """

    def __init__(
        self,
        cache: Path,
        name: str,
        stays: pa.Table,
        info: dict[str, Any],
        fingerprint: str,
        labels: Mapping[str, str],
    ) -> None:
        self._cache = cache
        self.name = name
        self.stays = stays
        self.info = info
        self.fingerprint = fingerprint
        self.labels = dict(labels)

    @classmethod
    def open(cls, cache: Path, name: str = "default") -> Cohort:
        """Open a cohort.

        Raises:
            DataError: There is none of this name; the message names the command that makes it.
            IntegrityError: A file is missing or altered.
        """
        folder = cohort_folder(cache, name)
        if not cls.exists(cache, name):
            there = sorted(path.parent.name for path in (cache / COHORTS).glob(f"*/{COHORT}"))
            known = f"; there is {', '.join(there)}" if there else ""
            option = "" if name == "default" else f" --cohort {name}"
            raise DataError(
                f"No cohort {name!r} in {cache}{known}. Run `cm2 extract --modality ehr --data "
                f"ROOT --cache {quoted(cache)}{option}` first."
            )
        remedy = _remedy(cache, name)
        content, digest = atomic.read_json_hash(folder / COHORT, remedy)
        require_schema(folder / COHORT, content)
        if content.get("format") != COHORT_FORMAT:
            raise IntegrityError(f"{folder / COHORT} describes no cohort. {remedy}")
        stays = atomic.read_parquet(folder / STAYS, content["tables"]["stays"], remedy)
        stays, labels = labelled.add(folder, stays, digest)
        return cls(cache, name, stays, content["info"], digest, labels)

    @staticmethod
    def exists(cache: Path, name: str) -> bool:
        """Whether the cohort has been written."""
        return (cohort_folder(cache, name) / COHORT).exists()

    @property
    def tasks(self) -> tuple[str, ...]:
        """Tasks that the stays have labels for, in column order."""
        names = self.stays.column_names
        return tuple(name.removeprefix("in_") for name in names if name.startswith("in_"))

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities that the stays have links for, sorted."""
        folder = cohort_folder(self._cache, self.name) / LINKS
        return tuple(sorted(path.stem for path in folder.glob("*.json")))

    def links(self, modality: str) -> Links:
        """Read the links of one modality.

        Raises:
            DataError: The modality was not extracted for this cohort.
            IntegrityError: A file is missing, altered, or belongs to another cohort.
        """
        folder = cohort_folder(self._cache, self.name) / LINKS
        path = folder / f"{check_name(modality, 'Modality')}.json"
        remedy = extract_again(self._cache, modality, self.name)
        if not path.exists():
            there = ", ".join(self.modalities) or "none"
            raise DataError(
                f"Cohort {self.name!r} has no links for {modality!r}; it has {there}. {remedy}"
            )
        content, digest = atomic.read_json_hash(path, remedy)
        require_schema(path, content)
        expected = {
            "format": LINKS_FORMAT,
            "modality": modality,
            "cohort": self.fingerprint,
        }
        found = {key: content.get(key) for key in expected}
        if found != expected:
            raise IntegrityError(f"{path} links {found}, expected {expected}. {remedy}")
        sha256 = content["tables"]["links"]
        table = atomic.read_parquet(folder / table_name(modality, sha256), sha256, remedy)
        return Links(modality, table, content["rules"], digest)


def write_cohort(cache: Path, name: str, stays: pa.Table, info: Mapping[str, object]) -> Cohort:
    """Write a cohort: stays.parquet, then cohort.json, which makes it count.

    Args:
        cache: Folder of the cache.
        name: Name of the cohort.
        stays: One row per stay with stay_id, subject_id (both int64 or both text), split, and
            per task in_<task> bool and y_<task> (or several y_<task>__<label>).
        info: Dataset, release, rules, split seed, attrition: JSON-able.

    Raises:
        SchemaError: A column is missing or of the wrong type.
        DataError: A stay stands twice.
        LeakageError: A subject is in two splits.
        ConfigError: A cohort of this name with other content exists.
    """
    folder = claim(cohort_folder(cache, name))
    _check_stays(stays)
    data = atomic.render_parquet(stays)
    content = {
        "format": COHORT_FORMAT,
        "schema_version": SCHEMA_VERSION,
        "info": dict(info),
        "stays": stays.num_rows,
        "subjects": pc.count_distinct(stays["subject_id"]).as_py(),
        "tables": {"stays": atomic.hash_bytes(data)},
    }
    _, digest = atomic.render_json(content)
    if Cohort.exists(cache, name):
        existing = Cohort.open(cache, name)
        if existing.fingerprint != digest:
            raise ConfigError(
                f"The cohort {name!r} of {cache} exists with other stays or rules. Choose another "
                f"name with --cohort, or delete {folder} first."
            )
        return existing
    atomic.write_bytes(folder / STAYS, data)
    atomic.write_json(folder / COHORT, content)
    return Cohort.open(cache, name)


def write_links(
    cache: Path, cohort: str, modality: str, table: pa.Table, rules: Mapping[str, object]
) -> None:
    """Write which items each stay of a cohort has; replaces earlier links of the modality.

    Args:
        cache: Folder of the cache.
        cohort: Name of an existing cohort.
        modality: Name of the modality.
        table: One row per stay, in any order: stay_id, items list<text> in time order, has bool,
            why_no text (null exactly where `has`).
        rules: The rules that chose the items: JSON-able.

    Raises:
        SchemaError: A column is missing or of the wrong type, or `has` contradicts the others.
        DataError: The stays are not those of the cohort.
    """
    opened = Cohort.open(cache, cohort)
    folder = cohort_folder(cache, cohort) / LINKS
    path = folder / f"{check_name(modality, 'Modality')}.json"
    data = atomic.render_parquet(_checked_links(opened, table))
    digest = atomic.hash_bytes(data)
    atomic.write_if_changed(folder / table_name(modality, digest), data)
    content = {
        "format": LINKS_FORMAT,
        "schema_version": SCHEMA_VERSION,
        "cohort": opened.fingerprint,
        "modality": modality,
        "rules": dict(rules),
        "tables": {"links": digest},
    }
    atomic.write_json(path, content)


def linked_elsewhere(cache: Path, modality: str, but: str) -> set[str]:
    """Items of a modality that the other cohorts of a cache link.

    Args:
        cache: Folder of the cache.
        modality: Name of the modality.
        but: The cohort that does not count.

    Raises:
        IntegrityError: A table of links was altered.
    """
    names = sorted(path.parent.name for path in (cache / COHORTS).glob(f"*/{COHORT}"))
    others = [Cohort.open(cache, name) for name in names if name != but]
    return {
        item
        for cohort in others
        if modality in cohort.modalities
        for items in cohort.links(modality).table["items"].to_pylist()
        for item in items or []
    }


def _check_stays(stays: pa.Table) -> None:
    for column in ("stay_id", "subject_id", "split"):
        if column not in stays.column_names:
            raise SchemaError(f"Stays need the column {column!r}, found {stays.column_names}.")
        if stays[column].null_count:
            raise SchemaError(f"{stays[column].null_count} stays have no {column}.")
    for column in ("stay_id", "subject_id"):
        kind = stays.schema.field(column).type
        if not (kind == pa.int64() or _is_text(kind)):
            raise SchemaError(f"{column} must be int64 or text, found {kind}.")
    if pc.count_distinct(stays["stay_id"]).as_py() != stays.num_rows:
        repeated = stays.num_rows - pc.count_distinct(stays["stay_id"]).as_py()
        raise DataError(f"{repeated} of {stays.num_rows} stays repeat a stay_id.")
    splits = set(pc.unique(stays["split"]).to_pylist())
    if not splits <= set(SPLITS):
        raise SchemaError(f"The splits are {SPLITS}, found {sorted(splits)}.")
    per_subject = stays.group_by("subject_id").aggregate([("split", "count_distinct")])
    twice = pc.sum(pc.greater(per_subject["split_count_distinct"], 1)).as_py()
    if twice:
        raise LeakageError(f"{twice} subjects are in more than one of the splits {SPLITS}.")
    for column in stays.column_names:
        if not column.startswith("in_"):
            continue
        task = column.removeprefix("in_")
        if stays.schema.field(column).type != pa.bool_() or stays[column].null_count:
            raise SchemaError(f"{column} must be bool without nulls.")
        labels = [c for c in stays.column_names if c == f"y_{task}" or c.startswith(f"y_{task}__")]
        if not labels:
            raise SchemaError(f"{column} has no labels: expected y_{task} or y_{task}__<label>.")


def _checked_links(cohort: Cohort, table: pa.Table) -> pa.Table:
    """The links in the order of the stays, with one spelling of the types."""
    if sorted(table.column_names) != sorted(LINK_COLUMNS):
        raise SchemaError(f"Links have the columns {LINK_COLUMNS}, found {table.column_names}.")
    kinds = {
        "stay_id": cohort.stays.schema.field("stay_id").type,
        "items": pa.list_(pa.string()),
        "has": pa.bool_(),
        "why_no": pa.string(),
    }
    items, stay_id = (table.schema.field(column).type for column in ("items", "stay_id"))
    if not _is_text_list(items) or pa.types.is_floating(stay_id):
        raise SchemaError(f"Links name stays and items by ids, found {stay_id} and {items}.")
    try:
        table = table.select(list(LINK_COLUMNS)).cast(pa.schema(list(kinds.items())))
    except pa.ArrowException as error:
        raise SchemaError(f"Links must have the types {kinds}: {error}.") from error
    stays = cohort.stays["stay_id"].to_pylist()
    rows = {stay: row for row, stay in enumerate(table["stay_id"].to_pylist())}
    if len(rows) != table.num_rows or rows.keys() != set(stays):
        raise DataError(
            f"Links need one row for each of the {len(stays)} stays of the cohort "
            f"{cohort.name!r}, found {table.num_rows} rows for {len(rows)} stays."
        )
    table = table.take(pa.array([rows[stay] for stay in stays], pa.int64()))
    for row in table.to_pylist():
        has = bool(row["items"])
        if row["has"] is not has or (row["why_no"] is None) is not has:
            raise SchemaError(
                f"Stay {row['stay_id']}: `has` must be true, and `why_no` null, exactly where "
                f"there are items; found has={row['has']}, why_no={row['why_no']!r}, "
                f"{len(row['items'] or [])} items."
            )
        if None in (row["items"] or []):
            raise SchemaError(f"Stay {row['stay_id']} links an item without an id.")
    return table


def _is_text(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def _is_text_list(kind: pa.DataType) -> bool:
    """A list of text; an empty column may have no type."""
    if pa.types.is_null(kind):
        return True
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    return lists and (pa.types.is_null(kind.value_type) or _is_text(kind.value_type))


def _remedy(cache: Path, name: str) -> str:
    option = "" if name == "default" else f" --cohort {name}"
    return (
        f"Delete {cache / COHORTS / name} and run `cm2 extract --modality all --data ROOT --cache "
        f"{quoted(cache)}{option}` again: the cohort is rebuilt, the stores are kept."
    )
