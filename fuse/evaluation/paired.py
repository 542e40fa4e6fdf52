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
from ..methods import short
from ..rundir import RunDir
from .targets import Wide, target_names, wide

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
            if path.suffix.lower() == ".csv":
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
    tables = [_tables(model, split) for model in models]
    targets = target_names(tables[0][0])
    text = pa.types.is_string(tables[0][0]["stay_id"].type)
    seeds = [
        [_judged_stays(table, targets, text, model.path) for table in one]
        for model, one in zip(models, tables, strict=True)
    ]
    held = [[set(found.stays) for found in one] for one in seeds]
    for model, one in zip(models, held, strict=True):
        if any(stays != one[0] for stays in one):
            raise DataError(
                f"The members of {model.path} judged different stays: "
                f"{', '.join(str(len(stays)) for stays in one)}, "
                f"{len(set.intersection(*one))} in common. Train and judge the group again."
            )
    mine = [one[0] for one in held]
    common = set.intersection(*mine)
    left_out = [len(stays) - len(common) for stays in mine]
    if not common:
        raise DataError(
            f"The runs share no judged {split} stay: "
            + ", ".join(f"{m.path} has {len(s)}" for m, s in zip(models, mine, strict=True))
            + ". Compare runs of one cohort."
        )
    order = [stay for stay in seeds[0][0].stays if stay in common]
    chosen = [[_taken(found, order) for found in one] for one in seeds]
    truth = chosen[0][0]
    for model, one_model in zip(models, chosen, strict=True):
        for found in one_model:
            apart = int(_differ(found, truth).sum())
            if apart:
                raise DataError(
                    f"{apart} of {len(common)} common stays have another target or patient in "
                    f"{model.path} than in {models[0].path}. Compare runs of one cohort and its "
                    "labels."
                )
    if any(left_out):
        _log.warning(
            f"Compared on the {len(common)} {split} stays that all runs have; left out: "
            + ", ".join(f"{n} of {m.path.name}" for m, n in zip(models, left_out, strict=True))
        )
    return Paired(
        truth.y,
        truth.subjects,
        [[found.p for found in one_model] for one_model in chosen],
        left_out,
        tuple(targets),
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


def _tables(model: Contender, split: str) -> list[pa.Table]:
    if isinstance(model, Outside):
        return [model.table]
    return model.predictions(split) if isinstance(model, RunGroup) else [model.predictions(split)]


def _judged_stays(table: pa.Table, targets: list[str], text: bool, path: Path) -> Wide:
    """Predictions by stay, of the stays with a known target; all where a file tells no targets."""
    n, inside = table.num_rows, "y" in table.column_names
    given = {name: table[name].to_pylist() for name in table.column_names}
    ids = given["stay_id"]
    found = wide(
        pa.table(
            {
                "stay_id": [str(i) for i in ids] if text else ids,
                "subject_id": given.get("subject_id", [None] * n),
                "target": given.get("target", targets[:1] * n),
                "y": pa.array(given.get("y", [None] * n), pa.float64()),
                "p": pa.array(given["p"], pa.float64()),
            }
        ),
        targets,
        str(path),
    )
    known = ~np.isnan(found.y).all(1)
    return _at(found, np.flatnonzero(known)) if inside else found


def _taken(found: Wide, stays: list[Any]) -> Wide:
    place = {stay: i for i, stay in enumerate(found.stays)}
    return _at(found, np.array([place[stay] for stay in stays]))


def _at(found: Wide, rows: NDArray[np.int64]) -> Wide:
    stays = [found.stays[i] for i in rows]
    return Wide(stays, found.y[rows], found.p[rows], found.subjects[rows])


def _differ(one: Wide, other: Wide) -> NDArray[np.bool_]:
    """Whether target or patient differ; what a file from outside leaves open does not."""
    told = ~np.isnan(one.y).all(1)
    same = (one.y == other.y) | (np.isnan(one.y) & np.isnan(other.y))
    named = np.array([subject is not None for subject in one.subjects], dtype=bool)
    moved = np.array([a != b for a, b in zip(one.subjects, other.subjects, strict=True)])
    differ: NDArray[np.bool_] = (told & ~same.all(1)) | (named & moved)
    return differ


def _base(model: Contender) -> str:
    config = configuration(model)
    if config is None:
        return model.path.stem
    name = {"cm2": "CM2"}.get(config.model, short(config.model))
    name = f"{name} ({'+'.join(modality_names(config))})"
    if isinstance(model, RunGroup):
        seeds, folds = len(model.replicates), config.folds
        name += f" x {seeds} seeds" if seeds > 1 else ""
        name += f" x {folds} folds" if folds else ""
    return name


__all__ = ["Contender", "Outside", "Paired", "configuration", "labels", "paired"]
