"""How far probabilities can be believed: Brier score, calibration error, curve and slope."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import expit, logit

from .discrimination import Floats, checked

ECE_BINS = 10
_TINY = 1e-12


class CalibrationCurve(NamedTuple):
    """Predicted against observed frequency in the bins that hold stays; shapes ``(bins,)``."""

    predicted: Floats
    observed: Floats
    counts: NDArray[np.int64]


class CalibrationFit(NamedTuple):
    """Logistic recalibration of the log odds.

    Args:
        slope: Of the log odds, with a free intercept; 1 is ideal, below 1 is overconfident.
        intercept: With the slope held at 1 (calibration in the large); 0 is ideal, below 0 means
            that risks are predicted too high.
    """

    slope: float | None
    intercept: float | None


def brier(y: ArrayLike, p: ArrayLike, weights: ArrayLike | None = None) -> float | None:
    """Brier score: mean squared difference of probability and label; lower is better.

    Returns:
        In [0, 1]; None when no stay has weight.
    """
    labels, values, given = checked(y, p, weights, probability=True)
    return float(given @ (values - labels) ** 2 / given.sum()) if given.sum() > 0 else None


def bin_of(p: Floats, bins: int = ECE_BINS) -> NDArray[np.int64]:
    """Place probabilities in bins of equal width; a bin holds its lower edge, the last also 1."""
    return np.minimum((p * bins).astype(np.int64), bins - 1)


def ece(
    y: ArrayLike, p: ArrayLike, weights: ArrayLike | None = None, bins: int = ECE_BINS
) -> float | None:
    """Expected calibration error of the probability of the positive class.

    Over bins of equal width: the mean over stays of \\|mean label − mean probability\\| of the
    stay's bin (Naeini et al., 2015, for the event's probability instead of the confidence). It is
    biased upwards when bins hold few stays.

    Returns:
        In [0, 1]; None when no stay has weight.
    """
    labels, values, given = checked(y, p, weights, probability=True)
    if given.sum() <= 0:
        return None
    gaps = np.bincount(bin_of(values, bins), weights=given * (labels - values), minlength=bins)
    return float(np.abs(gaps).sum() / given.sum())


def calibration_curve(y: ArrayLike, p: ArrayLike, bins: int = 10) -> CalibrationCurve:
    """Observed against predicted frequency in bins of equal numbers of stays.

    Equal probabilities never fall into different bins, so fewer bins than asked may come back.

    Args:
        y: Labels, 0 or 1.
        p: Probabilities.
        bins: Largest number of bins.
    """
    labels, values, _ = checked(y, p, probability=True)
    edges = np.unique(np.quantile(values, np.arange(1, bins) / bins, method="lower"))
    where = np.searchsorted(edges, values, side="left")
    counts = np.bincount(where, minlength=bins)
    kept = counts > 0
    total = counts[kept]
    return CalibrationCurve(
        np.bincount(where, weights=values, minlength=bins)[kept] / total,
        np.bincount(where, weights=labels, minlength=bins)[kept] / total,
        total,
    )


def calibration_fit(y: ArrayLike, p: ArrayLike, weights: ArrayLike | None = None) -> CalibrationFit:
    """Calibration slope, and calibration in the large (Cox, 1958; Van Calster et al., 2016).

    Probabilities are kept 1e-12 away from 0 and 1.

    Returns:
        None for what has no finite maximum of the likelihood: one class, or separated classes.
    """
    labels, values, given = checked(y, p, weights, probability=True)
    values = np.clip(values, _TINY, 1 - _TINY)
    odds = np.log(values) - np.log1p(-values)
    positive, negative = (odds[(labels == c) & (given > 0)] for c in (1, 0))
    if not positive.size or not negative.size:
        return CalibrationFit(None, None)
    overlap = positive.min() < negative.max() and negative.min() < positive.max()
    line = _logistic(odds, labels, given) if overlap else None
    return CalibrationFit(None if line is None else line[0], _in_the_large(odds, labels, given))


def logistic_line(y: ArrayLike, p: ArrayLike) -> tuple[float, float] | None:
    """Slope and intercept of the likeliest line on the logit scale (Platt, 1999).

    Returns:
        None when there is no finite maximum of the likelihood.
    """
    labels, values, given = checked(y, p, probability=True)
    if calibration_fit(labels, values).slope is None:
        return None
    values = np.clip(values, _TINY, 1 - _TINY)
    return _logistic(np.log(values) - np.log1p(-values), labels, given)


def _in_the_large(odds: Floats, y: Floats, weights: Floats) -> float:
    # The only root of a falling function. Newton's method would lose it on the plateaus between
    # probabilities next to 0 and next to 1.
    rate = logit(np.average(y, weights=weights))
    low, high = rate - odds.max() - 1, rate - odds.min() + 1
    return float(brentq(lambda shift: weights @ (y - expit(odds + shift)), low, high))


def _logistic(odds: Floats, y: Floats, weights: Floats) -> tuple[float, float] | None:
    # Slope and intercept by Newton's method with step halving on the concave log likelihood
    design = np.stack([odds, np.ones_like(odds)], 1)

    def value(beta: Floats) -> float:
        eta = design @ beta
        return float(weights @ (y * eta - np.logaddexp(0, eta)))

    beta = np.zeros(2)
    best = value(beta)
    for _ in range(100):
        fitted = expit(design @ beta)
        slope = design.T @ (weights * (y - fitted))
        curvature = (design.T * (weights * fitted * (1 - fitted))) @ design
        try:
            step = np.linalg.solve(curvature, slope)
        except np.linalg.LinAlgError:
            return None
        while (now := value(beta + step)) < best and np.abs(step).max() > _TINY:
            step = step / 2
        beta, best = beta + step, max(now, best)
        if np.abs(step).max() < 1e-10 * (1 + np.abs(beta).max()):
            return float(beta[0]), float(beta[1])
    return None
