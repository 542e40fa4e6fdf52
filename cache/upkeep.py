"""Look after a cache: list it, verify it, remove what nothing refers to, look into one part."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import CM2Error, DataError, IntegrityError, quoted
from ..progress import Progress, silent
from . import atomic, reader, record
from .fold import winners
from .inspection import RUN_REMEDY, describe_file, describe_folder, folder_checks
from .layout import (
    COHORTS,
    EVENTS,
    LABELS,
    LINKS,
    MANIFEST,
    PROVENANCE,
    RUNS,
    STORES,
    extract_again,
    table_name,
)
from .space import Space
from .stays import Cohort

# Younger leftovers may belong to a process that is still writing.
GRACE_SECONDS = 3600.0
_SHOWN = 16  # letters of a value; of a hash they are enough
_EVENTS_REMEDY = "Delete it and run the same `cm2 extract --modality ehr` again."


def ls(cache: Path) -> list[dict[str, Any]]:
    """What a cache holds: one row per cohort, store, table of events and run.

    Args:
        cache: Folder of the cache.

    Returns:
        Rows with kind, name, state ("complete", "partial", "unfinished" or "damaged"), rows,
        bytes and detail.

    Raises:
        DataError: There is no cache here.
    """
    require_cache(cache)
    rows = [
        _row("cohort", folder.name, folder, partial(_cohort_facts, cache))
        for folder in _folders(cache / COHORTS)
    ]
    rows += [
        _row("store", f"{folder.parent.name}@{folder.name}", folder, partial(_store_facts, cache))
        for folder in _store_folders(cache)
    ]
    rows += [
        _row("events", path.stem, path, lambda path: ("complete", None, ""))
        for path in sorted((cache / EVENTS).glob("*.parquet"))
    ]
    rows += [_row("run", folder.name, folder, _run_facts) for folder in _folders(cache / RUNS)]
    return rows


def verify(cache: Path, progress: Progress = silent) -> list[str]:
    """Read every file of a cache and compare all hashes.

    Args:
        cache: Folder of the cache.
        progress: Shows how many of its parts have been read.

    Returns:
        One message per problem, with file and remedy; empty when all is well.

    Raises:
        DataError: There is no cache here.
    """
    require_cache(cache)
    return _problems(list(_checks(cache)), progress)


def gc(cache: Path, dry_run: bool) -> list[Path]:
    """Remove what nothing refers to and no process can still be writing.

    Temporary files, shards without an intact record, shards whose every item was encoded anew in
    another, and tables that no JSON file names; each only when older than an hour. What a killed
    extraction committed is kept.

    Args:
        cache: Folder of the cache.
        dry_run: Only tell.

    Returns:
        The files, sorted.

    Raises:
        DataError: There is no cache here.
        IntegrityError: A manifest or a file of links is altered, so what it names is not known.
    """
    require_cache(cache)
    found = {path for path in cache.rglob("*") if atomic.TEMPORARY.fullmatch(path.name)}
    for folder in _store_folders(cache):
        found |= _unreferenced_in_store(folder, extract_again(cache, folder.parent.name))
    for folder in _folders(cache / COHORTS):
        found |= _unreferenced_tables(folder, extract_again(cache, "all", folder.name))
    latest = time.time() - GRACE_SECONDS
    old = sorted(path for path in found if path.is_file() and path.stat().st_mtime < latest)
    if not dry_run:
        # Records before data: after a kill in between, the next call removes the data.
        for path in sorted(old, key=lambda path: path.suffix != ".json"):
            path.unlink(missing_ok=True)
    return old


def inspect(path: Path, verify: bool = False) -> dict[str, Any]:
    """Describe a cache, cohort, store, shard, table, JSON file, checkpoint or run.

    Args:
        path: A folder or file.
        verify: Also read and hash everything in a folder; a single file always is.

    Returns:
        Its kind and content, JSON-able.

    Raises:
        DataError: It does not exist or is nothing of cm2's.
        IntegrityError: It was altered.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist.")
    if path.is_file():
        return describe_file(path)
    found = describe_folder(path, verify)
    if found is not None:
        return found
    require_cache(path)
    problems = _problems(list(_checks(path)), silent) if verify else []
    if problems:
        raise IntegrityError("\n".join(problems))
    return {"kind": "cache", "content": ls(path)}


def require_cache(cache: Path) -> None:
    """Raise DataError unless `cache` holds at least one folder of a cache."""
    if not any((cache / name).is_dir() for name in (COHORTS, STORES, RUNS, EVENTS)):
        raise DataError(
            f"{cache} is no cache: it has none of the folders {COHORTS}, {STORES}, {EVENTS}, "
            f"{RUNS}. Run `cm2 extract --data ROOT --cache {quoted(cache)}` first, or name another "
            "--cache."
        )


def _problems(checks: list[Callable[[], object]], progress: Progress) -> list[str]:
    problems = []
    with progress("verify", len(checks), "parts") as advance:
        for check in checks:
            try:
                check()
            except CM2Error as error:
                problems.append(str(error))
            advance(1)
    return problems


def _checks(cache: Path) -> Iterator[Callable[[], object]]:
    for folder in _folders(cache / COHORTS):
        yield partial(_verify_cohort, cache, folder.name)
    for folder in _store_folders(cache):
        yield from _store_checks(cache, folder)
    yield from folder_checks(cache / EVENTS, _EVENTS_REMEDY)
    for folder in _folders(cache / RUNS):
        yield from folder_checks(folder, RUN_REMEDY)


def _verify_cohort(cache: Path, name: str) -> None:
    cohort = Cohort.open(cache, name)
    for modality in cohort.modalities:
        cohort.links(modality)
        if not list((cache / STORES / modality).glob(f"*/{MANIFEST}")):
            raise IntegrityError(
                f"{cache / STORES / modality} has no finished store, and the cohort {name!r} links "
                f"its vectors. {extract_again(cache, modality, name)}"
            )
    for path in sorted((cache / COHORTS / name).rglob("*.json")):
        atomic.read_json(path, "Delete it and run the same `cm2 extract` again.")


def _store_checks(cache: Path, folder: Path) -> Iterator[Callable[[], object]]:
    remedy = extract_again(cache, folder.parent.name)
    if not (folder / MANIFEST).exists():
        return  # unfinished: what counts is decided when its extraction goes on
    yield partial(atomic.read_json, folder / PROVENANCE, remedy)
    try:
        store = reader.load(folder, remedy)
    except CM2Error:
        yield partial(reader.load, folder, remedy)
        return
    yield store.blank
    for entry in store.manifest["shards"]:
        yield partial(store.verify_shard, entry["name"])


def _unreferenced_in_store(folder: Path, remedy: str) -> set[Path]:
    records, found = [], set[Path]()
    for path in folder.glob("shard-*.json"):
        try:
            records.append(record.read(folder, folder.name, path.stem[6:], remedy))
        except CM2Error:
            found.add(path)
    live = set(winners(records).values())
    for path in folder.glob("shard-*.*"):
        if path.suffix in (".h5", ".json") and path.stem[6:] not in live:
            found.add(path)
    if (folder / MANIFEST).exists():
        manifest = atomic.read_json(folder / MANIFEST, remedy)
        named = {table_name(stem, sha256) for stem, sha256 in manifest["tables"].items()}
        # A shard that the manifest names is never removed, damaged or not: readers rely on it.
        named |= {
            f"shard-{entry['name']}{ending}"
            for entry in manifest["shards"]
            for ending in (".h5", ".json")
        }
        found |= set(folder.glob("*.parquet"))
        found = {path for path in found if path.name not in named}
    return found


def _unreferenced_tables(folder: Path, remedy: str) -> set[Path]:
    found = set[Path]()
    for part in (LINKS, LABELS):
        named = {
            table_name(path.stem, atomic.read_json(path, remedy)["tables"][part])
            for path in (folder / part).glob("*.json")
        }
        found |= {path for path in (folder / part).glob("*.parquet") if path.name not in named}
    return found


def _row(
    kind: str, name: str, path: Path, facts: Callable[[Path], tuple[str, int | None, str]]
) -> dict[str, Any]:
    try:
        state, rows, detail = facts(path)
    except CM2Error as error:
        state, rows, detail = "damaged", None, str(error)
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return {
        "kind": kind,
        "name": name,
        "state": state,
        "rows": rows,
        "bytes": sum(p.stat().st_size for p in files),
        "detail": detail,
    }


def _cohort_facts(cache: Path, folder: Path) -> tuple[str, int | None, str]:
    if not Cohort.exists(cache, folder.name):
        return "unfinished", None, ""
    cohort = Cohort.open(cache, folder.name)
    tasks, modalities = ", ".join(cohort.tasks), ", ".join(cohort.modalities)
    return "complete", cohort.stays.num_rows, f"tasks {tasks}; modalities {modalities}"


def _store_facts(cache: Path, folder: Path) -> tuple[str, int | None, str]:
    if not (folder / MANIFEST).exists():
        count = len(list(folder.glob("shard-*.json")))
        return "unfinished", None, f"{count} shards committed"
    store = reader.load(folder, extract_again(cache, folder.parent.name))
    values = store.manifest["arrays"].get("values", {"shape": [], "dtype": "no values"})
    shape = " x ".join(map(str, values["shape"]))
    detail = f"{store.space.view} {shape} {values['dtype']}, {store.rejects.num_rows} rejects"
    siblings = [space.parts for space in _spaces(folder.parent)]
    return store.manifest["state"], store.items.num_rows, detail + _own(store.space, siblings)


def _spaces(folder: Path) -> list[Space]:
    """Of every readable store of a modality."""
    found = []
    for path in _folders(folder):
        with suppress(CM2Error):
            if (path / MANIFEST).exists():
                found.append(reader.load(path, "").space)
    return found


def _own(space: Space, siblings: Sequence[Mapping[str, Any]]) -> str:
    """What a store has that not every store of its modality has, in the words of its space."""
    said = []
    for name, value in space.parts.items():
        others = [parts.get(name) for parts in siblings]
        if isinstance(value, dict):
            common = [set(other) for other in others if isinstance(other, dict)]
            said += sorted(set(value) - set.intersection(*common))
        elif isinstance(value, str | int | float) and any(other != value for other in others):
            said.append(f"{name} {str(value)[:_SHOWN]}")
    return f"; own: {', '.join(said)}" if said else ""


def _run_facts(folder: Path) -> tuple[str, int | None, str]:
    group = folder / "group.json"
    if group.exists():
        members = atomic.read_json(group, RUN_REMEDY)["members"]
        states = [_run_facts(folder / member["run"])[0] for member in members]
        finished = sum(state == "finished" for state in states)
        state = "finished" if finished == len(states) else "unfinished"
        return state, None, f"group: {finished} of {len(states)} runs finished"
    path = folder / "run.json"
    if not path.exists():
        return "unfinished", None, ""
    content = atomic.read_json(path, RUN_REMEDY)
    return str(content.get("status", "unknown")), None, str(content.get("model", ""))


def _folders(parent: Path) -> list[Path]:
    return sorted(p for p in parent.glob("*") if p.is_dir() and not p.name.startswith("."))


def _store_folders(cache: Path) -> list[Path]:
    return [space for modality in _folders(cache / STORES) for space in _folders(modality)]
