"""The vectorised bootstrap against one scikit-learn call for each replicate."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)

from cm2.errors import DataError
from cm2.fuse.evaluation.bands import bands
from cm2.fuse.evaluation.bootstrap import METRICS, bootstrap, resamples
from cm2.fuse.evaluation.calibration import ece


def sample(n: int, digits: int | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n)
    y = (rng.random(n) < 0.2).astype(int)
    p = 1 / (1 + np.exp(1.5 - y - rng.normal(size=n)))
    return y, p if digits is None else np.round(p, digits), rng.integers(0, int(n * 0.7), n)


@pytest.mark.parametrize("digits", [None, 1])
@pytest.mark.parametrize("by_patient", [True, False])
def test_every_replicate_equals_scikit_learn_on_the_drawn_rows(
    digits: int | None, by_patient: bool
) -> None:
    y, p, patients = sample(150, digits)
    groups = patients if by_patient else np.arange(150)
    found = bootstrap(y, [p], groups if by_patient else None, replicates=70, seed=3)[0]
    unit = np.unique(groups, return_inverse=True)[1]
    counts = np.concatenate(list(resamples(unit.max() + 1, 70, 3)))
    assert counts.shape == (70, unit.max() + 1)
    for i, count in enumerate(counts):
        rows = np.concatenate(
            [np.repeat(np.flatnonzero(unit == u), c) for u, c in enumerate(count)]
        )
        expected = {
            "auroc": roc_auc_score(y[rows], p[rows]),
            "aupr": average_precision_score(y[rows], p[rows]),
            "brier": brier_score_loss(y[rows], p[rows]),
            "ece": ece(y[rows], p[rows]),
        }
        for name in METRICS:
            assert found.values[name][i] == pytest.approx(expected[name], abs=1e-12), name


def test_counts_are_a_bootstrap_of_patients() -> None:
    counts = np.concatenate(list(resamples(50, 4000, 0)))
    assert (counts.sum(1) == 50).all()
    assert counts.mean(0) == pytest.approx(np.ones(50), abs=0.08)
    # multinomial: variance 1 - 1/n, covariance -1/n
    assert counts.var() == pytest.approx(0.98, abs=0.02)
    assert np.cov(counts[:, 0], counts[:, 1])[0, 1] == pytest.approx(-0.02, abs=0.05)


def test_a_seed_names_the_resamples_and_more_replicates_extend_them() -> None:
    first = np.concatenate(list(resamples(20, 40, 1)))
    longer = np.concatenate(list(resamples(20, 100, 1)))
    np.testing.assert_array_equal(first, longer[:40])
    assert (np.concatenate(list(resamples(20, 40, 2))) != first).any()


def test_two_models_see_the_same_patients() -> None:
    y, p, patients = sample(100, 2)
    both = bootstrap(y, [p, 1 - p], patients, replicates=60)
    np.testing.assert_allclose(both[0].values["auroc"] + both[1].values["auroc"], 1, atol=1e-12)


def test_replicates_of_one_class_are_undefined_and_counted() -> None:
    y = np.array([1, 0, 0, 0, 0, 0])
    found = bootstrap(y, [np.linspace(0.9, 0.1, 6)], replicates=500)[0]
    counts = np.concatenate(list(resamples(6, 500, 0)))
    lacking = (counts[:, 0] == 0) | (counts[:, 0] == 6)
    assert 0 < lacking.sum() == found.degenerate
    for name in ("auroc", "aupr"):
        np.testing.assert_array_equal(np.isnan(found.values[name]), lacking)
    assert np.isfinite(found.values["brier"]).all()
    assert (found.values["auroc"][~lacking] == 1).all()


@pytest.mark.parametrize("label", [0, 1])
def test_data_of_one_class_leave_only_calibration(label: int) -> None:
    found = bootstrap([label] * 4, [[0.1, 0.2, 0.3, 0.4]], replicates=9)[0]
    assert found.degenerate == 9
    assert np.isnan(found.values["auroc"]).all()
    assert np.isnan(found.values["aupr"]).all()
    assert np.isfinite(found.values["ece"]).all()


def test_patients_as_text_and_a_wrong_number_of_them() -> None:
    y, p, patients = sample(60, None)
    names = np.array([f"patient {k:03d}" for k in patients])
    by_text = bootstrap(y, [p], names, replicates=5)[0].values["auroc"]
    np.testing.assert_array_equal(
        by_text, bootstrap(y, [p], patients, replicates=5)[0].values["auroc"]
    )
    with pytest.raises(DataError, match="60 patients, one for each stay, found 59"):
        bootstrap(y, [p], names[1:], replicates=5)


def test_bands_are_the_quantiles_of_the_replicates_curves() -> None:
    y, p, patients = sample(90, 2)
    found = bands(y, p, patients, points=11, replicates=60, seed=4)
    assert found is not None
    unit = np.unique(patients, return_inverse=True)[1]
    roc, pr = [], []
    for count in np.concatenate(list(resamples(unit.max() + 1, 60, 4))):
        weight = count[unit].astype(float)
        kept = weight > 0
        false, true, _ = roc_curve(
            y[kept], p[kept], sample_weight=weight[kept], drop_intermediate=False
        )
        roc.append(np.interp(found.grid, false, true))
        precision, recall, _ = precision_recall_curve(y[kept], p[kept], sample_weight=weight[kept])
        precision, recall = precision[:-1][::-1], recall[:-1][::-1]
        hit = recall > 0
        pr.append([precision[hit][np.argmax(recall[hit] >= g - 1e-12)] for g in found.grid])
    np.testing.assert_allclose(found.roc_low, np.quantile(roc, 0.025, axis=0), atol=1e-12)
    np.testing.assert_allclose(found.roc_high, np.quantile(roc, 0.975, axis=0), atol=1e-12)
    np.testing.assert_allclose(found.pr_low, np.quantile(pr, 0.025, axis=0), atol=1e-12)
    np.testing.assert_allclose(found.pr_high, np.quantile(pr, 0.975, axis=0), atol=1e-12)


def test_there_are_no_bands_for_one_class() -> None:
    assert bands([0, 0, 0], [0.1, 0.2, 0.3], [1, 2, 3]) is None
