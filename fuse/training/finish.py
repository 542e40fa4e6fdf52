"""The files of a finished run: weights, predictions and metrics of validation, what was learned."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...cache import atomic, checkpoint
from ..evaluation.targets import summarise
from ..identity import Identity
from ..inference import SUBJECTS, forward, probabilities, subject_keys, table
from ..rows import FusionData, Rows
from ..rundir import BEST, FITTED, LAST, LEARNED, RunDir
from ..stream.exports import encoders_of
from .course import scores
from .history import SCORES, best_epoch
from .state import TrainerState


def finish(run: RunDir, data: FusionData, state: TrainerState, identity: Identity) -> None:
    """Write everything but the word that the run is finished; repeating it changes nothing.

    Args:
        run: The run.
        data: Its rows.
        state: The state after the last epoch; its model is left with the best weights.
        identity: The run's identity.
    """
    config = run.config
    subjects = subject_keys(data, data.rows("train"))
    meta = {
        "model": config.model,
        "specs": [spec.record() for spec in data.specs],
        "targets": list(data.targets),
        "config": config.model_dump(mode="json"),
        "encoders": encoders_of(state.model, data, config),
    }

    def save(name: str, tensors: dict[str, Tensor]) -> None:
        if run.writes:
            checkpoint.save(run.path / name, {**tensors, SUBJECTS: subjects}, meta)

    model = state.model
    save(LAST, model.state_dict())
    rows = data.rows("val", labelled=False)
    p, fitted = judge_best(state, data, rows, data.patients(rows))
    save(BEST, model.state_dict())
    predictions = table(run, data, rows, p)
    run.write_predictions("val", predictions)
    run.write_metrics("val", {"task": config.task, **summarise(predictions)})

    learned = model.describe(data.batches(data.rows("val")), data.batches(data.rows("train")))
    if learned is not None and run.writes:
        weights = {n: parts["origin"] for n, parts in identity.spaces.items() if parts["origin"]}
        note = ", ".join(f"{name}: {value}" for name, value in weights.items())
        atomic.write_json(run.path / LEARNED, {**learned, "weights_note": note})
    best = best_epoch(state.history, config.warmup)
    reached = {name: state.history[best - 1][name] for name in SCORES}
    if fitted:  # the history knows the model before that part was fitted
        reached |= scores(data.labels(rows).numpy(), p)
        if FITTED not in run.info["warnings"]:
            run.update(warnings=[*run.info["warnings"], FITTED])
    run.update(
        best_epoch=best,
        best=reached,
        epochs=len(state.history),
        selected_by="val_loss" if state.history[0]["val_auroc"] is None else "val_auroc",
        training_subjects=hashlib.sha256(subjects.numpy().tobytes()).hexdigest(),
    )


def judge_best(
    state: TrainerState, data: FusionData, rows: Rows, patients: NDArray[np.int64]
) -> tuple[NDArray[np.float64], bool]:
    """Take the weights of the best epoch, and fit what is fitted to validation.

    Args:
        state: The state after the last epoch.
        data: The rows.
        rows: Positions of the validation stays, N in all.
        patients: A number for each patient, ``(N,)``.

    Returns:
        Probabilities ``(N, C)`` of the validation stays, and whether they are cross-fitted because
        a part of the model was fitted to these stays.
    """
    model = state.model
    model.load_state_dict(state.best)
    outputs = forward(model, data, rows)
    available = data.whole.available[torch.from_numpy(rows)]
    y = data.labels(rows).to(available.device)
    held_out = model.fit_to_validation(outputs, available, y, patients)
    if held_out is None:
        return probabilities(outputs), False
    return held_out.double().sigmoid().cpu().numpy(), True


__all__ = ["finish", "judge_best"]
