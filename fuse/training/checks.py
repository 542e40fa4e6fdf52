"""What must hold before training, and what a reader of the result must be told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import DataError

FEW_EVENTS = 30
MANY_EVENTS = 100


def require_trainable(counts: Mapping[str, Mapping[str, Any]], task: str) -> None:
    """Raise unless a model can be trained and chosen.

    Args:
        counts: Rows, positives and availability by split, see `FusionData.counts`.
        task: Name of the task, for the message.

    Raises:
        DataError: No rows, one class only, or a modality that no training stay has.
    """
    for split in ("train", "val"):
        if counts[split]["n"] == 0:
            raise DataError(
                f"Task {task!r} has no {split} stay with a known target and one of the chosen "
                f"modalities; found {_table(counts)}. Extract more stays, or split anew with "
                "--split-seed or --splits under another --cohort."
            )
    train = counts["train"]
    if train["positives"] in (0, train["n"]):
        raise DataError(
            f"All {train['n']} training stays of task {task!r} have the same target, so there is "
            f"nothing to learn; found {_table(counts)}. Extract more stays, or split anew with "
            "--split-seed under another --cohort."
        )
    absent = [name for name, n in train["available"].items() if n == 0]
    if absent:
        others = ",".join(name for name in train["available"] if name not in absent)
        raise DataError(
            f"No training stay of task {task!r} has {' or '.join(absent)}: availability among "
            f"{train['n']} training stays is {dict(train['available'])}. "
            f"Leave it out with --modalities {others or 'NAME'}."
        )


def warnings(counts: Mapping[str, Mapping[str, Any]], synthetic_weights: list[str]) -> list[str]:
    """Plain words about what the numbers of a run can and cannot show.

    Args:
        counts: See `require_trainable`.
        synthetic_weights: Modalities whose encoder started from a random seed.
    """
    said = []
    n = sum(part["n"] for part in counts.values())
    positives = sum(part["positives"] for part in counts.values())
    kind, events = (
        ("events", positives)
        if positives <= n - positives
        else (
            "stays without an event",
            n - positives,
        )
    )
    found = f"Only {events} {kind} among {n} stays ({_table(counts)})"
    if events < FEW_EVENTS:
        said.append(f"{found}: these numbers prove nothing.")
    elif events < MANY_EVENTS:
        said.append(f"{found}: intervals are wide, and models can hardly be told apart.")
    val = counts["val"]
    if val["positives"] in (0, val["n"]):
        said.append(
            f"All {val['n']} validation stays have the same target: their AUROC is undefined, so "
            "the epoch is chosen by validation loss."
        )
    if synthetic_weights:
        said.append(
            f"Encoder weights of {', '.join(synthetic_weights)} are random, not trained: this "
            "shows that the pipeline runs, not what the modality is worth."
        )
    return said


def _table(counts: Mapping[str, Mapping[str, Any]]) -> str:
    return ", ".join(
        f"{split} {part['positives']} of {part['n']}" for split, part in counts.items()
    )
