"""Models on the stays that all of them judged: runs, groups, and predictions from outside."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ...errors import ConfigError, DataError
from ..config import FuseConfig
from ..group import RunGroup
from ..identity import modality_names
from ..rundir import RunDir

_log = logging.getLogger("cm2.fuse.evaluation")

Floats = NDArray[np.float64]
_UNTOLD = ("modalities", "seed", "fold")


@dataclass(frozen=True)
class Outside:
    """Predictions of another program.

    Attributes:
        path: The file, Parquet or CSV.
        table: Columns stay_id and p, and target where the task has several labels.
    """

    path: Path
    table: pa.Table

    @classmethod
    def read(cls, path: Path) -> Outside:
        """Read a file of predictions.

        Raises:
            DataError: No such file, no column stay_id or p, or a p that is no probability.
        """
        if not path.is_file():
            raise DataError(f"{path}: expected a file of predictions, found none.")
        try:
            if path.suffix == ".csv":
                from pyarrow import csv

                table = csv.read_csv(path)
            else:
                from pyarrow import parquet

                table = parquet.read_table(path)
        except pa.ArrowInvalid as error:
            raise DataError(f"{path} is neither Parquet nor CSV: {error}") from None
        lacking = [name for name in ("stay_id", "p") if name not in table.column_names]
        if lacking:
            raise DataError(
                f"{path}: expected the columns stay_id and p, found "
                f"{', '.join(table.column_names)}; {' and '.join(lacking)} lacks."
            )
        p = np.array([np.nan if v is None else v for v in table["p"].to_pylist()], dtype=object)
        bad = [i for i, v in enumerate(p) if not isinstance(v, float | int) or not 0 <= v <= 1]
        if bad:
            raise DataError(
                f"{path}: expected probabilities in [0, 1], found {p[bad[0]]!r} in row "
                f"{bad[0] + 1} and {len(bad) - 1} more."
            )
        return cls(path, table)


Contender = RunDir | RunGroup | Outside


@dataclass(frozen=True)
class Paired:
    """Predictions of several models for the stays that all of them have.

    Attributes:
        y: Targets, ``(n, C)``; NaN where unknown.
        subjects: Patient of each stay, ``(n,)``.
        p: By model and seed, each ``(n, C)``.
        left_out: By model, how many judged stays the others lack.
        targets: Names, C.
    """

    y: Floats
    subjects: NDArray[Any]
    p: list[list[Floats]]
    left_out: list[int]
    targets: tuple[str, ...]


def paired(models: Sequence[Contender], split: str) -> Paired:
    """Read the predictions of several models for the stays that all of them judged.

    Args:
        models: The first one is a run or a group: it tells targets and patients.
        split: Which stored predictions of runs and groups are read.

    Raises:
        ConfigError: The runs have different tasks, or the first model is from outside.
        DataError: Predictions are missing, no stay is common, or target or patient of a stay
            differs between models.
    """
    if isinstance(models[0], Outside):
        raise ConfigError("Predictions from outside need a run beside them: it tells the targets.")
    configs = [config for model in models if (config := configuration(model)) is not None]
    tasks = sorted({config.task for config in configs})
    if len(tasks) > 1:
        raise ConfigError(f"Runs of different tasks cannot be compared: {', '.join(tasks)}.")
    first = _tables(models[0], split)[0]
    targets = tuple(dict.fromkeys(first["target"].to_pylist()))
    text = pa.types.is_string(first["stay_id"].type)
    seeds = [[_rows(t, targets, text, _path(m)) for t in _tables(m, split)] for m in models]
    mine = [set.intersection(*(set(rows) for rows in one)) for one in seeds]
    common = sorted(set.intersection(*mine))
    left_out = [len(stays) - len(common) for stays in mine]
    if not common:
        raise DataError(
            f"The runs share no judged {split} stay: "
            + ", ".join(f"{_path(m)} has {len(s)}" for m, s in zip(models, mine, strict=True))
            + ". Compare runs of one cohort."
        )
    truth = seeds[0][0]
    for model, one in zip(models, seeds, strict=True):
        for rows in one:
            apart = sum(_differ(rows[stay], truth[stay]) for stay in common)
            if apart:
                raise DataError(
                    f"{apart} of {len(common)} common stays have another target or patient in "
                    f"{_path(model)} than in {_path(models[0])}. Compare runs of one cohort and "
                    "its labels."
                )
    if any(left_out):
        _log.warning(
            f"Compared on the {len(common)} {split} stays that all runs have; left out: "
            + ", ".join(f"{n} of {_path(m).name}" for m, n in zip(models, left_out, strict=True))
        )
    return Paired(
        np.array([truth[stay].y for stay in common]),
        np.array([truth[stay].subject for stay in common]),
        [[np.array([rows[stay].p for stay in common]) for rows in one] for one in seeds],
        left_out,
        targets,
    )


def labels(models: Sequence[Contender]) -> list[str]:
    """Name models for people: the method, and what else of the configuration tells them apart."""
    names = [_base(model) for model in models]
    configs = [configuration(model) for model in models]
    dumps = [{} if config is None else config.model_dump() for config in configs]
    for i, name in enumerate(list(names)):
        twins = [j for j, other in enumerate(models) if _base(other) == name and dumps[j]]
        told = [key for key in dumps[i] if key != "modalities"]
        if isinstance(models[i], RunGroup):
            told = [key for key in told if key not in _UNTOLD]
        parts = [
            f"{key} {dumps[i][key]}"
            for key in told
            if any(dumps[j][key] != dumps[i][key] for j in twins)
        ]
        names[i] = ", ".join([name, *parts[:4]])
    return names


def configuration(model: Contender) -> FuseConfig | None:
    """Configuration of a model; of a group, that of its first member; none from outside."""
    if isinstance(model, Outside):
        return None
    return model.members[0].config if isinstance(model, RunGroup) else model.config


@dataclass(frozen=True)
class _Stay:
    y: list[float]
    p: list[float]
    subject: Any


def _tables(model: Contender, split: str) -> list[pa.Table]:
    if isinstance(model, Outside):
        return [model.table]
    return model.predictions(split) if isinstance(model, RunGroup) else [model.predictions(split)]


def _rows(table: pa.Table, targets: tuple[str, ...], text: bool, path: Path) -> dict[Any, _Stay]:
    """Predictions by stay, of the stays with a known target or of unknown ones from outside."""
    n, inside = table.num_rows, "y" in table.column_names
    ids = [str(i) if text else i for i in table["stay_id"].to_pylist()]
    names = table["target"].to_pylist() if "target" in table.column_names else [targets[0]] * n
    y = table["y"].to_pylist() if inside else [None] * n
    subjects = table["subject_id"].to_pylist() if "subject_id" in table.column_names else [None] * n
    place = {name: c for c, name in enumerate(targets)}
    stays: dict[Any, _Stay] = {}
    for stay, name, label, p, subject in zip(
        ids, names, y, table["p"].to_pylist(), subjects, strict=True
    ):
        if name not in place:
            raise DataError(f"{path}: unknown target {name!r}; expected {', '.join(targets)}.")
        row = stays.setdefault(
            stay, _Stay([np.nan] * len(targets), [np.nan] * len(targets), subject)
        )
        if not np.isnan(row.p[place[name]]):
            raise DataError(f"{path} predicts a stay twice for target {name!r}: {stay}.")
        row.p[place[name]] = p
        row.y[place[name]] = np.nan if label is None else float(label)
    short = sum(bool(np.isnan(row.p).any()) for row in stays.values())
    if short:
        raise DataError(
            f"{path}: {short} of {len(stays)} stays lack one of {len(targets)} targets."
        )
    return {s: r for s, r in stays.items() if not inside or not np.isnan(r.y).all()}


def _differ(one: _Stay, other: _Stay) -> bool:
    """Whether target or patient differ; what a file from outside leaves open does not."""
    told = not np.isnan(one.y).all()
    if told and not np.array_equal(one.y, other.y, equal_nan=True):
        return True
    return one.subject is not None and one.subject != other.subject


def _base(model: Contender) -> str:
    config = configuration(model)
    if config is None:
        return _path(model).stem
    name = {"cm2": "CM2"}.get(config.model, config.model)
    name = f"{name} ({'+'.join(modality_names(config))})"
    if isinstance(model, RunGroup):
        seeds, folds = len(model.replicates), config.folds
        name += f" x {seeds} seeds" if seeds > 1 else ""
        name += f" x {folds} folds" if folds else ""
    return name


def _path(model: Contender) -> Path:
    return model.path


__all__ = ["Contender", "Outside", "Paired", "configuration", "labels", "paired"]
