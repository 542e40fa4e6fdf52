"""All rows of a task as tensors in memory, and batches of them with their random numbers."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils._pytree import tree_map

from ..cache.layout import subject_words
from ..errors import LeakageError
from .models.interface import FusionBatch, ModalitySpec, pattern_ids
from .random import Keys, key, uniforms

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

    def report(self, info: Mapping[str, Any]) -> dict[str, Any]:
        """Entries of run.json about how the rows were read; none where all lie in memory.

        Args:
            info: What run.json says of earlier calls, to which this one is added.
        """
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


__all__ = ["PREDICT_ROWS", "FusionData", "Rows", "assemble"]
