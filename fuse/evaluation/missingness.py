"""What a trained model says when a modality is withheld from stays that have it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...errors import ConfigError
from ..config import unknown
from ..drop import Drop
from ..inference import Prepared, forward, probabilities
from ..models.interface import pattern_ids
from ..rows import FusionData, Rows
from .contenders import Judged, judged
from .metrics import with_interval

SHARES = (0.25, 0.5, 0.75, 1.0)
METRICS = ("auroc", "aupr")
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


def parse_drops(texts: Sequence[str], names: Sequence[str]) -> list[Drop]:
    """Read `cxr=0.5`, or `cxr` for a quarter, a half, three quarters and all.

    Args:
        texts: What was asked for.
        names: Modalities that the run reads.

    Raises:
        ConfigError: Anything else, or another modality.
    """
    drops = []
    for text in texts:
        name, equals, _ = text.partition("=")
        if name not in names:
            raise ConfigError(f"--drop: {unknown('modality', name, tuple(names))}")
        if not equals:
            drops += [Drop(name, share, "random") for share in SHARES]
            continue
        try:
            drop = Drop.parse(text)
        except ValueError as error:
            raise ConfigError(f"--drop: {error}") from None
        if drop.by == "severity":
            raise ConfigError("--drop withholds at random; by severity it is an option of training")
        drops.append(drop)
    return drops


def missingness(
    loaded: Prepared, p: Floats, drops: Sequence[Drop], *, replicates: int, unit: str
) -> list[dict[str, Any]]:
    """Withhold a modality from a share of the stays that have it and another one.

    The stays that lose it at a small share lose it at a larger one too.

    Args:
        loaded: Model and stays.
        p: Its predictions with nothing withheld, ``(rows, C)``.
        drops: What is withheld.
        replicates: Bootstrap resamples.
        unit: What is resampled, "patient" or "stay".

    Returns:
        For each: modality, share, withheld (stays), n, and by metric value, low, high, and
        difference, difference_low, difference_high, p against nothing withheld on the same stays;
        where no stay loses it the reason instead of metrics, as nothing can differ.
    """
    names = [spec.name for spec in loaded.model.specs]
    known, y, subjects = _known(loaded, np.ones(len(loaded.rows), dtype=bool), unit)
    whole = judged(y, [p[known]], subjects, replicates=replicates)
    result = []
    for drop in drops:
        m = names.index(drop.name)
        able = loaded.rows[known & _able(loaded, m)]
        lost = able[drop.chosen(loaded.data.keys[able], stream="judge.drop")]
        entry: dict[str, Any] = {
            "modality": drop.name,
            "share": drop.share,
            "withheld": len(lost),
            "n": len(y),
        }
        result.append(entry)
        if not len(lost):
            entry["reason"] = (
                f"the share takes none of {len(able)} stays"
                if len(able)
                else "no stay has it beside another one"
            )
            continue
        less = _predict(loaded, without(loaded.data, m, lost), loaded.rows)
        found = judged(y, [less[known]], subjects, replicates=replicates)
        entry |= {name: _against(found[name], whole[name]) for name in METRICS}
    return result


def contributions(
    loaded: Prepared, p: Floats, *, replicates: int, unit: str
) -> list[dict[str, Any]]:
    """Withhold each modality from all stays that have it and another one.

    Args:
        loaded: Model and stays.
        p: Its predictions with nothing withheld, ``(rows, C)``.
        replicates: Bootstrap resamples.
        unit: What is resampled, "patient" or "stay".

    Returns:
        For each modality: n and positives of those stays, mean_change of p (without minus with),
        mean_absolute_change, and by metric the value without it with its difference from that
        with it on the same stays.
    """
    result = []
    for m, spec in enumerate(loaded.model.specs):
        chosen, y, subjects = _known(loaded, _able(loaded, m), unit)
        entry: dict[str, Any] = {"modality": spec.name, "n": len(y)}
        result.append(entry)
        if not len(y):
            continue
        entry["positives"] = int((y == 1).any(1).sum())
        rows, full = loaded.rows[chosen], p[chosen]
        less = _predict(loaded, without(loaded.data, m, rows), rows)
        entry["mean_change"] = float((less - full).mean())
        entry["mean_absolute_change"] = float(np.abs(less - full).mean())
        before = judged(y, [full], subjects, replicates=replicates)
        after = judged(y, [less], subjects, replicates=replicates)
        entry |= {name: _against(after[name], before[name]) for name in METRICS}
    return result


def without(data: FusionData, m: int, rows: Rows) -> FusionData:
    """The same rows with one modality taken from some of them.

    Args:
        data: All rows.
        m: Position of the modality.
        rows: Rows that lose it.
    """
    available = data.whole.available.clone()
    available[torch.from_numpy(rows), m] = False
    pattern_id = pattern_ids(available)
    return replace(data, whole=replace(data.whole, available=available, pattern_id=pattern_id))


def _able(loaded: Prepared, m: int) -> Bools:
    """Which of the stays have a modality and another one."""
    available = loaded.data.whole.available.cpu().numpy()[loaded.rows]
    able: Bools = available[:, m] & (available.sum(1) >= 2)
    return able


def _known(loaded: Prepared, chosen: Bools, unit: str) -> tuple[Bools, Floats, NDArray[Any] | None]:
    """Which of the chosen stays have a known target, their targets, and what is resampled."""
    y = loaded.data.labels(loaded.rows).double().numpy()
    chosen = chosen & ~np.isnan(y).all(1)
    subjects = [loaded.data.columns["subject_id"][i] for i in loaded.rows[chosen]]
    return chosen, y[chosen], np.array(subjects) if unit == "patient" else None


def _predict(loaded: Prepared, data: FusionData, rows: Rows) -> Floats:
    return probabilities(forward(loaded.model, data, rows))


def _against(one: Judged, other: Judged) -> dict[str, Any]:
    """A metric with its interval, and its paired difference from another model's."""
    found = one.difference(other)
    return {
        **with_interval(one.value, one.replicates),
        "difference": found.value,
        "difference_low": found.low,
        "difference_high": found.high,
        "p": found.p,
    }


__all__ = ["SHARES", "contributions", "missingness", "parse_drops", "without"]
