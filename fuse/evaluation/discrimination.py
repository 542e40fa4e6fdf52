"""How well scores separate positives from negatives: the ROC and PR curves and their areas.

Every function takes labels `y` (0 or 1) and scores of the same stays, and optional non-negative
weights. Ties are treated exactly: tied scores count one half in AUROC and form one threshold in
average precision. What is not defined (one class only) is None, never NaN.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...errors import DataError

Floats = NDArray[np.float64]


class Curve(NamedTuple):
    """Cumulative weights at each distinct score, from the highest down; shapes ``(G,)``.

    Args:
        thresholds: The distinct scores.
        true_positives: Weight of the positives at or above each score.
        false_positives: Weight of the negatives at or above each score.
    """

    thresholds: Floats
    true_positives: Floats
    false_positives: Floats


def checked(
    y: ArrayLike, scores: ArrayLike, weights: ArrayLike | None = None, probability: bool = False
) -> tuple[Floats, Floats, Floats]:
    """Turn labels, scores and weights into checked arrays of shape ``(n,)``.

    Args:
        y: Labels, 0 or 1.
        scores: Finite numbers, higher means more likely positive.
        weights: Non-negative; None is one for each stay.
        probability: Whether scores must lie in [0, 1].

    Raises:
        DataError: Shapes differ, nothing is there, or a value is outside its range.
    """
    labels, values = np.asarray(y, np.float64), np.asarray(scores, np.float64)
    given = np.ones(labels.shape) if weights is None else np.asarray(weights, np.float64)
    if labels.ndim != 1 or not labels.shape == values.shape == given.shape or not labels.size:
        raise DataError(
            "Expected labels, scores and weights as three equally long non-empty columns, found "
            f"shapes {labels.shape}, {values.shape} and {given.shape}."
        )
    if not np.isin(labels, (0.0, 1.0)).all():
        raise DataError("Expected labels 0 and 1; drop the stays whose label is unknown first.")
    if not np.isfinite(values).all() or (probability and (values.min() < 0 or values.max() > 1)):
        expected = "probabilities in [0, 1]" if probability else "finite scores"
        raise DataError(
            f"Expected {expected}, found values from {values.min()} to {values.max()} and "
            f"{(~np.isfinite(values)).sum()} that are not finite."
        )
    if not np.isfinite(given).all() or given.min() < 0:
        raise DataError("Expected finite weights of at least 0.")
    return labels, values, given


def threshold_curve(y: ArrayLike, scores: ArrayLike, weights: ArrayLike | None = None) -> Curve:
    """Count positives and negatives at or above each distinct score: ROC and PR in one."""
    labels, values, given = checked(y, scores, weights)
    order = np.argsort(-values, kind="stable")
    values, labels, given = values[order], labels[order], given[order]
    ends = np.append(np.flatnonzero(np.diff(values)), len(values) - 1)
    return Curve(
        values[ends],
        np.cumsum(given * labels)[ends],
        np.cumsum(given * (1 - labels))[ends],
    )


def auroc(y: ArrayLike, scores: ArrayLike, weights: ArrayLike | None = None) -> float | None:
    """Area under the ROC curve: the chance that a positive scores above a negative, ties one half.

    Returns:
        In [0, 1]; None when only one class has weight.
    """
    _, positives, negatives = threshold_curve(y, scores, weights)
    if positives[-1] <= 0 or negatives[-1] <= 0:
        return None
    heights = positives + np.append(0.0, positives[:-1])  # (G,), twice the mid-rank
    area = np.sum(np.diff(negatives, prepend=0.0) * heights) / 2
    return float(area / (positives[-1] * negatives[-1]))


def average_precision(
    y: ArrayLike, scores: ArrayLike, weights: ArrayLike | None = None
) -> float | None:
    """Average precision: precision at each threshold, weighted by the recall gained there.

    This is the field's AUPR without the optimistic linear interpolation of the PR curve (Davis and
    Goadrich, 2006).

    Returns:
        In (0, 1]; None without positives. Chance level is the prevalence.
    """
    _, positives, negatives = threshold_curve(y, scores, weights)
    if positives[-1] <= 0:
        return None
    gained = np.diff(positives, prepend=0.0)
    total = np.where(gained > 0, positives + negatives, 1.0)
    return float(np.sum(gained * positives / total) / positives[-1])
