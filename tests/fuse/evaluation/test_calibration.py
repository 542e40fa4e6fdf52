"""Brier score, ECE, calibration curve and fit against plain restatements and other libraries."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.special import expit, logit
from sklearn.metrics import brier_score_loss

from cm2.errors import DataError
from cm2.fuse.evaluation.calibration import brier, calibration_curve, calibration_fit, ece


def sample(n: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    eta = rng.normal(size=n)
    y = (rng.random(n) < expit(0.6 * eta - 0.5)).astype(int)
    return y, expit(eta), rng.random(n) * 3


def test_brier_equals_scikit_learn_with_weights() -> None:
    y, p, weights = sample()
    assert brier(y, p, weights) == pytest.approx(
        brier_score_loss(y, p, sample_weight=weights), abs=1e-12
    )


def test_ece_equals_its_definition_bin_by_bin() -> None:
    y, p, weights = sample()
    p[:3] = [0.0, 1.0, 0.3]
    expected = 0.0
    for b in range(10):
        inside = [i for i in range(len(y)) if b / 10 <= p[i] and (p[i] < (b + 1) / 10 or b == 9)]
        if inside:
            w = weights[inside]
            gap = abs((w * y[inside]).sum() / w.sum() - (w * p[inside]).sum() / w.sum())
            expected += w.sum() / weights.sum() * gap
    assert ece(y, p, weights) == pytest.approx(expected, abs=1e-12)


def test_ece_of_the_true_frequency_is_zero() -> None:
    assert ece([0, 1, 0, 1, 1], [0.6] * 5) == pytest.approx(0, abs=1e-15)


def test_calibration_curve_holds_every_stay_once_and_never_parts_equal_probabilities() -> None:
    y, p, _ = sample()
    p = np.round(p, 1)
    curve = calibration_curve(y, p, bins=7)
    assert curve.counts.sum() == len(y)
    assert curve.counts @ curve.observed == pytest.approx(y.sum())
    assert curve.counts @ curve.predicted == pytest.approx(p.sum())
    assert (np.diff(curve.predicted) > 0).all()
    edges = np.cumsum(curve.counts)[:-1]
    ordered = np.sort(p)
    assert (ordered[edges] > ordered[edges - 1]).all()


def test_calibration_curve_bins_are_even_without_ties() -> None:
    y, p, _ = sample(403)
    counts = calibration_curve(y, p, bins=10).counts
    assert len(counts) == 10
    assert np.ptp(counts) <= 1


def test_slope_and_intercept_equal_statsmodels() -> None:
    y, p, weights = sample()
    fit = calibration_fit(y, p, weights)
    family = sm.families.Binomial()
    free = sm.GLM(y, sm.add_constant(logit(p)), family=family, freq_weights=weights).fit(tol=1e-13)
    large = sm.GLM(
        y, np.ones((len(y), 1)), family=family, offset=logit(p), freq_weights=weights
    ).fit(tol=1e-13)
    assert fit.slope == pytest.approx(free.params[1], abs=1e-8)
    assert fit.intercept == pytest.approx(large.params[0], abs=1e-8)


def test_calibration_of_true_probabilities_is_one_and_zero() -> None:
    rng = np.random.default_rng(5)
    p = expit(rng.normal(size=200_000))
    fit = calibration_fit(rng.random(200_000) < p, p)
    assert fit.slope == pytest.approx(1, abs=0.02)
    assert fit.intercept == pytest.approx(0, abs=0.02)


def test_extreme_probabilities_still_have_a_fit() -> None:
    y = np.array([0, 1] * 20)
    p = np.where(np.arange(40) % 5 == 0, 1 - y, y).astype(float)
    fit = calibration_fit(y, p)
    assert fit.slope is not None
    assert 0 < fit.slope < 0.2


@pytest.mark.parametrize(("events_at_0", "events_at_1"), [(1, 2), (2, 3), (1, 3), (2, 1), (3, 2)])
def test_probabilities_of_0_and_1_alone_have_a_calibration_in_the_large(
    events_at_0: int, events_at_1: int
) -> None:
    p = np.array([0.0] * 3 + [1.0] * 3)
    y = np.array([i < events_at_0 for i in range(3)] + [i < events_at_1 for i in range(3)], float)
    found = calibration_fit(y, p).intercept
    assert found is not None
    odds = logit(np.clip(p, 1e-12, 1 - 1e-12))
    assert np.sum(y - expit(odds + found)) == pytest.approx(0, abs=1e-10)


def test_separated_classes_have_no_slope_and_one_class_has_no_fit() -> None:
    # Newton's method stops somewhere here although the likelihood has no maximum
    far = expit([-4.093, -3.089, -0.13, 0.677, 3.574])
    assert calibration_fit([0, 0, 0, 0, 1], far).slope is None
    assert calibration_fit([0, 0, 1, 1], [0.1, 0.2, 0.6, 0.7]).slope is None
    assert calibration_fit([0, 0, 1, 1], [0.1, 0.2, 0.6, 0.7]).intercept is not None
    assert calibration_fit([1, 1], [0.4, 0.6]) == (None, None)


def test_values_outside_the_unit_interval_are_no_probabilities() -> None:
    with pytest.raises(DataError, match=r"probabilities in \[0, 1\], found values from -0.1"):
        brier([0, 1], [-0.1, 0.5])
    with pytest.raises(DataError, match="probabilities"):
        ece([0, 1], [0.1, 1.5])
