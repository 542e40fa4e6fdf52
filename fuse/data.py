"""From a cache to tensors in memory: the stays of one task, in the order of the cohort."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..cache.cohort import Cohort, ModalityView, view
from ..cache.fingerprint import fraction
from ..cache.labelled import task_columns
from ..cache.store import Store
from ..cache.view import numbered, stays_with
from ..errors import DataError, IntegrityError
from .config import FuseConfig
from .drop import Drop
from .identity import modality_names
from .models.interface import LEARNED, ModalitySpec
from .random import stay_keys
from .rows import FusionData, Rows, assemble
from .stream.options import trunk_of


def load(
    cache: Path,
    config: FuseConfig,
    cohort: Cohort | None = None,
    targets: Sequence[str] = (),
) -> FusionData:
    """Read the rows that a configuration admits.

    Args:
        cache: The cache.
        config: Its modalities are NAME or NAME@SPACE; empty is not allowed here.
        cohort: The cohort if it is open already.
        targets: Names of the targets if they are settled; one that the cohort lacks is unknown.

    Raises:
        DataError: A target is not 0 or 1.
        LeakageError: The encoder of a modality was trained on patients to be judged.
        IntegrityError: A stored value is not finite, or a file is not what was written.
    """
    cohort = cohort or Cohort.open(cache, config.cohort)
    views = [
        _view(cache, cohort, config, name, space) for name, space in _parted(config.modalities)
    ]
    table = cohort.stays
    has = np.stack([part.has for part in views], 1)
    required, beside = (
        {name: stays_with(cache, cohort, name, space) for name, space in _parted(texts)}
        for texts in (config.require, config.beside)
    )
    admitted = has.all(1) if config.rows == "matched" else has.any(1)
    if config.drop or config.drop_train:  # then they must be rows of the richer run first
        admitted = np.logical_or.reduce([admitted, *beside.values()])
    admitted = np.logical_and.reduce([admitted, *required.values()])
    if config.task in cohort.tasks:  # stays without any label can be predicted all the same
        admitted &= np.array(table[f"in_{config.task}"].to_pylist(), dtype=bool)
    rows = np.flatnonzero(admitted)
    columns = table.take(rows).to_pydict()
    dataset = str(cohort.info.get("dataset", ""))
    if config.folds:
        columns["split"] = folded(dataset, columns["subject_id"], config.folds, config.fold)
    targets = tuple(targets) or task_targets(cohort.stays.column_names, config.task)
    y = _targets(
        [columns.pop(target_column(config.task, name), [None] * len(rows)) for name in targets],
        config,
    )
    keys = stay_keys(columns["stay_id"])
    has = has[rows]
    if config.drop or config.drop_train:
        from .withhold import withheld

        others = {name: stays[rows] for name, stays in {**required, **beside}.items()}
        has = withheld(
            config,
            {**dict(zip(modality_names(config), has.T, strict=True)), **others},
            {
                part.name: (_values(part, rows), part.mask[rows])
                for part in _telling(cache, cohort, config, views)
            },
            y.numpy(),
            columns["split"],
            keys,
        )
        kept = np.flatnonzero(has.any(1))  # of what is read
        rows, has, y, keys = rows[kept], has[kept], y[torch.from_numpy(kept)], keys[kept]
        columns = {name: [column[i] for i in kept] for name, column in columns.items()}
    values = {part.name: _values(part, rows) for part in views}
    masks = {part.name: part.mask[rows] for part in views}
    specs = [
        ModalitySpec(
            part.name,
            part.view,
            part.values.shape[-1],
            part.columns,
            _null(cache, part) if config.reads_blank else None,
        )
        for part in views
    ]
    times = {part.name: part.time[rows] for part in views}
    data = assemble(specs, values, masks, has, y, targets, columns, keys, dataset, times)
    for part in views:
        store = Store.open(cache, part.name, part.space)
        data.refuse_leak(f"The encoder of {part.name}@{part.space}", store.training_subjects)
    if config.mode == "stream":
        from .stream.data import with_items

        return with_items(data, cache, config)
    return data


def _parted(texts: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Name and space of modalities given as NAME or NAME@SPACE."""
    for text in texts:
        name, _, space = text.partition("@")
        yield name, space or None


def _telling(
    cache: Path, cohort: Cohort, config: FuseConfig, views: Sequence[ModalityView]
) -> Iterator[ModalityView]:
    """Modalities whose values tell from whom one is withheld, by severity: all, read or not."""
    if any(Drop.parse(text).by == "severity" for text in (*config.drop, *config.drop_train)):
        yield from views
        for name, space in _parted((*config.require, *config.beside)):
            yield view(cache, cohort, name, space)


def _view(
    cache: Path, cohort: Cohort, config: FuseConfig, name: str, space_id: str | None
) -> ModalityView:
    """Vectors of a modality, or where they are to be encoded the places of its items."""
    if config.mode == "stream" and trunk_of(config, name):
        return replace(numbered(cache, cohort, name, space_id), view=LEARNED)
    return view(cache, cohort, name, space_id)


def folded(dataset: str, subjects: Sequence[Any], folds: int, fold: int) -> list[str]:
    """Split by patient for one fold of a cross-validation, by the hash that splits come from.

    Args:
        dataset: Name of the data set.
        subjects: Patient of each stay.
        folds: Number of folds, at least 3.
        fold: The fold that is the test split; the next one is the validation split.
    """
    words = {fold: "test", (fold + 1) % folds: "val"}
    return [words.get(int(fraction(dataset, subject, 0) * folds), "train") for subject in subjects]


def task_targets(names: Sequence[str], task: str) -> tuple[str, ...]:
    """Name the targets of a task: itself, or its labels.

    Args:
        names: Columns of the stays.
        task: Name of the task.
    """
    columns = [name for name in task_columns(list(names), task) if name.startswith("y_")]
    if not columns or f"y_{task}" in columns:
        return (task,)
    return tuple(name.removeprefix(f"y_{task}__") for name in columns)


def target_column(task: str, target: str) -> str:
    """Column of the stays that holds a target of a task."""
    return f"y_{task}" if target == task else f"y_{task}__{target}"


def _null(cache: Path, part: ModalityView) -> torch.Tensor | None:
    """What the encoder makes of an empty input, ``(P, width)``; None where the store has none."""
    stored = Store.open(cache, part.name, part.space).blank().get("values")
    if stored is None or part.view == LEARNED:
        return None
    return torch.tensor(stored, dtype=torch.float32).reshape(-1, part.values.shape[-1])


def _values(part: ModalityView, rows: Rows) -> NDArray[Any]:
    if part.values.dtype.kind == "i":  # numbers of items
        return np.ascontiguousarray(part.values[rows])
    values = np.ascontiguousarray(part.values[rows], dtype=np.float32)
    if not np.isfinite(values).all():
        raise IntegrityError(
            f"Modality {part.name!r} holds values that are not finite, which no store may. "
            f"Run `cm2 cache verify` and extract it again."
        )
    return values


def _targets(columns: list[list[int | None]], config: FuseConfig) -> torch.Tensor:
    """Targets ``(N, C)``, NaN where unknown."""
    wrong = sorted({str(v) for values in columns for v in values if v not in (0, 1, None)})
    if wrong:
        raise DataError(
            f"Task {config.task!r} needs targets 0 or 1, or none where unknown; found "
            f"{', '.join(wrong)}."
        )
    targets = [[float("nan") if v is None else float(v) for v in values] for values in columns]
    return torch.tensor(targets, dtype=torch.float32).T.contiguous()


__all__ = [
    "folded",
    "load",
    "target_column",
    "task_targets",
]
