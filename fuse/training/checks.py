"""What must hold before training, and what a reader of the result must be told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import DataError

FEW_EVENTS = 30
MANY_EVENTS = 100
EVENTS = "events"


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
    targets = train["targets"]
    for name, part in targets.items():
        if part["positives"] in (0, part["n"]):
            which = f"task {task!r}" if len(targets) == 1 else f"label {name!r} of task {task!r}"
            raise DataError(
                f"All {part['n']} training stays of {which} have the same target, so there is "
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


def warnings(
    counts: Mapping[str, Mapping[str, Any]],
    synthetic_weights: list[str],
    balanced: bool = False,
    cautions: Sequence[str] = (),
) -> list[str]:
    """Plain words about what the numbers of a run can and cannot show.

    Args:
        counts: See `require_trainable`.
        synthetic_weights: Modalities whose encoder started from a random seed.
        balanced: Whether both classes weigh the same in the loss.
        cautions: What extraction said of encoders that may have seen the stays to be judged.
    """
    said = []
    events, kind, label = min(_rarer(counts, name) for name in counts["train"]["targets"])
    of_label = {split: part["targets"][label] for split, part in counts.items()}
    n = sum(part["n"] for part in of_label.values())
    of = "" if len(counts["train"]["targets"]) == 1 else f" of label {label!r}"
    if kind != EVENTS:  # by split the same class is told
        of_label = {
            split: {**part, "positives": part["n"] - part["positives"]}
            for split, part in of_label.items()
        }
    found = f"Only {events} {kind}{of} among {n} stays ({_table(of_label)})"
    if events < FEW_EVENTS:
        said.append(f"{found}: these numbers prove nothing.")
    elif events < MANY_EVENTS:
        said.append(f"{found}: intervals are wide, and models can hardly be told apart.")
    val = counts["val"]
    if all(part["positives"] in (0, part["n"]) for part in val["targets"].values()):
        said.append(
            f"All {val['n']} validation stays have the same target: their AUROC is undefined, so "
            "the epoch is chosen by validation loss."
        )
    if balanced:
        said.append(
            "Both classes weigh the same in the loss: probabilities are higher than the event is "
            "frequent. Look at the calibration, or recalibrate on validation."
        )
    if synthetic_weights:
        said.append(
            f"Encoder weights of {', '.join(synthetic_weights)} are random, not trained: this "
            "shows that the pipeline runs, not what the modality is worth."
        )
    said += [f"{text}." for text in cautions]
    return said


def _rarer(counts: Mapping[str, Mapping[str, Any]], target: str) -> tuple[int, str, str]:
    """How often the rarer class of a target occurs, what it is called, and the target."""
    parts = [part["targets"][target] for part in counts.values()]
    n, positives = sum(part["n"] for part in parts), sum(part["positives"] for part in parts)
    if positives <= n - positives:
        return positives, EVENTS, target
    return n - positives, "stays without an event", target


def _table(counts: Mapping[str, Mapping[str, Any]]) -> str:
    return ", ".join(
        f"{split} {part['positives']} of {part['n']}" for split, part in counts.items()
    )
