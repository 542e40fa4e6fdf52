"""The cohort of an existing tree: its stays, labels and splits as the tree has them."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import polars as pl
import pyarrow as pa

from ..errors import DataError, LeakageError
from .cohort import PUBLISHED_SPLITS, race_group, readmitted, to_arrow
from .config import ExtractConfig
from .modalities.events import PREDICTION_HOURS
from .selection import PUBLISHED, PUBLISHED_POSITIVES
from .sources.tree_series import read_series
from .sources.trees import PHENOTYPES, SEVERAL, Episode, Tree
from .splits import assign, hashed

_log = logging.getLogger("cm2.extract.trees")

_EPSILON_HOURS = 1e-6
_FIRST_OF_MIMIC4 = 10_000_000
_COLUMNS = (
    *("stay_id", "subject_id", "hadm_id", "intime", "outtime", "split"),
    *("age", "sex", "race", "unit", "los_hours"),
    *("in_ihm", "y_ihm", "in_readm", "y_readm"),
)


@dataclass(frozen=True)
class TreeData:
    """The stays of a tree, and their series as text.

    Args:
        tree: What the folders hold.
        config: Data set, splits and seed.
    """

    tree: Tree
    config: ExtractConfig

    @cached_property
    def dataset(self) -> Literal["mimic3", "mimic4"]:
        """The data set that the tree was made from, told by its columns or by its ids."""
        if self.config.dataset != "auto":
            return self.config.dataset
        subjects = {episode[0] for episode in self._found[0]}
        return "mimic4" if max(subjects) >= _FIRST_OF_MIMIC4 else "mimic3"

    @cached_property
    def stays(self) -> pl.DataFrame:
        """subject_id, stay_id, part (split of the tree), series, and labels or null: ihm, readm,
        and a column <task>__<label> for each label of a task with several.
        """
        return self._found[1]

    @cached_property
    def _found(self) -> tuple[list[Episode], pl.DataFrame]:
        entries: dict[Episode, dict[str, Any]] = {}
        for task in self.tree.tasks:
            listed, _ = self.tree.lists(task)
            loose = self.tree.unlisted(task, listed)
            if loose:
                _log.warning("%s: %d series stand in no list and are left out", task, loose)
            for episode, line in listed.items():
                entry = entries.setdefault(
                    episode, {"part": line.split, "stay_id": line.stay_id, "series": line.series}
                )
                if entry["part"] != line.split:
                    raise LeakageError(
                        f"{self.tree.tasks[task]}: subject {episode[0]} is in {line.split}, in "
                        f"another task's lists in {entry['part']}. Import the tasks one by one."
                    )
                if entry["stay_id"] is None:
                    entry["stay_id"] = line.stay_id
                elif line.stay_id not in (None, entry["stay_id"]):
                    raise DataError(
                        f"{self.tree.tasks[task]}: {line.series.name} is stay {line.stay_id}, in "
                        f"another task's lists {entry['stay_id']}. Do the folders belong together?"
                    )
                for label, value in line.labels.items():
                    entry[f"{task}__{label}" if label else task] = value
        if not self.tree.tasks:
            for episode, (part, path) in self.tree.episodes().items():
                entries[episode] = {"part": part, "stay_id": None, "series": path}
        if not entries:
            raise DataError(f"{self.tree.root}: expected series of episodes, found none.")
        order = sorted(entries)
        several = {key for entry in entries.values() for key in entry if "__" in key}
        labels = ("ihm", "readm", *(key for key in entries[order[0]] if key in several))
        labels += tuple(sorted(several - set(labels)))
        rows = [
            {
                "subject_id": episode[0],
                "stay_id": self._stay_id(episode, entries[episode]["stay_id"]),
                "part": entries[episode]["part"],
                **{label: entries[episode].get(label) for label in labels},
                "series": str(entries[episode]["series"]),
            }
            for episode in order
        ]
        kinds = dict.fromkeys(("subject_id", "stay_id"), pl.Int64) | dict.fromkeys(labels, pl.Int8)
        frame = pl.DataFrame(rows, schema_overrides=kinds, infer_schema_length=None)
        twice = frame.filter(pl.col("stay_id").is_duplicated())
        if twice.height:
            raise DataError(f"The tree has stay {twice['stay_id'][0]} under two episodes.")
        return order, frame.sort("stay_id")

    def _stay_id(self, episode: Episode, listed: int | None) -> int:
        """The stay of an episode: as listed, as told by root, else made of subject and number."""
        told = listed if listed is not None else self.tree.stay_id(episode)
        return told if told is not None else episode[0] * 1000 + episode[1]

    @cached_property
    def series(self) -> pl.DataFrame:
        """stay_id, hours, variable, text of every series."""
        files = self.stays.select("stay_id", "series").iter_rows()
        return read_series([(stay, Path(path)) for stay, path in files])

    @cached_property
    def own_ids(self) -> bool:
        """Whether the tree tells the ids of the stays."""
        sample = self.stays["stay_id"] // 1000 != self.stays["subject_id"]
        return bool(sample.any())


def rules(data: TreeData) -> dict[str, object]:
    """Return how stays and labels came about."""
    return {
        "dataset": data.dataset,
        "tree": sorted(data.tree.tasks) or ["root"],
        "prediction_hours": PREDICTION_HOURS,
        "stay_ids": "of the tree" if data.own_ids else "subject_id * 1000 + episode",
        "ihm": "as listed" if "ihm" in data.tree.tasks else "mortality of all_stays.csv",
        "readm": "as listed" if "readm" in data.tree.tasks else "icu, from all_stays.csv",
        **{
            task: "as listed for whole stays; the series end at 48 h"
            for task in SEVERAL
            if task in data.tree.tasks
        },
    }


def build(data: TreeData) -> tuple[pa.Table, dict[str, Any]]:
    """Make the table of stays of a tree.

    Labels are those of the lists; without lists of a task they are made from all_stays.csv by the
    published rules, and without that file the task is absent.

    Args:
        data: The tree.

    Returns:
        One row per stay, sorted by stay_id, and the record for cohort.json.

    Raises:
        DataError: Lists, folders and all_stays.csv contradict each other.
        LeakageError: A patient is in two splits.
    """
    frame = data.stays
    everyone = data.tree.all_stays()
    if everyone is not None:
        frame = _joined(frame, everyone)
    measured = data.series["stay_id"].unique()
    has = pl.col("stay_id").is_in(measured.implode())
    if {"ihm", "readm"} & set(data.tree.tasks):
        eligible = pl.any_horizontal(pl.col("ihm", "readm").is_not_null()) & has
    elif everyone is None:
        eligible = has
    else:
        long_enough = pl.col("los_days") * 24 >= PREDICTION_HOURS - _EPSILON_HOURS
        eligible = long_enough.fill_null(value=False) & has
    frame = frame.with_columns(eligible=eligible)
    for task in ("ihm", "readm"):
        if task in data.tree.tasks:
            frame = frame.with_columns(pl.col(task).is_not_null().and_(has).alias(f"in_{task}"))
        elif everyone is not None:
            label = pl.col("told_ihm" if task == "ihm" else "told_readm")
            frame = frame.with_columns(label.alias(task), pl.col("eligible").alias(f"in_{task}"))
        else:
            continue
        frame = frame.with_columns(pl.col(task).cast(pl.Int8).alias(f"y_{task}"))
    added: list[str] = []
    for task in set(SEVERAL) & set(data.tree.tasks):
        own = [name for name in frame.columns if name.startswith(f"{task}__")]
        listed = pl.any_horizontal(pl.col(own).is_not_null()) & has
        frame = frame.with_columns(listed.alias(f"in_{task}"), pl.col(own).name.prefix("y_"))
        added += [f"in_{task}", *(f"y_{name}" for name in own)]
    frame, split_rule = _split(frame, data)
    chosen = [name for name in (*_COLUMNS, *added) if name in frame.columns]
    table = frame.select(chosen).sort("stay_id")
    tasks = _tasks(table, data.dataset)
    return to_arrow(table), {
        "dataset": data.dataset,
        "release": "imported tree",
        "synthetic": False,
        "rules": rules(data),
        "split": split_rule,
        "attrition": _counts(table, data),
        "tasks": tasks,
    }


def _joined(frame: pl.DataFrame, everyone: pl.DataFrame) -> pl.DataFrame:
    """Add what all_stays.csv tells of each stay, labels by the published rules among it."""
    soon = readmitted(everyone.filter(pl.col("admittime").is_not_null()))
    told = everyone.join(soon, on="hadm_id", how="left").with_columns(
        told_ihm=(pl.col("mortality") == 1).fill_null(value=False)
    )
    told = told.with_columns(
        race_group(),
        told_readm=pl.col("told_ihm") | pl.col("readmitted").fill_null(value=False),
        los_hours=pl.col("los_days") * 24,
        sex=pl.when(pl.col("sex").is_in(["F", "M"])).then("sex").otherwise(pl.lit("unknown")),
        unit=pl.col("unit").fill_null("unknown"),
    )
    joined = frame.join(told, on=["stay_id", "subject_id"], how="left", validate="1:1")
    lost = joined.filter(pl.col("intime").is_null())
    if lost.height:
        raise DataError(
            f"{lost.height} of {frame.height} stays of the tree are not in its all_stays.csv with "
            f"the same patient, first stay {lost['stay_id'][0]}. Do the folders belong together?"
        )
    wrong = joined.filter(pl.col("ihm") != pl.col("told_ihm").cast(pl.Int8)).height
    if wrong:
        _log.warning(
            "%d labels of death in the lists differ from all_stays.csv; the lists count", wrong
        )
    return joined


def _split(frame: pl.DataFrame, data: TreeData) -> tuple[pl.DataFrame, dict[str, object]]:
    """Give every stay a split: the user's lists, those of the tree, else a hash for validation."""
    config = data.config
    if config.splits is not None:
        chosen, rule = assign(
            data.dataset, frame["subject_id"].to_list(), config.splits, config.split_seed
        )
        split = pl.col("subject_id").replace_strict(chosen, return_dtype=pl.String)
        return frame.with_columns(split=split), rule
    if (frame["part"] == "val").any():
        return frame.with_columns(split="part"), {"rule": "lists of the tree"}
    seed = config.split_seed
    drawn = {s: hashed(data.dataset, s, seed) == "val" for s in frame["subject_id"].unique()}
    val = pl.col("subject_id").replace_strict(drawn, return_dtype=pl.Boolean)
    split = pl.when((pl.col("part") == "train") & val).then(pl.lit("val")).otherwise("part")
    rule = {"rule": "test of the tree, val by sha256", "seed": seed, "fraction": 0.1}
    return frame.with_columns(split=split), rule


def _counts(table: pl.DataFrame, data: TreeData) -> list[dict[str, object]]:
    """Stays and subjects of the tree and of each split, with the published counts beside."""
    task = next((c for c in ("in_ihm", "in_readm") if c in table.columns), None)
    eligible = table.filter(task) if task else table
    parts: list[tuple[str, pl.DataFrame, int | None]] = [("stays of the tree", table, None)]
    if task:
        parts.append(("eligible at 48 h", eligible, PUBLISHED[data.dataset]["task"]))
    for name, count in PUBLISHED_SPLITS[data.dataset].items():
        rows = eligible.filter(pl.col("split") == name)
        parts.append((f"of these {name}", rows, count if task else None))
    return [
        {"rule": rule, "stays": t.height, "subjects": t["subject_id"].n_unique(), "paper": paper}
        for rule, t, paper in parts
    ]


def _tasks(table: pl.DataFrame, dataset: str) -> dict[str, object]:
    found: dict[str, object] = {}
    for task in ("ihm", "readm"):
        if f"in_{task}" in table.columns:
            rows = table.filter(f"in_{task}")
            found[task] = {
                "stays": rows.height,
                "positives": int(rows[f"y_{task}"].sum()),
                "paper_positives": PUBLISHED_POSITIVES[dataset].get(task),
            }
    for task in SEVERAL:
        own = [name for name in table.columns if name.startswith(f"y_{task}__")]
        if own:
            rows = table.filter(f"in_{task}")
            positives = rows.select(pl.any_horizontal(pl.col(own) == 1).sum()).item()
            found[task] = {"stays": rows.height, "positives": positives, "labels": len(own)}
            if len(own) != PHENOTYPES:
                _log.warning("%s: %d labels, published are %d", task, len(own), PHENOTYPES)
    return found


__all__ = ["TreeData", "build", "rules"]
