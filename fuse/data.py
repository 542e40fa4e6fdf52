"""From a cache to tensors in memory: the stays of one task, in the order of the cohort."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils._pytree import tree_map

from ..cache.cohort import Cohort, ModalityView, view
from ..cache.fingerprint import fraction
from ..cache.labelled import task_columns
from ..cache.layout import subject_words
from ..cache.store import Store
from ..cache.view import numbered, stays_with
from ..errors import DataError, IntegrityError, LeakageError
from .config import FuseConfig
from .drop import Drop
from .identity import modality_names
from .models.interface import LEARNED, FusionBatch, ModalitySpec, pattern_ids
from .random import Keys, key, stay_keys, uniforms
from .stream.options import trunk_of

Rows = NDArray[np.int64]
PREDICT_ROWS = 256


@dataclass(frozen=True)
class FusionData:
    """All rows of a task that a configuration admits.

    Attributes:
        specs: The modalities.
        whole: All rows as one batch, without noise.
        targets: Name of each target, C: the labels of the task, or the task itself.
        columns: `stay_id`, `subject_id`, `split` and other columns of the cohort, row by row.
        keys: Keys of the stays for random streams, ``(N,)``.
        dataset: Where the stays come from.
    """

    specs: tuple[ModalitySpec, ...]
    whole: FusionBatch
    targets: tuple[str, ...]
    columns: Mapping[str, list[Any]]
    keys: Keys
    dataset: str

    @property
    def device(self) -> torch.device:
        """Where the rows lie."""
        return self.whole.available.device

    def to(self, device: torch.device) -> FusionData:
        """Move all rows to a device, once."""
        whole: FusionBatch = tree_map(lambda tensor: tensor.to(device), self.whole)
        return replace(self, whole=whole)

    def rows(self, split: str, labelled: bool = True) -> Rows:
        """Find the rows of a split, `all` for every one.

        Args:
            split: `train`, `val`, `test` or `all`.
            labelled: Leave out rows whose target is unknown.
        """
        chosen = np.array([split in ("all", value) for value in self.columns["split"]], dtype=bool)
        if labelled:
            chosen &= ~self.whole.y.isnan().all(1).cpu().numpy()
        return np.flatnonzero(chosen)

    def parts(self) -> dict[str, int]:
        """Most steps or parts of a stay, by modality that lies in memory."""
        return {name: mask.shape[1] for name, mask in self.whole.mask.items()}

    def labels(self, rows: Rows) -> torch.Tensor:
        """Targets of rows, ``(n, C)`` on the CPU; NaN where unknown."""
        return self.whole.y.cpu()[torch.from_numpy(rows)]

    def batch(
        self,
        rows: Rows,
        noise: Mapping[str, tuple[int, ...]] | None = None,
        seed: int = 0,
        epoch: int = 0,
    ) -> FusionBatch:
        """Take rows, with the random numbers that belong to them.

        Args:
            rows: Positions, ``(B,)``.
            noise: Shape of one stay's numbers by purpose.
            seed: Seed of the streams.
            epoch: Epoch from 1; 0 outside training.
        """
        whole, device = self.whole, self.device
        index = torch.from_numpy(np.ascontiguousarray(rows)).to(device)
        return FusionBatch(
            x={name: values[index] for name, values in whole.x.items()},
            mask={name: values[index] for name, values in whole.mask.items()},
            available=whole.available[index],
            pattern_id=whole.pattern_id[index],
            y=whole.y[index],
            noise={
                # drawn here, so that every device sees the same numbers
                purpose: torch.from_numpy(
                    uniforms(seed, purpose, self.keys[rows], shape, epoch)
                ).to(device)
                for purpose, shape in (noise or {}).items()
            },
            epoch=torch.tensor(float(epoch), device=device),
            time={name: values[index] for name, values in whole.time.items()},
        )

    def side_by_side(
        self,
        rows: Rows,
        noise: Mapping[str, tuple[int, ...]],
        seeds: Sequence[int],
        epochs: Sequence[int],
    ) -> FusionBatch:
        """Take other rows for each of some runs; what `batch` gives each, stacked.

        Args:
            rows: Positions, ``(E, B)``.
            noise: Shape of one stay's numbers by purpose.
            seeds: Seed of each run's streams.
            epochs: Epoch of each run, from 1; 0 outside training.
        """
        plain = self.batch(rows)
        members = list(zip(seeds, rows, epochs, strict=True))
        return replace(
            plain,
            noise={
                purpose: torch.from_numpy(
                    np.stack([uniforms(s, purpose, self.keys[r], shape, e) for s, r, e in members])
                ).to(self.device)
                for purpose, shape in noise.items()
            },
            epoch=torch.tensor([float(e) for e in epochs], device=self.device),
        )

    def batches(
        self,
        rows: Rows,
        size: int = PREDICT_ROWS,
        noise: Mapping[str, tuple[int, ...]] | None = None,
        seed: int = 0,
        epoch: int = 0,
    ) -> Iterator[FusionBatch]:
        """Cut rows into batches of at most `size`, in their order; see `batch`."""
        for start in range(0, len(rows), size):
            yield self.batch(rows[start : start + size], noise, seed, epoch)

    def subject_keys(self, rows: Rows) -> set[int]:
        """Hash the patients of some rows."""
        return set(self.patients(rows).tolist())

    def patients(self, rows: Rows) -> NDArray[np.int64]:
        """Hash the patient of each row, ``(N,)``."""
        subjects = [self.columns["subject_id"][i] for i in rows]
        known = {s: key("subject", self.dataset, s) >> 1 for s in set(subjects)}
        return np.array([known[subject] for subject in subjects], np.int64)

    def refuse_leak(self, what: str, seen: Collection[str]) -> None:
        """Refuse an encoder that was trained on patients who are to be judged.

        Args:
            what: The encoder, for the message.
            seen: Keys of its patients, as text.

        Raises:
            LeakageError: One of them is outside the training split.
        """
        if not seen:
            return
        judged = [i for i, split in enumerate(self.columns["split"]) if split != "train"]
        both = set(subject_words(self.subject_keys(np.array(judged, dtype=np.int64)))) & set(seen)
        if both:
            raise LeakageError(
                f"{what} was trained on {len(both)} patients who are in the validation or test "
                "split here. Use it with the cohort and the splits (and the fold) of its own run, "
                "or train another on these splits."
            )

    def reading(self, workers: int) -> FusionData:
        """Read items ahead with so many threads; rows in memory are as they are."""
        return self

    def report(self) -> dict[str, Any]:
        """Entries of run.json about how the rows were read; none where all lie in memory."""
        return {}

    def patterns(self, rows: Rows) -> list[str]:
        """Name the availability pattern of each row, such as `ehr+cxr`."""
        names = [spec.name for spec in self.specs]
        table = self.whole.available.cpu()[torch.from_numpy(rows)].tolist()
        return ["+".join(n for n, has in zip(names, row, strict=True) if has) for row in table]

    def counts(self) -> dict[str, dict[str, Any]]:
        """Count rows, positives, patients and availability for each split.

        A stay with several labels is positive if any of them is; "targets" counts each by itself.
        """
        result = {}
        for split in ("train", "val", "test"):
            rows = self.rows(split)
            index = torch.from_numpy(rows)
            subjects = [self.columns["subject_id"][i] for i in rows]
            available = self.whole.available.cpu()[index].sum(0).tolist()
            y = self.labels(rows)
            positives = (y == 1).sum(0).tolist()
            known = (~y.isnan()).sum(0).tolist()
            result[split] = {
                "n": len(rows),
                "positives": int((y == 1).any(1).sum()),
                "subjects": len(set(subjects)),
                "available": dict(zip((spec.name for spec in self.specs), available, strict=True)),
                "targets": {
                    name: {"n": n, "positives": events}
                    for name, n, events in zip(self.targets, known, positives, strict=True)
                },
            }
        return result


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


def assemble(
    specs: Sequence[ModalitySpec],
    values: Mapping[str, NDArray[np.float32]],
    masks: Mapping[str, NDArray[np.bool_]],
    has: NDArray[np.bool_],
    y: torch.Tensor,
    targets: tuple[str, ...],
    columns: Mapping[str, list[Any]],
    keys: Keys,
    dataset: str = "",
    times: Mapping[str, NDArray[np.float32]] | None = None,
) -> FusionData:
    """Put arrays together, wherever they come from.

    Args:
        specs: The modalities.
        values: By modality ``(N, L, width)``.
        masks: By modality real steps or parts, ``(N, L)``.
        has: Availability, ``(N, M)``, in the order of `specs`.
        y: Targets in {0, 1}, ``(N, C)``; NaN where unknown.
        targets: Names of the targets, C.
        columns: `stay_id`, `subject_id`, `split` and others, N values each.
        keys: Keys of the stays, ``(N,)``.
        dataset: Where the stays come from.
        times: By modality, times of steps or parts, ``(N, L)`` in [0, 1]; see `FusionBatch.times`.
    """
    available = torch.from_numpy(has)
    whole = FusionBatch(
        x={name: torch.from_numpy(part) for name, part in values.items()},
        mask={name: torch.from_numpy(part) for name, part in masks.items()},
        available=available,
        pattern_id=pattern_ids(available),
        y=y,
        time={name: torch.from_numpy(part) for name, part in (times or {}).items()},
    )
    return FusionData(tuple(specs), whole, targets, columns, keys, dataset)


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
