"""What was trained: one line for each run, group of runs and sweep below a folder.

Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..cache.layout import RUNS
from ..errors import CM2Error, DataError, IntegrityError, quoted
from .group import RunGroup, is_group, member
from .identity import modality_names
from .methods import short
from .rundir import CONFIG, INFO, RunDir
from .sweep.book import SweepDir, is_sweep
from .sweep.index import ranking, rows


def list_runs(folder: Path, task: str = "") -> list[dict[str, Any]]:
    """List the runs, groups and sweeps of a cache or of any folder, the latest last.

    Args:
        folder: A cache, a folder that holds runs or sweeps directly, or a sweep, for its runs.
        task: Only runs of this task; empty lists all.

    Returns:
        Rows of name, kind (`run`, or `seeds`, `folds` or a sweep with their number), state
        (`finished`, `unfinished`, `damaged`, or `unreadable` by this version), model, task,
        modalities, val_auroc (of a sweep that of its best setting), test_auroc (value, low, high;
        None where not judged), looks at the test stays, started, and detail.

    Raises:
        DataError: There is no such folder, or it holds no run.
    """
    place = folder / RUNS if (folder / RUNS).is_dir() else folder
    if not place.is_dir():
        raise DataError(f"{folder} is no folder. Name a cache, or a folder that holds runs.")
    lines = [_row(path) for path in _found(place)]
    if not lines:
        raise DataError(
            f"{place} holds no run. `cm2 fuse --cache {quoted(folder)}` trains one; name a cache, "
            "or a folder that holds runs."
        )
    kept = [row for row in lines if task in ("", row["task"])]
    return sorted(kept, key=lambda row: (str(row["started"] or ""), row["name"]))


def _found(place: Path) -> Iterator[Path]:
    paths = sorted(place.iterdir())
    if is_sweep(place):  # it refers to runs that lie elsewhere
        paths = [member.run.path for member in SweepDir.open(place).roll().members]
    for path in paths:
        if (path / CONFIG).is_file() or is_group(path) or is_sweep(path):
            yield path


def _row(path: Path) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(
        ("kind", "state", "model", "task", "modalities", "val_auroc", "test_auroc", "looks")
    )
    row = {"name": path.name, **row, "started": None, "detail": ""}
    try:
        if is_sweep(path):
            return row | _sweep(SweepDir.open(path))
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
        "looks": run.test_looks,
        "started": info.get("started"),
        "detail": member(config),
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


def _sweep(sweep: SweepDir) -> dict[str, Any]:
    roll = sweep.roll()
    found = rows(sweep, roll)
    given_up = sweep.given_up()
    ended = [r["status"] in ("finished", "failed") or r["run"] in given_up for r in found]
    best = next((one for one in ranking(found) if one.complete), None)
    ranked = best is not None and all(r["val_auroc"] is not None for r in found if r["epochs"])
    begun = [member.run for member in roll.members if member.run.path.joinpath(INFO).is_file()]
    configs = [run.config for run in begun]
    return {
        "kind": f"sweep of {len(found)}",
        "state": "finished" if all(ended) else "unfinished",
        "model": _each(short(config.model) for config in configs),
        "task": _each(config.task for config in configs),
        "modalities": _each("+".join(modality_names(config)) for config in configs),
        "val_auroc": {"value": best.score} if best is not None and ranked else None,
        "started": max((str(run.info.get("started") or "") for run in begun), default="") or None,
        "detail": f"{len(roll.values)} settings; cm2 compare {quoted(sweep.path)}",
    }


def _each(words: Iterable[str]) -> str:
    """Every word once, in the order of their first place."""
    return ", ".join(dict.fromkeys(words))


__all__ = ["list_runs"]
