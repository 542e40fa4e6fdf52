"""A cache as tensors for models of your own: `cm2.open_cache`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from ..errors import ConfigError
from .irregular import Events, taken_apart
from .labelled import task_columns
from .layout import SPLITS
from .stays import Cohort
from .view import view


class Arrays(TypedDict):
    """The stays of one task and split; B stays, M modalities, C labels.

    Keys:
        x: By modality float32 [B, L, D]; L steps or parts; zero where the mask is false.
        mask: By modality bool [B, L], true for a real step or part.
        time: By modality float32 [B, L], share of the window before the prediction, in [0, 1].
        available: bool [B, M], in the order of `modalities`.
        y: float32 [B, C] of 0, 1, NaN where unknown.
        modalities: Names, M.
        labels: Names of the columns of y, C.
        columns: By modality the names of the last axis of x, empty where they have none.
        stay_id, subject_id: B ids.
    """

    x: dict[str, Tensor]
    mask: dict[str, Tensor]
    time: dict[str, Tensor]
    available: Tensor
    y: Tensor
    modalities: tuple[str, ...]
    labels: tuple[str, ...]
    columns: dict[str, tuple[str, ...]]
    stay_id: list[Any]
    subject_id: list[Any]


class Cache:
    """One cohort of a cache, read-only; see `open_cache`.

    Args:
        path: Folder of the cache.
        cohort: The cohort.
    """

    def __init__(self, path: Path, cohort: Cohort) -> None:
        self.path = path
        self.cohort = cohort

    @property
    def stays(self) -> pa.Table:
        """One row per stay: ids, split, labels, subgroups."""
        return self.cohort.stays

    @property
    def tasks(self) -> tuple[str, ...]:
        """Tasks that the stays have labels for."""
        return self.cohort.tasks

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities that the stays link."""
        return self.cohort.modalities

    def dataset(
        self,
        task: str,
        split: Literal["train", "val", "test", "all"] = "train",
        modalities: Sequence[str] = (),
        *,
        rows: Literal["partial", "matched"] = "partial",
        labelled: bool = True,
    ) -> Arrays:
        """Load the eligible stays of a task as tensors, in the order of the cohort.

        Nothing is normalised: take mean and scale from the training split.

        Args:
            task: Name of the task.
            split: train, val, test or all.
            modalities: NAME or NAME@SPACE; empty for all that the cohort links.
            rows: partial: stays with at least one of the modalities; matched: with all of them.
            labelled: Leave out stays of which no label is known.

        Raises:
            ConfigError: No such task, split or modality.
            DataError: A modality was not extracted.
            IntegrityError: A file of the cache was altered.
        """
        if task not in self.tasks:
            raise ConfigError(
                f"The cohort {self.cohort.name!r} has no task {task!r}; it has "
                f"{', '.join(self.tasks) or 'none'}. `cm2 cache label` adds one."
            )
        for name, value, known in (
            ("split", split, (*SPLITS, "all")),
            ("rows", rows, ("partial", "matched")),
        ):
            if value not in known:
                raise ConfigError(f"{name} must be {', '.join(known)}, found {value!r}.")
        wanted = tuple(modalities or self.modalities)
        names = [text.partition("@")[0] for text in wanted]
        if isinstance(modalities, str) or len(set(names)) != len(names) or not names:
            raise ConfigError(
                f"modalities must be a list that names at least one, each once; found "
                f"{modalities!r}; the cohort has {', '.join(self.modalities) or 'none'}."
            )
        parts = [
            view(self.path, self.cohort, name, text.partition("@")[2] or None)
            for name, text in zip(names, wanted, strict=True)
        ]
        table = self.stays
        labels = [c for c in task_columns(table.column_names, task) if c.startswith("y_")]
        y = np.stack([table[c].cast(pa.float32()).to_numpy() for c in labels], axis=1)
        has = np.stack([part.has for part in parts], axis=1)
        chosen = np.array(table[f"in_{task}"].to_pylist(), dtype=bool)
        chosen &= has.all(axis=1) if rows == "matched" else has.any(axis=1)
        if split != "all":
            chosen &= np.array([word == split for word in table["split"].to_pylist()], dtype=bool)
        if labelled:
            chosen &= ~np.isnan(y).all(axis=1)
        index = np.flatnonzero(chosen)
        return Arrays(
            x={part.name: torch.from_numpy(part.values[index]) for part in parts},
            mask={part.name: torch.from_numpy(part.mask[index]) for part in parts},
            time={part.name: torch.from_numpy(part.time[index]) for part in parts},
            available=torch.from_numpy(has[index]),
            y=torch.from_numpy(y[index].astype(np.float32)),
            modalities=tuple(names),
            labels=tuple(name.removeprefix("y_") for name in labels),
            columns={part.name: part.columns for part in parts},
            stay_id=table["stay_id"].take(index).to_pylist(),
            subject_id=table["subject_id"].take(index).to_pylist(),
        )

    def events(
        self,
        task: str,
        split: Literal["train", "val", "test", "all"] = "train",
        modality: str = "ehr",
        *,
        labelled: bool = True,
    ) -> Events:
        """Load measurements at their own times, for models that want no grid.

        Args:
            task: Name of the task.
            split: train, val, test or all.
            modality: NAME or NAME@SPACE of a series extracted with `--step-hours 0`.
            labelled: Leave out stays of which no label is known.

        Raises:
            ConfigError: No such task, split or modality, or the series stand on a grid.
            DataError: The modality was not extracted.
            IntegrityError: A file of the cache was altered.
        """
        found = self.dataset(task, split, [modality], labelled=labelled)
        (name,) = found["modalities"]
        mask = found["mask"][name]
        times, values, measured, columns = taken_apart(
            name, found["x"][name], mask, found["columns"][name]
        )
        return Events(
            times=times,
            values=values,
            measured=measured,
            mask=mask,
            columns=columns,
            y=found["y"],
            labels=found["labels"],
            stay_id=found["stay_id"],
            subject_id=found["subject_id"],
        )


def open_cache(path: str | Path, cohort: str = "default") -> Cache:
    """Open one cohort of a cache.

    Args:
        path: Folder of the cache.
        cohort: Name of the cohort.

    Raises:
        DataError: There is no such cohort.
        IntegrityError: A file was altered.
    """
    return Cache(Path(path), Cohort.open(Path(path), cohort))


__all__ = ["Arrays", "Cache", "open_cache"]
