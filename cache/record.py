"""The record beside a shard: its items, rejects, stamps and hash. Writing it is the commit."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..errors import ConfigError, IntegrityError
from . import atomic, shard
from .layout import LIBRARIES, SCHEMA_VERSION, SHARD_FORMAT, shard_paths
from .space import EncodedShard, Space, checked_arrays, plain_facts, vector_hashes


@dataclass(frozen=True)
class Record:
    """One committed shard.

    Args:
        content: The JSON content.
        sha256: Hash of the file, by which the manifest names it.
    """

    content: dict[str, Any]
    sha256: str

    @property
    def name(self) -> str:
        """Name of the shard, 12 digits."""
        return str(self.content["name"])

    @property
    def generation(self) -> int:
        """0, or one more than any shard that holds an older encoding of one of its items."""
        return int(self.content["generation"])

    @property
    def stamps(self) -> dict[str, str]:
        """Item id -> stamp, of items and rejects."""
        items, rejects = self.content["items"], self.content["rejects"]
        return {
            **dict(zip(items["item_id"], items["stamp"], strict=True)),
            **dict(zip(rejects["item_id"], rejects["stamp"], strict=True)),
        }


def write(
    store: Path,
    space: Space,
    name: str,
    encoded: EncodedShard,
    stamps: Mapping[str, str],
    generation: int,
) -> Record:
    """Write a shard's data, then its record; nothing counts before the record is there."""
    data_path, record_path = shard_paths(store, name)
    arrays = checked_arrays(space, encoded)
    ids = [*encoded.item_ids, *(reject.item_id for reject in encoded.rejects)]
    if set(stamps) != set(ids):
        raise ConfigError(
            f"Every item and reject of shard {name} needs its stamp and no other has one: "
            f"{len(stamps)} stamps for {len(ids)} ids."
        )
    data: dict[str, object] | None = None
    if arrays:
        image = shard.build(arrays, space.id, name, contiguous=space.view == "pixels")
        data = {"bytes": len(image), "sha256": atomic.write_if_changed(data_path, image)}
    content: dict[str, Any] = {
        "format": SHARD_FORMAT,
        "schema_version": SCHEMA_VERSION,
        "space": space.id,
        "name": name,
        "generation": generation,
        "versions": library_versions(),
        "data": data,
        "arrays": {
            key: {"dtype": array.dtype.name, "shape": list(array.shape[1:])}
            for key, array in arrays.items()
        },
        "items": {
            "item_id": list(encoded.item_ids),
            "source_hash": list(encoded.source_hashes),
            "vector_hash": vector_hashes(arrays) if arrays else [],
            "stamp": [stamps[item] for item in encoded.item_ids],
            "facts": plain_facts(encoded.facts, len(encoded.item_ids)) if arrays else {},
        },
        "rejects": {
            "item_id": [reject.item_id for reject in encoded.rejects],
            "stage": [reject.stage for reject in encoded.rejects],
            "error": [reject.error for reject in encoded.rejects],
            "message": [reject.message for reject in encoded.rejects],
            "stamp": [stamps[reject.item_id] for reject in encoded.rejects],
        },
    }
    text, _ = atomic.render_json(content)
    return Record(content, atomic.write_if_changed(record_path, text))


def strike(store: Path, found: Record, rejects: Collection[str]) -> Record | None:
    """Take rejects out of a record; one that is left without any row is removed.

    Returns:
        What is left; None when it is nothing.
    """
    old = found.content["rejects"]
    left = [row for row, item in enumerate(old["item_id"]) if item not in rejects]
    _, path = shard_paths(store, found.name)
    if not left and not found.content["items"]["item_id"]:
        path.unlink(missing_ok=True)
        return None
    kept = {key: [column[row] for row in left] for key, column in old.items()}
    content = {**found.content, "rejects": kept}
    text, _ = atomic.render_json(content)
    return Record(content, atomic.write_if_changed(path, text))


def read(store: Path, space_id: str, name: str, remedy: str) -> Record:
    """Read and verify one record.

    Raises:
        IntegrityError: Missing, altered, of another store, or of a newer schema.
    """
    _, path = shard_paths(store, name)
    text = atomic.read_bytes(path, remedy)
    content, _ = atomic.parse_json(path, text, remedy)
    expected = {"format": SHARD_FORMAT, "space": space_id, "name": name}
    found = {key: content.get(key) for key in expected}
    if found != expected:
        raise IntegrityError(f"{path} is the record of {found}, expected {expected}. {remedy}")
    require_schema(path, content)
    return Record(content, atomic.hash_bytes(text))


def is_whole(store: Path, record: Record) -> bool:
    """Whether the data of a record are on disk, bit by bit; reads the file once."""
    data = record.content["data"]
    path, _ = shard_paths(store, record.name)
    return data is None or _has_hash(path, data["sha256"])


def is_listed_whole(store: Path, entry: Mapping[str, Any]) -> bool:
    """Whether record and data of a shard are those that the manifest lists; reads both once."""
    data_path, record_path = shard_paths(store, entry["name"])
    data = entry["data"]
    return _has_hash(record_path, entry["record"]) and (
        data is None or _has_hash(data_path, data["sha256"])
    )


def _has_hash(path: Path, sha256: str) -> bool:
    try:
        return atomic.sha256_file(path) == sha256
    except OSError:
        return False


def require_schema(path: Path, content: Mapping[str, Any]) -> None:
    """Raise IntegrityError when a file was written by a newer cm2."""
    found = content.get("schema_version")
    if not isinstance(found, int) or found > SCHEMA_VERSION:
        raise IntegrityError(
            f"{path} has the schema version {found}, this cm2 knows {SCHEMA_VERSION}. Use the cm2 "
            "that wrote it, or a newer one."
        )


def library_versions() -> dict[str, str]:
    """Installed versions of the libraries that may change a vector."""
    versions = {}
    for library in LIBRARIES:
        try:
            versions[library] = version(library)
        except PackageNotFoundError:  # an encoder that needs it reports that better
            continue
    return versions
