"""From a cache to tensors in memory: the stays of one task, in the order of the cohort."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..cache.cohort import Cohort, ModalityView, view
from ..errors import DataError, IntegrityError
from .config import FuseConfig
from .identity import modality_names
from .models.interface import FusionBatch, ModalitySpec
from .random import Keys, stay_keys, uniforms

Rows = NDArray[np.int64]
PREDICT_ROWS = 256


@dataclass(frozen=True)
class FusionData:
    """All rows of a task that a configuration admits.

    Attributes:
        specs: The modalities.
        whole: All rows as one batch, without noise.
        columns: `stay_id`, `subject_id`, `split` and other columns of the cohort, row by row.
        keys: Keys of the stays for random streams, ``(N,)``.
        dataset: Where the stays come from.
    """

    specs: tuple[ModalitySpec, ...]
    whole: FusionBatch
    columns: Mapping[str, list[Any]]
    keys: Keys
    dataset: str

    def rows(self, split: str, labelled: bool = True) -> Rows:
        """Find the rows of a split, `all` for every one.

        Args:
            split: `train`, `val`, `test` or `all`.
            labelled: Leave out rows whose target is unknown.
        """
        chosen = np.array([split in ("all", value) for value in self.columns["split"]], dtype=bool)
        if labelled:
            chosen &= ~self.whole.y.isnan().all(1).numpy()
        return np.flatnonzero(chosen)

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
        index = torch.from_numpy(np.ascontiguousarray(rows))
        whole = self.whole
        return FusionBatch(
            x={name: values[index] for name, values in whole.x.items()},
            mask={name: values[index] for name, values in whole.mask.items()},
            available=whole.available[index],
            pattern_id=whole.pattern_id[index],
            y=whole.y[index],
            noise={
                purpose: torch.from_numpy(uniforms(seed, purpose, self.keys[rows], shape, epoch))
                for purpose, shape in (noise or {}).items()
            },
            epoch=torch.tensor(float(epoch)),
        )

    def batches(
        self,
        rows: Rows,
        size: int = PREDICT_ROWS,
        noise: Mapping[str, tuple[int, ...]] | None = None,
        seed: int = 0,
        epoch: int = 0,
    ) -> list[FusionBatch]:
        """Cut rows into batches of at most `size`, in their order; see `batch`."""
        return [
            self.batch(rows[start : start + size], noise, seed, epoch)
            for start in range(0, len(rows), size)
        ]

    def patterns(self, rows: Rows) -> list[str]:
        """Name the availability pattern of each row, such as `ehr+cxr`."""
        names = [spec.name for spec in self.specs]
        table = self.whole.available[torch.from_numpy(rows)].tolist()
        return ["+".join(n for n, has in zip(names, row, strict=True) if has) for row in table]

    def counts(self) -> dict[str, dict[str, Any]]:
        """Count rows, positives, patients and availability for each split."""
        result = {}
        for split in ("train", "val", "test"):
            rows = self.rows(split)
            index = torch.from_numpy(rows)
            subjects = [self.columns["subject_id"][i] for i in rows]
            available = self.whole.available[index].sum(0).tolist()
            result[split] = {
                "n": len(rows),
                "positives": int(self.whole.y[index].sum()),
                "subjects": len(set(subjects)),
                "available": dict(zip((spec.name for spec in self.specs), available, strict=True)),
            }
        return result


def load(cache: Path, config: FuseConfig, cohort: Cohort | None = None) -> FusionData:
    """Read the rows that a configuration admits.

    Args:
        cache: The cache.
        config: Its modalities are NAME or NAME@SPACE; empty is not allowed here.
        cohort: The cohort if it is open already.

    Raises:
        DataError: A target is not 0 or 1.
        IntegrityError: A stored value is not finite, or a file is not what was written.
    """
    cohort = cohort or Cohort.open(cache, config.cohort)
    views = [
        view(cache, cohort, name, space.partition("@")[2] or None)
        for name, space in zip(modality_names(config), config.modalities, strict=True)
    ]
    table = cohort.stays
    has = np.stack([part.has for part in views], 1)
    admitted = has.all(1) if config.rows == "matched" else has.any(1)
    if config.task in cohort.tasks:  # stays without any label can be predicted all the same
        admitted &= np.array(table[f"in_{config.task}"].to_pylist(), dtype=bool)
    rows = np.flatnonzero(admitted)
    columns = table.take(rows).to_pydict()
    y = _targets(columns.pop(f"y_{config.task}", [None] * len(rows)), config.task)
    available = torch.from_numpy(has[rows])
    bits = 1 << torch.arange(len(views))
    whole = FusionBatch(
        x={part.name: torch.from_numpy(_values(part, rows)) for part in views},
        mask={part.name: torch.from_numpy(part.mask[rows]) for part in views},
        available=available,
        pattern_id=(available * bits).sum(1),
        y=y,
    )
    return FusionData(
        specs=tuple(
            ModalitySpec(part.name, part.view, part.values.shape[-1], part.columns)
            for part in views
        ),
        whole=whole,
        columns=columns,
        keys=stay_keys(columns["stay_id"]),
        dataset=str(cohort.info.get("dataset", "")),
    )


def _values(part: ModalityView, rows: Rows) -> NDArray[np.float32]:
    values = np.ascontiguousarray(part.values[rows], dtype=np.float32)
    if not np.isfinite(values).all():
        raise IntegrityError(
            f"Modality {part.name!r} holds values that are not finite, which no store may. "
            f"Run `cm2 cache verify` and extract it again."
        )
    return values


def _targets(values: list[int | None], task: str) -> torch.Tensor:
    wrong = sorted({str(value) for value in values if value not in (0, 1, None)})
    if wrong:
        raise DataError(
            f"Task {task!r} needs targets 0 or 1, or none where unknown; found {', '.join(wrong)}."
        )
    targets = [float("nan") if value is None else float(value) for value in values]
    return torch.tensor(targets, dtype=torch.float32).unsqueeze(1)
