"""Rows of a task with some modalities withheld, as `drop` and `drop_train` of a run ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ..errors import ConfigError, DataError
from .config import FuseConfig, unknown
from .drop import Drop
from .identity import modality_names
from .random import Keys

SPLITS: tuple[str, ...] = ("train", "val", "test")
Bools = NDArray[np.bool_]
Floats = NDArray[np.float32]


def withheld(
    config: FuseConfig,
    has: Mapping[str, Bools],
    values: Mapping[str, tuple[Floats, Bools]],
    y: Floats,
    split: Sequence[str],
    keys: Keys,
) -> Bools:
    """Take modalities away from stays that have another one.

    A stay that has nothing else keeps what it has. Every split is cut by itself: what test stays
    hold changes nothing for the others. The risk behind `severity` is that of a logistic
    regression on the other modalities' means over time, fitted to the training stays.

    Args:
        config: Its `drop` acts on all splits, its `drop_train` on train and val.
        has: Which stays have a modality, ``(N,)``: those that the run reads, and those beside.
        values: By modality values ``(N, L, D)`` and mask ``(N, L)``; needed by severity alone.
        y: Targets, ``(N, C)``; NaN where unknown.
        split: Split of each stay.
        keys: Keys of the stays.

    Returns:
        Which stays have what the run reads, ``(N, M)``, in its order.

    Raises:
        ConfigError: A modality that the run does not read, one withheld twice, or no other that a
            stay could have left.
        DataError: Severity cannot be told: the training stays have one class only.
    """
    plan = [(Drop.parse(text), SPLITS) for text in config.drop]
    plan += [(Drop.parse(text), SPLITS[:2]) for text in config.drop_train]
    read = modality_names(config)
    if len(has) == 1:
        raise ConfigError(
            f"Nothing can be withheld from a run that knows of {read[0]!r} alone: a stay keeps "
            "what it has nothing beside. Name other modalities of the stays: --beside NAME."
        )
    left = {name: stays.copy() for name, stays in has.items()}
    words = np.array(split)
    seen: set[str] = set()
    for drop, splits in plan:
        if drop.name not in read:
            raise ConfigError(unknown("modality", drop.name, read))
        if drop.name in seen:
            raise ConfigError(f"{drop.name!r} is withheld twice: give it one share.")
        seen.add(drop.name)
        able = has[drop.name] & (np.stack(list(left.values())).sum(0) >= 2)
        if not able.any():  # these stays have nothing else
            continue
        risk = None
        if drop.by == "severity":
            others = [(*values[n], there) for n, there in has.items() if n != drop.name]
            risk = _risk(others, y, words == "train")
        for word in splits:
            rows = np.flatnonzero(able & (words == word))
            lost = drop.chosen(keys[rows], None if risk is None else risk[rows])
            left[drop.name][rows[lost]] = False
    return np.stack([left[name] for name in read], 1)


def _risk(
    parts: Sequence[tuple[Floats, Bools, Bools]], y: Floats, train: Bools
) -> NDArray[np.float64]:
    """Risk of every stay from the means of some modalities, ``(N,)``."""
    columns = []
    for values, mask, has in parts:
        real = (mask & has[:, None])[:, :, None]
        columns.append((values * real).sum(1) / np.maximum(real.sum(1), 1))
        columns.append(has[:, None])
    table = np.concatenate(columns, axis=1).astype(np.float64)
    known = ~np.isnan(y).all(1)
    event = np.nan_to_num(y).max(1) > 0
    fitted = train & known
    if len(set(event[fitted])) < 2:
        raise DataError(
            "Severity is told by a regression on the training stays, and those have one class "
            "only. Withhold at random: NAME=SHARE."
        )
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    model.fit(table[fitted], event[fitted])
    risk: NDArray[np.float64] = model.predict_proba(table)[:, 1]
    return risk


__all__ = ["withheld"]
