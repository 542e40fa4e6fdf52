"""The files of a finished run: weights, predictions and metrics of validation, what was learned."""

from __future__ import annotations

import hashlib

from torch import Tensor

from ...cache import atomic, checkpoint
from ..data import FusionData
from ..evaluation.targets import summarise
from ..identity import Identity
from ..inference import SUBJECTS, forward, probabilities, subject_keys, table
from ..rundir import BEST, LAST, LEARNED, RunDir
from ..stream.exports import encoders_of
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
    save(BEST, state.best)
    model.load_state_dict(state.best)

    rows = data.rows("val", labelled=False)
    predictions = table(run, data, rows, probabilities(forward(model, data, rows)))
    run.write_predictions("val", predictions)
    run.write_metrics("val", {"task": config.task, **summarise(predictions)})

    learned = model.describe(data.batches(data.rows("val")), data.batches(data.rows("train")))
    if learned is not None and run.writes:
        weights = {n: parts["origin"] for n, parts in identity.spaces.items() if parts["origin"]}
        note = ", ".join(f"{name}: {value}" for name, value in weights.items())
        atomic.write_json(run.path / LEARNED, {**learned, "weights_note": note})
    best = best_epoch(state.history, config.warmup)
    run.update(
        best_epoch=best,
        best={name: state.history[best - 1][name] for name in SCORES},
        epochs=len(state.history),
        selected_by="val_loss" if state.history[0]["val_auroc"] is None else "val_auroc",
        training_subjects=hashlib.sha256(subjects.numpy().tobytes()).hexdigest(),
    )
