"""Write a store shard by shard; any number of processes may do so at once.

A shard counts from the moment its record is written; `finish` folds all records into the
manifest. An item that is encoded again under another stamp goes into a new shard of a higher
generation, which wins over the older one; `cm2 cache gc` removes shards without a live row.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError, DataError, IntegrityError
from . import atomic, checkpoint, record
from .fold import Folded, fold, table_stamps
from .layout import (
    BLANK,
    MANIFEST,
    PROVENANCE,
    SCHEMA_VERSION,
    STORE_FORMAT,
    check_hex,
    claim,
    extract_again,
    modality_folder,
    shard_paths,
    store_folder,
    table_name,
)
from .reader import Store, load
from .record import Record
from .space import EncodedShard, Space

_log = logging.getLogger("cm2.cache")
_ROUNDS = 20


class StoreWriter:
    """Adds shards to the store of one space.

    Args:
        cache: Folder of the cache.
        space: What the vectors mean; names the store's folder.
        provenance: Inventory of the sources; recorded, part of no identity.

    Raises:
        ConfigError: The store is half-built and was begun with other library versions.
    """

    def __init__(self, cache: Path, space: Space, provenance: Mapping[str, object]) -> None:
        claim(modality_folder(cache, space.modality))
        self.path = store_folder(cache, space.modality, space.id)
        self.space = space
        self._provenance = dict(provenance)
        self._remedy = extract_again(cache, space.modality)
        self._known: dict[str, str] | None = None
        self._held: dict[str, tuple[int, str]] | None = None  # item -> generation, stamp
        self._relied_on: set[str] = set()  # shards that must be whole when finish is called
        self._drop_damaged_blank()
        self._store = self._open()
        if self._store is None or self._store.manifest["state"] != "complete":
            self._require_versions()

    def known(self) -> dict[str, str]:
        """Items and rejects that need no work, with the stamps they were made from.

        Taken from the manifest. A shard that is missing or altered does not count, so its items
        are encoded again; every shard is read once for that. Without an intact manifest the
        records are folded instead.

        Returns:
            item_id -> stamp.
        """
        if self._known is None:
            store = self._store
            if store is None and (self.path / MANIFEST).exists():
                folded = fold(self._whole_records())
                self._relied_on |= {entry["name"] for entry in folded.shards}
                self._known = folded.stamps
            elif store is None:
                self._known = {}
            else:
                self._known = self._whole_items(store)
        return dict(self._known)

    def committed(self, name: str) -> bool:
        """Whether the shard is on disk, whole, and no newer encoding of its items is there.

        Args:
            name: Name of the shard, 12 hexadecimal digits.
        """
        found = self._read(name)
        if found is None or not record.is_whole(self.path, found):
            return False
        held = self._holdings()
        for item, stamp in found.stamps.items():
            generation, newest = held.get(item, (0, stamp))
            if generation > found.generation and newest != stamp:
                return False
        self._relied_on.add(name)
        return True

    def commit(self, name: str, shard: EncodedShard, stamps: Mapping[str, str]) -> None:
        """Store one shard: data first, then the record that makes it count.

        Args:
            name: Name of the shard, 12 hexadecimal digits, a function of its items and stamps.
            shard: Encoded items and rejects.
            stamps: Stamp of every item and reject of the shard.

        Raises:
            ConfigError: The shard's parts do not fit together.
            DataError: A value is NaN or infinite.
            ResourceError: The disk is full or cannot be written; nothing is left behind.
        """
        held = self._holdings()
        generation = 0
        for item, stamp in stamps.items():
            if item in held:
                older, other = held[item]
                generation = max(generation, older + (other != stamp))
        written = record.write(self.path, self.space, name, shard, stamps, generation)
        self._hold(written)
        self._relied_on.add(name)

    def write_blank(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Store the encoder's output on an empty input, as blank.safetensors."""
        data, _ = checkpoint.encode(dict(arrays), {"space": self.space.id})
        atomic.write_if_changed(self.path / BLANK, data)

    def forget_rejects(self, keep: Collection[str]) -> None:
        """Strike the rejects that nobody asks for any more, as those of a file mended since.

        Those that another process has added meanwhile stay.

        Args:
            keep: Items of which a reject stays.
        """
        if self._store is None:
            return
        stale = set(self._store.rejects["item_id"].to_pylist()).difference(keep)
        for found in self._records() if stale else ():
            gone = stale.intersection(found.content["rejects"]["item_id"])
            if gone and record.strike(self.path, found, gone) is None:
                self._relied_on.discard(found.name)

    def finish(self, complete: bool) -> Store:
        """Fold all records into the tables and the manifest; the same bytes whatever the order.

        Args:
            complete: Whether all work is done. A store once complete stays so until items are
                added by a call that does not complete it.

        Returns:
            The store, opened.

        Raises:
            IntegrityError: A shard that this writer relies on is not whole any more.
        """
        for _ in range(_ROUNDS):
            listing = self._listing()
            records = self._whole_records()
            lost = self._relied_on - {found.name for found in records}
            if lost:
                path, _ = shard_paths(self.path, min(lost))
                raise IntegrityError(
                    f"{path} was altered or removed while the store was written, and "
                    f"{len(lost)} shards were. {self._remedy}"
                )
            self._write(fold(records), complete)
            # Whoever writes the manifest last looks once more, so no commit of another process
            # is lost, and no lock is needed.
            if listing == self._listing() and self._tables_present():
                return load(self.path, self._remedy)
        raise DataError(
            f"{self.path} did not come to rest: other processes keep adding shards. Run the same "
            "command again when they are done."
        )

    def _write(self, folded: Folded, complete: bool) -> None:
        old = self._open()
        if old is not None and old.manifest["state"] == "complete" and not complete:
            complete = folded.stamps == table_stamps(old.items, old.rejects)
        atomic.write_json(self.path / PROVENANCE, self._provenance)
        tables = {}
        for stem, table in (("items", folded.items), ("rejects", folded.rejects)):
            data = atomic.render_parquet(table)
            digest = atomic.hash_bytes(data)
            atomic.write_if_changed(self.path / table_name(stem, digest), data)
            tables[stem] = digest
        manifest = {
            "format": STORE_FORMAT,
            "schema_version": SCHEMA_VERSION,
            "space": self.space.as_json(),
            "state": "complete" if complete else "partial",
            "items": folded.items.num_rows,
            "rejects": folded.rejects.num_rows,
            "arrays": folded.arrays,
            "shards": folded.shards,
            "tables": tables,
            "versions": folded.versions,
            "blank": self._blank_hash(),
        }
        atomic.write_json(self.path / MANIFEST, manifest)
        if old is not None:
            for stem, digest in old.manifest["tables"].items():
                if digest != tables[stem]:
                    (self.path / table_name(stem, digest)).unlink(missing_ok=True)

    def _tables_present(self) -> bool:
        return self._open() is not None

    def _blank_hash(self) -> str | None:
        """Hash of the blank vector, which is verified; None when there is none."""
        path = self.path / BLANK
        if not path.exists():
            return None
        meta = checkpoint.read_meta(path, self._remedy)
        if meta.get("space") != self.space.id:
            raise IntegrityError(f"{path} belongs to another space. {self._remedy}")
        return atomic.sha256_file(path)

    def _drop_damaged_blank(self) -> None:
        """Remove an altered blank vector, so that it is made again and never enters a manifest."""
        try:
            self._blank_hash()
        except IntegrityError as error:
            _log.warning("%s It is removed.", error)
            (self.path / BLANK).unlink(missing_ok=True)

    def _open(self) -> Store | None:
        """The store as the manifest has it; None when there is none or it is damaged."""
        if not (self.path / MANIFEST).exists():
            return None
        try:
            return load(self.path, self._remedy)
        except IntegrityError as error:
            _log.warning("%s The records of the shards are folded anew.", error)
            return None

    def _whole_items(self, store: Store) -> dict[str, str]:
        whole = set()
        for entry in store.manifest["shards"]:
            if record.is_listed_whole(self.path, entry):
                whole.add(entry["name"])
            else:
                _log.warning("Shard %s of %s is damaged: redone.", entry["name"], self.path)
        self._relied_on |= whole
        return {
            item: stamp
            for table in (store.items, store.rejects)
            for item, stamp, name in zip(
                *(table[column].to_pylist() for column in ("item_id", "stamp", "shard")),
                strict=True,
            )
            if name in whole
        }

    def _require_versions(self) -> None:
        now = record.library_versions()
        begun = [found.content["versions"] for found in self._records()]
        if begun and now not in begun:
            other = {
                library: version
                for library, version in begun[0].items()
                if now.get(library) != version
            }
            raise ConfigError(
                f"{self.path} is half-built and was begun with {_listed(other)}; here is "
                f"{_listed({k: now.get(k, 'none') for k in other})}. Finish it with those "
                "versions, or delete this folder and run the same command again."
            )

    def _holdings(self) -> dict[str, tuple[int, str]]:
        if self._held is None:
            self._held = {}
            for found in self._records():
                self._hold(found)
        return self._held

    def _hold(self, found: Record) -> None:
        held = self._holdings()
        for item, stamp in found.stamps.items():
            if item not in held or held[item][0] <= found.generation:
                held[item] = (found.generation, stamp)

    def _records(self) -> list[Record]:
        """All readable records, by name; an altered one counts as not committed."""
        names = sorted(path.stem.removeprefix("shard-") for path in self._record_paths())
        return [found for name in names if (found := self._read(name)) is not None]

    def _whole_records(self) -> list[Record]:
        return [found for found in self._records() if record.is_whole(self.path, found)]

    def _record_paths(self) -> list[Path]:
        return sorted(self.path.glob("shard-????????????.json"))

    def _listing(self) -> list[tuple[Any, ...]]:
        stats = [(path.name, path.stat()) for path in self._record_paths()]
        return [(name, s.st_ino, s.st_size, s.st_mtime_ns) for name, s in stats]

    def _read(self, name: str) -> Record | None:
        check_hex(name, "Shard name")
        _, path = shard_paths(self.path, name)
        if not path.exists():
            return None
        try:
            return record.read(self.path, self.space.id, name, self._remedy)
        except IntegrityError as error:
            _log.warning("%s", error)
            return None


def _listed(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{library} {version}" for library, version in sorted(versions.items()))
