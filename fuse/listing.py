"""What was trained: one line for each run and each group of runs below a folder.

Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..cache.layout import RUNS
from ..errors import CM2Error, DataError, IntegrityError
from .group import RunGroup, is_group
from .identity import modality_names
from .methods import short
from .rundir import CONFIG, INFO, RunDir


def list_runs(folder: Path, task: str = "") -> list[dict[str, Any]]:
    """List the runs and groups of a cache or of any folder, the latest last.

    Args:
        folder: A cache, or a folder that holds runs directly.
        task: Only runs of this task; empty lists all.

    Returns:
        Rows of name, kind (`run`, or `seeds` or `folds` with their number), state (`finished`,
        `unfinished`, `damaged`, or `unreadable` by this version), model, task, modalities,
        val_auroc, test_auroc (value, low, high; None where not judged), looks at the test stays,
        started, and detail.

    Raises:
        DataError: There is no such folder, or it holds no run.
    """
    place = folder / RUNS if (folder / RUNS).is_dir() else folder
    if not place.is_dir():
        raise DataError(f"{folder} is no folder. Name a cache, or a folder that holds runs.")
    rows = [_row(path) for path in _found(place)]
    if not rows:
        raise DataError(
            f"{place} holds no run. `cm2 fuse --cache {folder}` trains one; name a cache, or a "
            "folder that holds runs."
        )
    kept = [row for row in rows if task in ("", row["task"])]
    return sorted(kept, key=lambda row: (str(row["started"] or ""), row["name"]))


def _found(place: Path) -> Iterator[Path]:
    for path in sorted(place.iterdir()):
        if (path / CONFIG).is_file() or is_group(path):
            yield path


def _row(path: Path) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(
        ("kind", "state", "model", "task", "modalities", "val_auroc", "test_auroc", "looks")
    )
    row = {"name": path.name, **row, "started": None, "detail": ""}
    try:
        return row | (_group(path) if is_group(path) else _run(RunDir.open(path)))
    except CM2Error as error:
        state = "damaged" if isinstance(error, IntegrityError) else "unreadable"
        return row | {"state": state, "detail": str(error)}


def _run(run: RunDir) -> dict[str, Any]:
    info = run.info
    config = run.config
    return {
        "kind": "run",
        "state": "finished" if run.finished else "unfinished",
        "model": short(config.model),
        "task": config.task,
        "modalities": "+".join(modality_names(config)),
        "val_auroc": (run.metrics("val") or {}).get("auroc"),
        "test_auroc": (run.metrics("test") or {}).get("auroc"),
        "looks": int(info.get("looks", {}).get("test", 0)),
        "started": info.get("started"),
        "detail": f"seed {config.seed}" + (f", fold {config.fold}" if config.folds else ""),
    }


def _group(path: Path) -> dict[str, Any]:
    group = RunGroup.find(path)
    if group.metrics("val"):  # was finished, so a run that is not there is lost
        group = RunGroup.open(path)
    members = [_run(run) for run in group.begun if run.path.joinpath(INFO).is_file()]
    known = {part["seed"] for part in group.record["members"]}
    count = len(known) if group.kind == "seeds" else group.record["folds"]
    whole = len(members) == len(group.members)
    state = "finished" if whole and all(m["state"] == "finished" for m in members) else "unfinished"
    detail = ", ".join(f"seed {seed}" for seed in sorted(known))
    if not members:
        return {"kind": f"{count} {group.kind}", "state": state, "detail": detail}
    first = members[0]
    return {
        **first,
        "kind": f"{count} {group.kind}",
        "state": state,
        "val_auroc": (group.metrics("val") or {}).get("auroc"),
        "test_auroc": (group.metrics("test") or {}).get("auroc"),
        "looks": max(m["looks"] for m in members),
        "started": max(str(m["started"] or "") for m in members) or None,
        "detail": detail,
    }


__all__ = ["list_runs"]
