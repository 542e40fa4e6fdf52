"""Describe one thing of a cache or run in plain values."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..errors import DataError, IntegrityError
from . import atomic, checkpoint, reader, record, shard
from .layout import COHORT, LEASE, MANIFEST, RUN_INFO, extract_again
from .stays import Cohort

RUN_REMEDY = "Delete this run's folder and run the same `cm2 fuse` again."
_REMEDY = "Delete it and run the command that made it again."


def describe_folder(path: Path, verify: bool) -> dict[str, Any] | None:
    """Describe a store, cohort or run; None when the folder is none of these.

    Args:
        path: The folder.
        verify: Also read and hash everything in it.

    Raises:
        IntegrityError: A file in it was altered.
    """
    if (path / MANIFEST).exists():
        store = reader.load(path, _store_remedy(path))
        if verify:
            store.verify()
        return {"kind": "store", **store.manifest}
    if (path / COHORT).exists():
        cohort = Cohort.open(path.resolve().parents[1], path.resolve().name)
        links = {modality: cohort.links(modality) for modality in cohort.modalities}
        return {
            "kind": "cohort",
            "stays": cohort.stays.num_rows,
            "tasks": list(cohort.tasks),
            "links": {
                name: {"stays": _count(link.table["has"]), "rules": link.rules}
                for name, link in links.items()
            },
            "info": cohort.info,
        }
    if (path / "group.json").exists():
        for check in folder_checks(path, RUN_REMEDY) if verify else ():
            check()
        members = atomic.read_json(path / "group.json", RUN_REMEDY)["members"]
        states = {member["run"]: run_state(path / member["run"]) for member in members}
        return {"kind": "group", "state": group_state(list(states.values())), "members": states}
    if (path / "config.json").exists():
        for check in folder_checks(path, RUN_REMEDY) if verify else ():
            check()
        texts = {
            file.stem: atomic.read_json(file, RUN_REMEDY)
            for file in sorted(path.glob("*.json"))
            if file.name != LEASE
        }
        files = sorted(str(f.relative_to(path)) for f in path.rglob("*") if f.is_file())
        return {"kind": "run", "files": files, **texts}
    return None


def run_state(folder: Path) -> str:
    """What run.json says of a run, `unfinished` where there is none."""
    path = folder / RUN_INFO
    return str(atomic.read_json(path, RUN_REMEDY)["status"]) if path.exists() else "unfinished"


def group_state(members: Sequence[str]) -> str:
    """State of a group from those of its runs."""
    return "finished" if all(state == "finished" for state in members) else "unfinished"


def describe_file(path: Path) -> dict[str, Any]:
    """Describe and verify one file by its ending.

    Raises:
        DataError: Nothing of cm2's has this ending.
        IntegrityError: The file was altered.
    """
    size = path.stat().st_size
    if path.suffix == ".h5":
        return {"kind": "shard", "bytes": size, **_shard(path)}
    if path.suffix == ".safetensors":
        return {"kind": "checkpoint", "bytes": size, **_checkpoint(path)}
    if path.suffix == ".parquet":
        table = atomic.read_parquet(path, None, _REMEDY)
        columns = {field.name: str(field.type) for field in table.schema}
        return {"kind": "table", "bytes": size, "rows": table.num_rows, "columns": columns}
    if path.suffix == ".json":
        return {"kind": "json", "bytes": size, **atomic.read_json(path, _REMEDY)}
    raise DataError(
        f"{path} is nothing that cm2 writes: expected a cache, cohort, store or run, or a file "
        ".h5, .parquet, .safetensors or .json."
    )


def folder_checks(folder: Path, remedy: str) -> Iterator[Callable[[], object]]:
    """One check per file of a run or of the events: JSON, checkpoints, and tables.

    A table is whole when its hash stands in one of the folder's JSON files.
    """
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".json" and path.name != LEASE:
            yield partial(atomic.read_json, path, remedy)
        elif path.suffix == ".safetensors":
            yield partial(checkpoint.read_meta, path, remedy)
        elif path.suffix == ".parquet":
            yield partial(_check_table, path, folder, remedy)


def _check_table(path: Path, folder: Path, remedy: str) -> None:
    texts = [file.read_text(errors="replace") for file in sorted(folder.glob("*.json"))]
    if not any(f'"{atomic.sha256_file(path)}"' in text for text in texts):
        raise IntegrityError(
            f"{path} is not what was written: no JSON file of {folder} names its hash. {remedy}"
        )


def _shard(path: Path) -> dict[str, Any]:
    store, name = path.resolve().parent, path.stem.removeprefix("shard-")
    remedy = _store_remedy(store)
    content = record.read(store, store.name, name, remedy).content
    data = content["data"] or {"sha256": "none"}
    image = atomic.read_bytes(path, remedy)
    atomic.require_hash(path, image, data["sha256"], remedy)
    dtypes = {key: spec["dtype"] for key, spec in content["arrays"].items()}
    arrays = shard.read(path, image, store.name, name, dtypes, remedy)
    return {
        "name": name,
        "space": store.name,
        "generation": content["generation"],
        "versions": content["versions"],
        "rejects": len(content["rejects"]["item_id"]),
        "arrays": {
            key: {"dtype": array.dtype.name, "shape": list(array.shape)}
            for key, array in arrays.items()
        },
    }


def _checkpoint(path: Path) -> dict[str, Any]:
    meta = checkpoint.read_meta(path, _REMEDY)
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    del header["__metadata__"]
    tensors = {
        name: {"dtype": entry["dtype"], "shape": entry["shape"]} for name, entry in header.items()
    }
    return {"meta": meta, "tensors": tensors}


def _store_remedy(path: Path) -> str:
    folder = path.resolve()
    return extract_again(folder.parents[2], folder.parent.name)


def _count(flags: pa.ChunkedArray) -> int:
    return sum(bool(flag) for flag in flags.to_pylist())
