"""Probabilities corrected by what validation stays show: Platt scaling, isotonic regression."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression

from ...errors import ConfigError
from ..config import unknown
from .calibration import logistic_line
from .discrimination import checked

Floats = NDArray[np.float64]
WAYS = ("none", "platt", "isotonic")
_EDGE = 1e-12


def require_way(how: str) -> None:
    """Raise ConfigError unless there is such a way of correcting."""
    if how not in WAYS:
        raise ConfigError(unknown("recalibration", how, WAYS))


def recalibration(how: str, y: ArrayLike, p: ArrayLike) -> Callable[[ArrayLike], Floats]:
    """Fit a correction to validation stays.

    Args:
        how: `none`, `platt` (a line on the logit scale; Platt, 1999) or `isotonic` (a rising step
            function; Zadrozny and Elkan, 2002).
        y: Labels of the validation stays, ``(n,)``.
        p: Probabilities.

    Returns:
        Maps probabilities to corrected ones.

    Raises:
        ConfigError: Another way, or validation stays that cannot be fitted.
    """
    require_way(how)
    if how == "none":
        return lambda values: np.asarray(values, np.float64)
    if not np.size(y):
        raise ConfigError("No correction can be fitted: no validation stay has a known target.")
    labels, scores, _ = checked(y, p, probability=True)
    if how == "isotonic":
        model = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")
        model.fit(scores, labels)
        return lambda values: np.asarray(model.predict(np.asarray(values)), np.float64)
    line = logistic_line(labels, scores)
    if line is None:
        raise ConfigError(
            "Platt scaling cannot be fitted: the validation stays have one class, or are separated "
            "perfectly. Use isotonic, or none."
        )
    slope, intercept = line

    def corrected(values: ArrayLike) -> Floats:
        z = logit(np.clip(np.asarray(values, np.float64), _EDGE, 1 - _EDGE))
        return np.asarray(expit(intercept + slope * z))

    return corrected


__all__ = ["WAYS", "recalibration", "require_way"]
