"""Read a store: nothing but what its manifest names, and nothing that was altered."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..errors import ConfigError, DataError, IntegrityError, quoted
from . import atomic, checkpoint, record, shard
from .fingerprint import fingerprint
from .layout import (
    BLANK,
    MANIFEST,
    PROVENANCE,
    STORE_FORMAT,
    confined,
    extract_again,
    modality_folder,
    shard_paths,
    store_folder,
    table_name,
)
from .space import Space

# Shards kept in memory after they were verified; a default cache fits as a whole.
HELD_BYTES = 1 << 30
_ATTEMPTS = 5


class Store:
    """All embeddings of one modality in one space, read-only.

    Open one with `Store.open`.

    Args:
        path: Folder of the store.
        space: What its vectors mean.
        manifest: Content of manifest.json.
        items: One row per item, ordered by item_id: item_id, source_hash, shard, row,
            vector_hash, stamp, and facts of the source.
        rejects: item_id, stage, error, message, stamp.
        remedy: The command that repairs the store.
    """

    def __init__(
        self,
        path: Path,
        space: Space,
        manifest: dict[str, Any],
        items: pa.Table,
        rejects: pa.Table,
        remedy: str,
    ) -> None:
        self.path = path
        self.space = space
        self.manifest = manifest
        self.items = items
        self.rejects = rejects
        self._remedy = remedy
        self._rows = {item: row for row, item in enumerate(items["item_id"].to_pylist())}
        self._shards: OrderedDict[str, dict[str, np.ndarray]] = OrderedDict()
        self._mapped: dict[str, np.ndarray] = {}
        self._listed = {entry["name"]: entry for entry in manifest["shards"]}

    @classmethod
    def open(
        cls,
        cache: Path,
        modality: str,
        space_id: str | None = None,
        views: Collection[str] = (),
    ) -> Store:
        """Open the store of a modality.

        Args:
            cache: Folder of the cache.
            modality: Name of the modality.
            space_id: Id of the space; needed only when there are several.
            views: Where no space is named and several are there, those of another view than
                these are no candidates.

        Raises:
            DataError: There is no such store; the message names the command that makes it.
            ConfigError: There are several; the message lists them.
            IntegrityError: A file is missing or altered.
        """
        folder = modality_folder(cache, modality)
        spaces = stores_of(folder)
        if space_id is None and len(spaces) > 1 and views:
            fitting = [name for name in spaces if _view(folder / name) in views]
            spaces = fitting or spaces
        if space_id is None and len(spaces) > 1:
            listing = "".join(f"\n  {modality}@{name}" for name in spaces)
            raise ConfigError(
                f"{folder} holds {len(spaces)} stores; name one of them:{listing}\n"
                f"`cm2 cache ls {quoted(cache)}` tells what they are."
            )
        if not spaces or space_id not in (None, *spaces):
            wanted = modality if space_id is None else f"{modality}@{space_id}"
            held = sorted(path.name for path in folder.parent.glob("*") if stores_of(path))
            there = f"; there is {', '.join(spaces or held)}" if spaces or held else ""
            raise DataError(
                f"No finished store of {wanted} in {cache}{there}. Run `cm2 extract --modality "
                f"{modality} --data ROOT --cache {quoted(cache)}` first."
            )
        path = store_folder(cache, modality, space_id or spaces[0])
        return load(path, extract_again(cache, modality))

    def read(self, item_ids: Sequence[str]) -> dict[str, np.ndarray]:
        """Read items.

        Args:
            item_ids: n ids, in any order, also repeated.

        Returns:
            Name -> array [n, ...] in the order of `item_ids`. Where shards differ in length, the
            shorter are padded with zeros (False in a mask) to the longest that is read.

        Raises:
            DataError: An id is not in the store.
            IntegrityError: A shard was altered.
        """
        rows = self.rows(item_ids)
        names = self.items["shard"].take(pa.array(rows, pa.int64())).to_pylist()
        places = self.items["row"].to_numpy()[rows]
        groups: dict[str, list[int]] = {}
        for position, name in enumerate(names):
            groups.setdefault(name, []).append(position)
        parts = [(np.array(where), self._shard(name)) for name, where in sorted(groups.items())]
        result: dict[str, np.ndarray] = {}
        for key, spec in self.manifest["arrays"].items():
            shapes = [arrays[key].shape[1:] for _, arrays in parts] or [spec["shape"]]
            tail = np.max(np.array(shapes, dtype=np.int64).reshape(len(shapes), -1), axis=0)
            out = np.zeros((len(rows), *tail), dtype=spec["dtype"])
            for where, arrays in parts:
                data = arrays[key][places[where]]
                inside: tuple[Any, ...] = tuple(slice(size) for size in data.shape[1:])
                out[(where, *inside)] = data
            result[key] = out
        return result

    def image(self, item_id: str) -> np.ndarray:
        """The pixels of one item, [H, W] uint8, read-only and mapped from the file.

        The shard is verified when its first image is asked for.

        Raises:
            ConfigError: This is no store of pixels.
            DataError: The id is not in the store.
            IntegrityError: The shard was altered.
        """
        if self.space.view != "pixels":
            raise ConfigError(
                f"{self.path} holds a {self.space.view}, no pixels. Extract with --level pixels."
            )
        row = self.rows([item_id])[0]
        name = self.items["shard"][row].as_py()
        if name not in self._mapped:
            self._mapped[name] = self._map(name)
        image: np.ndarray = self._mapped[name][self.items["row"][row].as_py()]
        return image

    def _map(self, name: str) -> np.ndarray:
        path, _ = shard_paths(self.path, name)
        data = atomic.read_bytes(path, self._remedy)
        atomic.require_hash(path, data, self._listed[name]["data"]["sha256"], self._remedy)
        dtypes = {key: spec["dtype"] for key, spec in self.manifest["arrays"].items()}
        places = shard.offsets(path, data, self.space.id, name, dtypes, self._remedy)
        offset, shape = places["values"]
        return np.memmap(path, np.uint8, "r", offset, shape)

    def rows(self, item_ids: Sequence[str]) -> np.ndarray:
        """Rows of `items` for these ids, [n] int64.

        Raises:
            DataError: An id is not in the store.
        """
        absent = [item for item in item_ids if item not in self._rows]
        if absent:
            raise DataError(
                f"{len(absent)} of {len(item_ids)} items are not in {self.path}, the first is "
                f"{absent[0]!r}. {self._remedy}"
            )
        return np.array([self._rows[item] for item in item_ids], dtype=np.int64)

    def hours(self, item_ids: Sequence[str]) -> np.ndarray:
        """When these items were made, [n] float32 hours from entry; NaN where nobody said.

        Raises:
            DataError: An id is not in the store.
        """
        rows = self.rows(item_ids)
        if "hours_from_intime" not in self.items.column_names:
            return np.full(len(rows), np.nan, dtype=np.float32)
        column = self.items["hours_from_intime"].cast(pa.float32())
        found: np.ndarray = column.to_numpy(zero_copy_only=False)[rows]
        return found

    def holds(self, item_id: str) -> bool:
        """Whether the store has this item's vector."""
        return item_id in self._rows

    def content(self, item_ids: Sequence[str]) -> str:
        """Fingerprint of the content of these items, whatever their order and their shards.

        Returns:
            SHA-256 over (item_id, source_hash, vector_hash) of each distinct item.
        """
        rows = pa.array(self.rows(sorted(set(item_ids))), pa.int64())
        chosen = self.items.select(["item_id", "source_hash", "vector_hash"]).take(rows)
        digest = hashlib.sha256()
        for columns in zip(*(column.to_pylist() for column in chosen.columns), strict=True):
            digest.update("\0".join(columns).encode() + b"\n")
        return digest.hexdigest()

    @property
    def provenance(self) -> dict[str, Any]:
        """Where items and weights came from; part of no identity, empty where nothing is known."""
        path = self.path / PROVENANCE
        return atomic.read_json(path, self._remedy) if path.is_file() else {}

    @property
    def training_subjects(self) -> frozenset[str]:
        """Keys of the patients that the encoder was trained on; none of an encoder from elsewhere.

        Raises:
            IntegrityError: The record is not the one that the space names.
        """
        named = self.space.parts.get("training_subjects")
        found = self.provenance.get("training_subjects", []) if named else []
        if named and fingerprint(found) != named:
            raise IntegrityError(
                f"{self.path / PROVENANCE} does not hold the patients that the encoder was trained "
                f"on. {self._remedy}"
            )
        return frozenset(found)

    def verify(self) -> None:
        """Read every shard, record and the blank vector and compare all hashes.

        Raises:
            IntegrityError: The first file that was altered.
        """
        for name in self._listed:
            self.verify_shard(name)
        self.blank()

    def verify_shard(self, name: str) -> None:
        """Read one shard and its record and compare all hashes.

        Raises:
            IntegrityError: One of them was altered.
        """
        entry = self._listed[name]
        _, path = shard_paths(self.path, name)
        text = atomic.read_bytes(path, self._remedy)
        atomic.require_hash(path, text, entry["record"], self._remedy)
        if entry["data"] is not None:
            self._read_shard(name)

    def blank(self) -> dict[str, np.ndarray]:
        """The encoder's output on an empty input; no arrays when none was recorded."""
        if self.manifest["blank"] is None:
            return {}
        path = self.path / BLANK
        data = atomic.read_bytes(path, self._remedy)
        atomic.require_hash(path, data, self.manifest["blank"], self._remedy)
        return checkpoint.decode(path, data, self._remedy)[0]

    def _shard(self, name: str) -> dict[str, np.ndarray]:
        if name in self._shards:
            self._shards.move_to_end(name)
            return self._shards[name]
        arrays = self._shards[name] = self._read_shard(name)
        while len(self._shards) > 1 and _bytes(self._shards) > HELD_BYTES:
            self._shards.popitem(last=False)
        return arrays

    def _read_shard(self, name: str) -> dict[str, np.ndarray]:
        path, _ = shard_paths(self.path, name)
        image = atomic.read_bytes(path, self._remedy)
        atomic.require_hash(path, image, self._listed[name]["data"]["sha256"], self._remedy)
        dtypes = {key: spec["dtype"] for key, spec in self.manifest["arrays"].items()}
        contiguous = self.space.view == "pixels"
        arrays = shard.read(
            path, image, self.space.id, name, dtypes, self._remedy, contiguous=contiguous
        )
        rows = {len(array) for array in arrays.values()}
        if rows != {self._listed[name]["rows"]}:
            raise IntegrityError(
                f"{path} holds {sorted(rows)} rows, the manifest says "
                f"{self._listed[name]['rows']}. {self._remedy}"
            )
        return arrays


def stores_of(folder: Path) -> list[str]:
    """Ids of the spaces under one modality that have a manifest, sorted."""
    return sorted(path.parent.name for path in folder.glob(f"*/{MANIFEST}"))


def _view(path: Path) -> str:
    """View of the store in a folder, as its manifest says."""
    manifest = atomic.read_json(path / MANIFEST, "Extract it again.")
    return str(manifest["space"]["view"])


def load(path: Path, remedy: str) -> Store:
    """Open the store in one folder.

    Raises:
        IntegrityError: Manifest or tables are missing or altered.
    """
    confined(path.parents[2], path)
    for attempt in range(_ATTEMPTS):
        manifest, digest = atomic.read_json_hash(path / MANIFEST, remedy)
        try:
            return _load(path, manifest, remedy)
        except IntegrityError:
            # A writer may just have replaced the manifest and removed the tables of the old one.
            _, now = atomic.read_json_hash(path / MANIFEST, remedy)
            if now == digest or attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable")


def _load(path: Path, manifest: dict[str, Any], remedy: str) -> Store:
    record.require_schema(path / MANIFEST, manifest)
    space = Space.from_json(manifest["space"])
    if manifest.get("format") != STORE_FORMAT or space.id != path.name:
        raise IntegrityError(
            f"{path / MANIFEST} is the manifest of the space {space.id}, not of {path.name}. "
            f"{remedy}"
        )
    items, rejects = (
        atomic.read_parquet(
            path / table_name(stem, manifest["tables"][stem]),
            manifest["tables"][stem],
            remedy,
        )
        for stem in ("items", "rejects")
    )
    return Store(path, space, manifest, items, rejects, remedy)


def _bytes(shards: OrderedDict[str, dict[str, np.ndarray]]) -> int:
    return sum(array.nbytes for arrays in shards.values() for array in arrays.values())
