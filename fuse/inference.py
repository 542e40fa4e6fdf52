"""Predictions of a trained run, on its own cache or another one with the same spaces."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..cache import atomic, checkpoint
from ..cache.cohort import Cohort
from ..cache.fingerprint import fingerprint
from ..cache.layout import TRAINING_SUBJECTS
from ..errors import ConfigError, DataError, LeakageError
from .config import FuseConfig, unknown
from .data import load
from .identity import Inputs
from .methods.own import load_again
from .models import model_class
from .models.interface import FusionModel, FusionOutput, Hyper, ModalitySpec
from .other_space import refuse_other_spaces
from .precision import precision
from .random import key
from .rows import FusionData, Rows
from .rundir import BEST, RunDir

_log = logging.getLogger("cm2.fuse")

SUBJECTS = TRAINING_SUBJECTS
SPLITS = ("train", "val", "test", "all")


def build(specs: tuple[ModalitySpec, ...], config: FuseConfig, targets: int = 1) -> FusionModel:
    """Make an untrained model from the seed of its configuration.

    Args:
        specs: The modalities.
        config: Names the method and its options.
        targets: Number C of targets.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(config.seed, "init") >> 1)
        method = model_class(config.model)
        if config.mode == "stream":
            from .stream.model import streamed

            method = streamed(method)
        model = method(specs, config, targets)
    for parameter in model.parameters():
        # A checkpoint keeps values, not strides; fused optimisers pair storages, not indices.
        parameter.data = parameter.data.contiguous()
    return model


def subject_keys(data: FusionData, rows: Rows) -> Tensor:
    """Hash the patients of some rows, sorted and unique."""
    return torch.tensor(sorted(data.subject_keys(rows)), dtype=torch.int64)


def load_model(run: RunDir) -> tuple[FusionModel, tuple[str, ...], Tensor]:
    """Read the model of a finished run.

    Returns:
        The model with the weights and buffers of its best epoch, the names of its targets, and the
        keys of the patients it was trained on.

    Raises:
        ConfigError: The run is not finished, another version of cm2 wrote it, or its method is the
            user's own and its source is not there.
        IntegrityError: The checkpoint is not what was written, or that source has changed.
    """
    run.require_weights()
    load_again(run.config.model, run.info.get("source"))
    remedy = f"Remove {run.path} and give its `cm2 fuse` command again."
    tensors, meta = checkpoint.load(run.path / BEST, remedy)
    subjects = tensors.pop(SUBJECTS)
    specs = tuple(ModalitySpec.of(record) for record in meta["specs"])
    model = build(specs, run.config, len(meta["targets"]))
    apart = sorted(model.state_dict().keys() ^ tensors.keys())
    if apart:
        raise ConfigError(
            f"{run.path / BEST} was written by another version of cm2 "
            f"({run.info['versions'].get('cm2')}): it differs in {', '.join(apart[:4])}. {remedy}"
        )
    model.load_state_dict(tensors)
    return model, tuple(meta["targets"]), subjects


@torch.no_grad()
def forward(model: FusionModel, data: FusionData, rows: Rows) -> list[FusionOutput]:
    """Run a model over rows without dropout; random imputations use seeded draws.

    Args:
        model: The model.
        data: The data.
        rows: Positions.
    """
    config = model.config
    batches = data.batches(rows, noise=model.noise(training=False), seed=config.seed)
    hyper = Hyper.of(config)
    with precision(config, data.device):
        return [model(batch, hyper) for batch in batches]


def probabilities(outputs: list[FusionOutput]) -> NDArray[np.float64]:
    """Probabilities of the targets, shape ``(N, C)``."""
    logits = torch.cat([output.logits for output in outputs])
    p: NDArray[np.float64] = logits.double().sigmoid().cpu().numpy()
    return p


def predict(run: RunDir, cache: Path, split: str = "all") -> pa.Table:
    """Predict the stays of a cache.

    Args:
        run: A finished run.
        cache: A cache with the same spaces and a cohort of the same name; the run's own or, for
            external validation, another one.
        split: `train`, `val`, `test` or `all`; stays with unknown target are included, y null.

    Returns:
        Columns run, seed, fold, stay_id, subject_id, split, task, target, y, p, pattern; one row
        for each stay and target.

    Raises:
        ConfigError: An unknown split, or the run is not finished.
        DataError: The cache lacks a modality, or there is no such stay.
        LeakageError: A patient of `val` or `test` was seen in training.
    """
    loaded = prepare(run, cache, split)
    p = probabilities(forward(loaded.model, loaded.data, loaded.rows))
    return table(run, loaded.data, loaded.rows, p)


class Prepared(NamedTuple):
    """A trained model and the stays that it is to predict.

    Attributes:
        model: With the weights and buffers of its best epoch.
        data: All rows of the cache.
        rows: Positions of the stays of the split.
        cohort: Where the stays are listed.
        source: Which cohort and vectors were read: "" if they are those of the run, else a hash.
    """

    model: FusionModel
    data: FusionData
    rows: Rows
    cohort: Cohort
    source: str


def prepare(run: RunDir, cache: Path, split: str) -> Prepared:
    """Load a run and the stays of a split; the arguments and errors are those of `predict`."""
    if split not in SPLITS:
        raise ConfigError(unknown("split", split, SPLITS))
    model, targets, subjects = load_model(run)
    refuse_other_spaces(run, model.specs, cache)
    cohort = Cohort.open(cache, run.config.cohort)
    data = load(cache, run.config, cohort, targets)
    rows = data.rows(split, labelled=False)
    if not len(rows):
        raise DataError(
            f"{cache} has no {split} stay for task {run.config.task!r} with one of the modalities "
            f"{', '.join(spec.name for spec in model.specs)}."
        )
    if data.specs != model.specs:
        raise DataError(
            f"The run was trained on {model.specs}, the cache holds {data.specs}. "
            "Extract with the options of the run's cache."
        )
    judged = np.array([i for i in rows if data.columns["split"][i] != "train"], dtype=np.int64)
    seen = torch.isin(subject_keys(data, judged), subjects).sum().item()
    if seen:
        raise LeakageError(
            f"{seen} patients outside the training split of {cache} were seen in the training of "
            f"{run.path}. Predict with the splits of the run's own cohort."
        )
    return Prepared(model, data, rows, cohort, _source(run, cache, cohort))


def _source(run: RunDir, cache: Path, cohort: Cohort) -> str:
    """See `Prepared`; warns if vectors or labels of the run's own stays were replaced since."""
    trained = run.info["fingerprints"]
    labels = cohort.labels.get(run.config.task)
    if cohort.fingerprint != trained["cohort"]:
        return fingerprint([cohort.fingerprint, labels]) if labels else cohort.fingerprint
    now = Inputs(cache).records(run.config, cohort)
    altered = [name for name in now if now[name] != trained["modalities"].get(name)]
    relabelled = labels != run.record.get("labels")
    if altered:
        _log.warning(
            "%s of %s is not what %s was trained on: it was extracted again since.",
            " and ".join(altered),
            cache,
            run.path.name,
        )
    if relabelled:
        _log.warning(
            "The labels of task %s in %s are not those that %s was trained on: they were replaced "
            "since.",
            run.config.task,
            cache,
            run.path.name,
        )
    return fingerprint([cohort.fingerprint, now, labels]) if altered or relabelled else ""


def table(run: RunDir, data: FusionData, rows: Rows, p: NDArray[np.float64]) -> pa.Table:
    """Put predictions into the long form that evaluation reads.

    Args:
        run: Names the run.
        data: The data.
        rows: Positions of the predictions.
        p: Probabilities, ``(N, C)``.
    """
    y = data.labels(rows).flatten().tolist()
    C, config = len(data.targets), run.config
    n = len(rows) * C

    def column(name: str) -> list[Any]:
        return [data.columns[name][i] for i in rows for _ in range(C)]

    return pa.table(
        {
            "run": pa.array([run.path.name] * n, pa.string()),
            "seed": pa.array([config.seed] * n, pa.int64()),
            "fold": pa.array([config.fold if config.folds else None] * n, pa.int64()),
            "stay_id": column("stay_id"),
            "subject_id": column("subject_id"),
            "split": pa.array(column("split"), pa.string()),
            "task": pa.array([config.task] * n, pa.string()),
            "target": pa.array(list(data.targets) * len(rows), pa.string()),
            "y": pa.array([None if value != value else int(value) for value in y], pa.int8()),
            "p": pa.array(p.ravel(), pa.float64()),
            "pattern": pa.array([p for p in data.patterns(rows) for _ in range(C)], pa.string()),
        }
    )


def write_predictions(predictions: pa.Table, path: Path) -> None:
    """Write predictions for other programs.

    Args:
        predictions: As `predict` returns them.
        path: Ends with `.parquet` or `.csv`.

    Raises:
        ConfigError: Another ending.
    """
    if table_format(path) == "parquet":
        atomic.write_parquet(path, predictions)
    else:
        from pyarrow import csv

        sink = pa.BufferOutputStream()
        csv.write_csv(predictions, sink)
        atomic.write_bytes(path, sink.getvalue().to_pybytes())


def table_format(path: Path) -> Literal["parquet", "csv"]:
    """How a table is written under a name.

    Raises:
        ConfigError: It ends neither with `.parquet` nor with `.csv`, in either case of letters.
    """
    match path.suffix.lower():
        case ".parquet":
            return "parquet"
        case ".csv":
            return "csv"
    raise ConfigError(f"Expected a name ending with .parquet or .csv, found {path.name!r}.")
