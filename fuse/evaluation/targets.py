"""Predictions in the long form judged: one target, or several labels by themselves and together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ...errors import DataError
from .contenders import judged
from .metrics import summary, with_interval


def summarise(
    predictions: pa.Table, *, replicates: int = 1000, seed: int = 0, unit: str = "patient"
) -> dict[str, Any]:
    """Judge predictions; stays whose target is unknown are left out.

    Args:
        predictions: Columns stay_id, subject_id, target, y, p; one row for each stay and target.
        replicates: Bootstrap resamples; 0 for no intervals.
        seed: Names the resamples.
        unit: What is resampled, "patient" or "stay".

    Returns:
        What `metrics.summary` returns. With several targets the metrics are means over the
        targets for which they are defined, each with an interval from the same resampled patients,
        n counts stays with any known target and positives those with any event; "targets" holds
        the summary of each label, and "micro" that of all pairs of stay and label pooled.

    Raises:
        DataError: No target is known.
    """
    known = predictions.filter(predictions["y"].is_valid())
    if not known.num_rows:
        raise DataError(f"None of {predictions.num_rows} predictions has a known target.")

    def of(table: pa.Table, drawn: str = "subject_id", unit: str = unit) -> dict[str, Any]:
        return summary(
            table["y"].to_numpy(),
            table["p"].to_numpy(),
            np.array(table[drawn].to_pylist()),
            replicates=replicates,
            seed=seed,
            unit=unit,
        )

    names = target_names(predictions)
    if len(names) == 1:
        return of(known)
    _, y, p, subjects = wide(predictions, names)
    groups = subjects if unit == "patient" else None
    result: dict[str, Any] = {
        "n": int((~np.isnan(y)).any(1).sum()),
        "positives": int((y == 1).any(1).sum()),
    }
    for metric, found in judged(y, [p], groups, replicates=replicates, seed=seed).items():
        result[metric] = with_interval(found.value, found.replicates)
    result["targets"] = {
        name: of(part)
        for name in names
        if (part := known.filter(pc.equal(known["target"], name))).num_rows
    }
    # A stay is drawn with all of its labels, as a patient is with all stays.
    result["micro"] = of(known, "subject_id" if unit == "patient" else "stay_id", "patient")
    result["micro"]["bootstrap"]["unit"] = unit
    result["bootstrap"] = result["micro"]["bootstrap"]
    return result


def target_names(predictions: pa.Table) -> list[str]:
    """Names of the targets, in the order in which they come."""
    return list(dict.fromkeys(predictions["target"].to_pylist()))


class Wide(NamedTuple):
    """Predictions with one row per stay.

    Attributes:
        stays: Ids, n, each once.
        y: Targets, ``(n, C)``; NaN where unknown.
        p: Probabilities, ``(n, C)``.
        subjects: Patients, ``(n,)``.
    """

    stays: list[Any]
    y: NDArray[np.float64]
    p: NDArray[np.float64]
    subjects: NDArray[Any]


def wide(predictions: pa.Table, names: Sequence[str], where: str = "The table") -> Wide:
    """Turn the long form into one row per stay, in the order in which stays come.

    Args:
        predictions: See `summarise`.
        names: Targets in order, C.
        where: Whose predictions they are, for messages.

    Raises:
        DataError: An unknown target, a stay that lacks one, or has one twice.
    """
    place = {name: c for c, name in enumerate(names)}
    targets = predictions["target"].to_pylist()
    other = next((name for name in targets if name not in place), None)
    if other is not None:
        raise DataError(f"{where}: unknown target {other!r}; expected {', '.join(names)}.")
    stays: dict[Any, int] = {}
    row = np.array([stays.setdefault(s, len(stays)) for s in predictions["stay_id"].to_pylist()])
    column = np.array([place[name] for name in targets])
    shape = (len(stays), len(names))
    told = np.bincount(row * len(names) + column, minlength=len(stays) * len(names))
    told = told.reshape(shape)
    if (told > 1).any():
        i, c = np.argwhere(told > 1)[0]
        raise DataError(f"{where} predicts a stay twice for target {names[c]!r}: {list(stays)[i]}.")
    short = int((told == 0).any(1).sum())
    if short:
        raise DataError(f"{where}: {short} of {len(stays)} stays lack one of {len(names)} targets.")
    y, p = np.empty(shape), np.empty(shape)
    y[row, column] = predictions["y"].to_numpy(zero_copy_only=False).astype(np.float64)
    p[row, column] = predictions["p"].to_numpy()
    subjects = np.empty(len(stays), dtype=object)
    subjects[row] = predictions["subject_id"].to_pylist()
    return Wide(list(stays), y, p, np.array(subjects.tolist()))


__all__ = ["Wide", "summarise", "target_names", "wide"]
