"""AUROC and average precision against scikit-learn, ties and weights included."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import mannwhitneyu
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from cm2.errors import DataError
from cm2.fuse.evaluation.discrimination import auroc, average_precision, threshold_curve


@st.composite
def tied_and_weighted(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    n = draw(st.integers(2, 40))
    y = draw(arrays(np.int64, n, elements=st.integers(0, 1)))
    y[0], y[-1] = 0, 1
    scores = draw(arrays(np.float64, n, elements=st.integers(0, 6).map(lambda k: k / 7)))
    weights = draw(arrays(np.float64, n, elements=st.floats(0.0, 5.0)))
    weights[0] += 0.1
    weights[-1] += 0.1
    return y, scores, weights


@settings(max_examples=200, deadline=None)
@given(tied_and_weighted())
def test_areas_equal_scikit_learn_with_ties_and_weights(
    data: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    y, scores, weights = data
    assert auroc(y, scores, weights) == pytest.approx(
        roc_auc_score(y, scores, sample_weight=weights), abs=1e-12
    )
    assert average_precision(y, scores, weights) == pytest.approx(
        average_precision_score(y, scores, sample_weight=weights), abs=1e-12
    )


def test_auroc_is_the_mann_whitney_statistic() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 300)
    scores = np.round(rng.normal(size=300) + y, 1)
    u = mannwhitneyu(scores[y == 1], scores[y == 0]).statistic
    expected = u / (y.sum() * (1 - y).sum())
    assert auroc(y, scores) == pytest.approx(expected, abs=1e-12)


def test_auroc_stays_exact_for_a_hundred_thousand_stays() -> None:
    rng = np.random.default_rng(1)
    y = (rng.random(100_000) < 0.1).astype(int)
    scores = np.round(rng.normal(size=100_000) + y, 3)
    assert auroc(y, scores) == pytest.approx(roc_auc_score(y, scores), abs=1e-12)


def test_threshold_curve_is_the_roc_curve() -> None:
    rng = np.random.default_rng(2)
    y, scores = rng.integers(0, 2, 50), rng.integers(0, 9, 50) / 10
    false, true, thresholds = roc_curve(y, scores, drop_intermediate=False)
    curve = threshold_curve(y, scores)
    np.testing.assert_allclose(curve.false_positives / (1 - y).sum(), false[1:], atol=1e-15)
    np.testing.assert_allclose(curve.true_positives / y.sum(), true[1:], atol=1e-15)
    np.testing.assert_array_equal(curve.thresholds, thresholds[1:])


def test_one_class_has_no_auroc_and_no_positives_no_average_precision() -> None:
    assert auroc([0, 0, 0], [0.1, 0.2, 0.3]) is None
    assert auroc([1, 1], [0.1, 0.2]) is None
    assert auroc([0, 1], [0.1, 0.2], [1.0, 0.0]) is None
    assert average_precision([0, 0], [0.1, 0.2]) is None
    assert average_precision([1, 1], [0.1, 0.2]) == 1.0


@pytest.mark.parametrize(
    ("y", "scores", "weights", "message"),
    [
        ([0, 1], [0.1], None, r"shapes \(2,\), \(1,\)"),
        ([], [], None, "non-empty"),
        ([0, 2], [0.1, 0.2], None, "labels 0 and 1"),
        ([0, float("nan")], [0.1, 0.2], None, "labels 0 and 1"),
        ([0, 1], [0.1, float("nan")], None, "1 that are not finite"),
        ([0, 1], [0.1, 0.2], [1, -1], "weights"),
        ([0, 1], [0.1, 0.2], [1, float("inf")], "weights"),
    ],
)
def test_wrong_input_is_refused_with_what_was_found(
    y: list[float], scores: list[float], weights: list[float] | None, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        auroc(y, scores, weights)
