"""Trees of mimic3-benchmarks and MedFuse: what they list, where the series lie, which stay each is.

```
root/      all_stays.csv, {train,test}/<subject>/episode<N>.csv and episode<N>_timeseries.csv
<task>/    {train,val,test}_listfile.csv, {train,test}/<subject>_episode<N>_timeseries.csv
```
N counts the kept stays of a patient. The lists of mimic3-benchmarks name no stay id, those of
MedFuse do; the files of `root` tell it in both.
"""

from __future__ import annotations

import csv
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl

from ...errors import DataError, LeakageError, SchemaError
from .cells import Kind
from .tables import find, open_table

TASKS = {"ihm": "mortality", "readm": "readm", "phenotyping": "phenotyp"}
"""Task to the word by which its folder is known."""
SEVERAL = ("phenotyping",)
"""Tasks with one column per label instead of y_true."""
PHENOTYPES = 25

_log = logging.getLogger("cm2.extract.trees")
_ABOUT_THE_STAY = ("stay", "period_length", "stay_id")
_SERIES = re.compile(r"(\d+)_episode(\d+)_timeseries\.csv")
_EPISODE = re.compile(r"episode(\d+)_timeseries\.csv")
_SPLITS: tuple[Literal["train", "val", "test"], ...] = ("train", "val", "test")
_STAYS: dict[str, tuple[str, ...]] = {  # our name: theirs, the first that is there
    "subject_id": ("subject_id",),
    "hadm_id": ("hadm_id",),
    "stay_id": ("icustay_id", "stay_id"),
    "intime": ("intime",),
    "outtime": ("outtime",),
    "los_days": ("los",),
    "admittime": ("admittime",),
    "dischtime": ("dischtime",),
    "race": ("ethnicity", "race"),
    "sex": ("gender",),
    "age": ("age",),
    "unit": ("last_careunit",),
    "mortality": ("mortality",),
}
_KINDS: dict[str, Kind] = {
    **dict.fromkeys(("subject_id", "hadm_id", "stay_id"), "id"),
    **dict.fromkeys(("intime", "outtime", "admittime", "dischtime"), "time"),
    **dict.fromkeys(("los_days", "age", "mortality"), "number"),
}

Episode = tuple[int, int]
"""Subject and number of the episode."""


@dataclass(frozen=True)
class Listed:
    """One line of a list file.

    Args:
        split: Of the list; `train` where training and validation stays share one list.
        stay_id: As listed, or None.
        labels: 0 or 1 by label; the one of a task with y_true is called "".
        series: The file of the series.
    """

    split: str
    stay_id: int | None
    labels: Mapping[str, int]
    series: Path


@dataclass(frozen=True)
class Tree:
    """An existing tree.

    Args:
        root: Folder with all_stays.csv, or None.
        tasks: Task to its folder.
    """

    root: Path | None
    tasks: Mapping[str, Path]

    def lists(self, task: str) -> tuple[dict[Episode, Listed], bool]:
        """Read the list files of a task.

        Returns:
            The stays, and whether the lists have validation stays of their own.

        Raises:
            DataError: A list is missing or names a series that is not there.
            SchemaError: A line is not what it should be.
            LeakageError: A patient is in two splits.
        """
        folder = self.tasks[task]
        files = {split: folder / f"{split}_listfile.csv" for split in _SPLITS}
        own_val = files["val"].is_file()
        if not own_val:
            files = {split: folder / split / "listfile.csv" for split in ("train", "test")}
        found: dict[Episode, Listed] = {}
        splits: dict[int, str] = {}
        for split, file in files.items():
            for episode, listed in _list(folder, task, split, file):
                known = next(iter(found.values()), listed).labels
                if list(listed.labels) != list(known):
                    raise SchemaError(
                        f"{file}: expected the {len(known)} labels of the other lists in the same "
                        f"order, found {len(listed.labels)}."
                    )
                if splits.setdefault(episode[0], split) != split:
                    raise LeakageError(
                        f"{file}: subject {episode[0]} is in {splits[episode[0]]} and in {split}. "
                        "Each patient belongs to one split."
                    )
                if episode in found:
                    raise DataError(f"{file}: {listed.series.name} is listed twice.")
                found[episode] = listed
        if not found:
            raise DataError(f"{folder}: the list files name no stay at all.")
        return found, own_val

    def unlisted(self, task: str, listed: Mapping[Episode, Listed]) -> int:
        """Count series in the folders of a task that no list names."""
        folder = self.tasks[task]
        there = {
            path for part in ("train", "test") for path in (folder / part).glob("*_timeseries.csv")
        }
        return len(there - {entry.series for entry in listed.values()})

    def episodes(self) -> dict[Episode, tuple[str, Path]]:
        """Return the part (train or test) and the series of each episode below root."""
        found: dict[Episode, tuple[str, Path]] = {}
        for part in ("train", "test"):
            for folder in sorted((self.root or Path()).joinpath(part).glob("[0-9]*")):
                for path in folder.glob("episode*_timeseries.csv"):
                    match = _EPISODE.fullmatch(path.name)
                    if match is not None and folder.name.isdigit():
                        found[int(folder.name), int(match[1])] = (part, path)
        return found

    def stay_id(self, episode: Episode) -> int | None:
        """Read the stay of an episode from root/{train,test}/<subject>/episode<N>.csv."""
        if self.root is None:
            return None
        for part in ("train", "test"):
            path = self.root / part / str(episode[0]) / f"episode{episode[1]}.csv"
            if not path.is_file():
                continue
            with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
                row = next(csv.DictReader(file), {})
            return _whole(row.get("Icustay", ""), path, "Icustay")
        return None

    def all_stays(self) -> pl.DataFrame | None:
        """Read all_stays.csv under our column names; None without root.

        Raises:
            DataError: The table is damaged or names a stay twice.
            SchemaError: A column is missing or unreadable.
        """
        if self.root is None:
            return None
        table = open_table(self.root, "all_stays")
        written = {
            name: next((word for word in words if table.has(word)), words[0])
            for name, words in _STAYS.items()
        }
        frame = table.read({written[name]: _KINDS.get(name, "text") for name in written})
        frame = frame.rename({word: name for name, word in written.items()})
        if frame["stay_id"].is_duplicated().any() or frame["stay_id"].null_count():
            raise DataError(f"{table.path}: expected one row per stay, found a stay twice or none.")
        return frame.sort("stay_id")


def open_tree(path: Path) -> Tree:
    """Find out what an existing tree holds.

    Args:
        path: The folder root, a task folder, or a folder with both side by side.

    Raises:
        DataError: It is neither.
    """
    if not path.is_dir():
        raise DataError(f"{path}: expected a folder for --from, found none there.")
    beside = [path.parent / "root"] if _is_task(path) else []
    root = next((f for f in (path, path / "root", *beside) if _is_root(f)), None)
    inside = [path] if _is_task(path) else [f for f in sorted(path.iterdir()) if _is_task(f)]
    tasks: dict[str, Path] = {}
    for folder in inside:
        name = next((task for task, word in TASKS.items() if word in folder.name.lower()), None)
        if name in tasks:
            raise DataError(
                f"{path}: {folder.name} and {tasks[name].name} hold one task; name one."
            )
        if name is not None:
            tasks[name] = folder
        else:
            _log.warning("%s: no task of cm2, its lists are not read", folder.name)
    if path == root or (root is not None and not tasks):
        return Tree(root, {})
    if not tasks:
        raise DataError(
            f"{path}: expected all_stays.csv, or a task folder such as in-hospital-mortality or "
            f"readmission with train_listfile.csv or train/listfile.csv; found "
            f"{', '.join(sorted(child.name for child in path.iterdir())[:8]) or 'nothing'}."
        )
    return Tree(root, tasks)


def _is_root(folder: Path) -> bool:
    return folder.is_dir() and find(folder, "all_stays") is not None


def _is_task(folder: Path) -> bool:
    lists = ("train_listfile.csv", "train/listfile.csv")
    return folder.is_dir() and any((folder / name).is_file() for name in lists)


def _targets(file: Path, header: tuple[str, ...], task: str) -> dict[str, str]:
    """Columns of the labels in a list, with the name that each has in the cache."""
    if task not in SEVERAL:
        if "stay" not in header or "y_true" not in header:
            raise SchemaError(
                f"{file}: expected the columns stay and y_true, found {', '.join(header)}."
            )
        return {"y_true": ""}
    columns = [name for name in header if name not in _ABOUT_THE_STAY]
    named = {name: re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") for name in columns}
    if "stay" not in header or len(columns) < 2 or len(set(named.values())) < len(columns):
        raise SchemaError(
            f"{file}: expected the column stay and one column per phenotype, found "
            f"{', '.join(header)[:300]}."
        )
    return named


def _list(folder: Path, task: str, split: str, file: Path) -> Iterator[tuple[Episode, Listed]]:
    """Read one list: `stay[,period_length][,stay_id],y_true`, or a column per label."""
    if not file.is_file():
        raise DataError(f"{file}: expected this list of stays, found none there.")
    with file.open(encoding="utf-8-sig", errors="replace", newline="") as lines:
        reader = csv.DictReader(lines)
        targets = _targets(file, tuple(reader.fieldnames or ()), task)
        for number, row in enumerate(reader, start=2):
            match = _SERIES.fullmatch(row["stay"] or "")
            if match is None:
                raise SchemaError(
                    f"{file}, line {number}: expected a name such as 10006_episode1_timeseries.csv."
                )
            labels = {
                name: _whole(row[column], file, f"{column} of line {number}")
                for column, name in targets.items()
            }
            for column, name in targets.items():
                if labels[name] not in (0, 1):
                    raise SchemaError(
                        f"{file}, line {number}: expected {column} 0 or 1, found {labels[name]}."
                    )
            listed = row.get("stay_id")
            series = folder / ("test" if split == "test" else "train") / match[0]
            if not series.is_file():
                raise DataError(
                    f"{file}, line {number}: {series} is not there. Copy the tree whole."
                )
            yield (
                (int(match[1]), int(match[2])),
                Listed(
                    split,
                    _whole(listed, file, f"stay_id of line {number}") if listed else None,
                    labels,
                    series,
                ),
            )


def _whole(text: str | None, file: Path, what: str) -> int:
    """Read a whole number, `200001.0` included."""
    match = re.fullmatch(r"\s*(\d+)(?:\.0*)?\s*", text or "")
    if match is None:
        raise SchemaError(f"{file}: expected a whole number as {what}.")
    return int(match[1])


__all__ = ["PHENOTYPES", "SEVERAL", "TASKS", "Episode", "Listed", "Tree", "open_tree"]
