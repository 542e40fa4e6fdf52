"""Tests of differences: DeLong against its definition, Holm against statsmodels, honest levels."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm
from statsmodels.stats.multitest import multipletests

from cm2.errors import DataError
from cm2.fuse.evaluation.bootstrap import bootstrap
from cm2.fuse.evaluation.discrimination import auroc
from cm2.fuse.evaluation.significance import delong, holm, interval, paired_bootstrap


def sample(n: int, seed: int = 0, lift: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < 0.3).astype(int)
    common = rng.normal(size=n) + y
    a = common + rng.normal(size=n) * 0.7 + lift * y
    b = common + rng.normal(size=n) * 0.7
    return y, np.round(a, 1), np.round(b, 1)


def plain_delong(y: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[float, float, float]:
    """DeLong et al. (1988), written out over all pairs."""
    components = []
    for s in (a, b):
        pairs = [[(i > j) + 0.5 * (i == j) for j in s[y == 0]] for i in s[y == 1]]
        components.append((np.mean(pairs, axis=1), np.mean(pairs, axis=0)))
    (a10, a01), (b10, b01) = components
    m, n = y.sum(), (1 - y).sum()
    s10, s01 = np.cov(a10, b10), np.cov(a01, b01)
    s = s10 / m + s01 / n
    return a10.mean(), b10.mean(), s[0, 0] + s[1, 1] - 2 * s[0, 1]


def plain_obuchowski(y: np.ndarray, s: np.ndarray, groups: np.ndarray) -> float:
    """Variance of one AUROC under clustering (Obuchowski, 1997, equation 3), written out."""
    pairs = np.array([[(i > j) + 0.5 * (i == j) for j in s[y == 0]] for i in s[y == 1]])
    theta, (m, n) = pairs.mean(), pairs.shape
    v10, v01 = pairs.mean(1), pairs.mean(0)
    x, z = [], []
    for g in np.unique(groups):
        inside_positive, inside_negative = groups[y == 1] == g, groups[y == 0] == g
        x.append(v10[inside_positive].sum() - inside_positive.sum() * theta)
        z.append(v01[inside_negative].sum() - inside_negative.sum() * theta)
    xs, zs, total = np.array(x), np.array(z), len(x)
    i10, i01 = (len(np.unique(groups[y == c])) for c in (1, 0))
    s10 = i10 / ((i10 - 1) * m) * (xs**2).sum()
    s01 = i01 / ((i01 - 1) * n) * (zs**2).sum()
    s11 = total / (total - 1) * (xs * zs).sum()
    return s10 / m + s01 / n + 2 * s11 / (m * n)


@pytest.mark.parametrize("seed", range(5))
def test_delong_equals_its_definition_over_all_pairs(seed: int) -> None:
    y, a, b = sample(80, seed)
    first, second, variance = plain_delong(y, a, b)
    found = delong(y, a, b)
    assert found is not None
    assert found.first == pytest.approx(auroc(y, a), abs=1e-12)
    assert (found.first, found.second) == pytest.approx((first, second), abs=1e-12)
    assert found.variance == pytest.approx(variance, abs=1e-14)
    expected = 2 * norm.sf(abs(first - second) / math.sqrt(variance))
    assert found.p == pytest.approx(expected, abs=1e-12)


def test_clustered_variance_is_delongs_when_every_patient_has_one_stay() -> None:
    y, a, b = sample(80)
    assert delong(y, a, b, np.arange(80)) == pytest.approx(delong(y, a, b), abs=1e-14)


@pytest.mark.parametrize("seed", range(3))
def test_clustered_variance_equals_obuchowskis(seed: int) -> None:
    y, a, b = sample(90, seed)
    groups = np.random.default_rng(seed).integers(0, 40, 90)
    found = delong(y, a, b, groups)
    # the variance of a difference is that of one score less a constant one: theta is linear in the
    # components, so compare through the polarisation identity with a single informative score
    constant = np.zeros(90)
    alone = delong(y, a, constant, groups)
    assert found is not None
    assert alone is not None
    assert alone.variance == pytest.approx(plain_obuchowski(y, a, groups), abs=1e-14)


def test_repeated_stays_are_no_new_evidence_once_clustered() -> None:
    y, a, b = sample(60)
    groups = np.arange(60)
    once = delong(y, a, b, groups)
    fourfold = delong(np.tile(y, 4), np.tile(a, 4), np.tile(b, 4), np.tile(groups, 4))
    naive = delong(np.tile(y, 4), np.tile(a, 4), np.tile(b, 4))
    assert once is not None
    assert fourfold is not None
    assert naive is not None
    assert fourfold.variance == pytest.approx(once.variance, rel=1e-12)
    assert naive.variance < 0.3 * once.variance


def test_equal_scores_have_p_one_and_a_single_positive_no_test() -> None:
    y, a, b = sample(40)
    same = delong(y, a, a)
    assert same is not None
    assert same.p == 1
    assert delong([1, 0, 0, 0], a[:4], b[:4]) is None
    separated = delong([1, 1, 0, 0], [4, 3, 2, 1], [1, 2, 3, 4])
    assert separated is not None
    assert separated.p is None
    with pytest.raises(DataError, match="40 patients"):
        delong(y, a, b, [1, 2])


def test_holm_equals_statsmodels() -> None:
    rng = np.random.default_rng(0)
    for size in (1, 6, 40):
        p = np.round(rng.random(size) ** 3, 2).tolist()
        assert holm(p) == pytest.approx(multipletests(p, method="holm")[1].tolist(), abs=1e-15)


def test_holm_leaves_out_what_was_not_tested() -> None:
    assert holm([0.02, None, 0.03]) == [0.04, None, 0.04]
    assert holm([]) == []


def test_interval_is_of_the_defined_replicates_and_needs_half_of_them() -> None:
    values = np.append(np.arange(101.0), [np.nan] * 100)
    assert interval(values) == pytest.approx((2.5, 97.5))
    assert interval(np.append(values, np.nan)) is not None
    assert interval(np.append(values, [np.nan] * 2)) is None
    assert interval(np.empty(0)) is None


def test_paired_bootstrap_counts_both_sides() -> None:
    gaps = np.concatenate([np.full(30, -0.1), np.full(969, 0.2), [0.0]])
    found = paired_bootstrap(gaps, np.zeros(1000), 0.15)
    assert found.p == pytest.approx(2 * 32 / 1001)
    assert (found.low, found.high) == pytest.approx((-0.1, 0.2))
    assert paired_bootstrap(np.zeros(9), np.zeros(9), 0.0).p == 1
    assert paired_bootstrap(np.full(9, np.nan), np.zeros(9), 0.1) == (0.1, None, None, None)


def _p_values(lift: float, repeats: int) -> tuple[np.ndarray, np.ndarray]:
    boot, test = [], []
    for seed in range(repeats):
        y, a, b = sample(300, seed, lift)
        scores = [1 / (1 + np.exp(-s)) for s in (a, b)]
        one, two = bootstrap(y, scores, replicates=300)
        gap = auroc(y, a) - auroc(y, b)  # type: ignore[operator]
        boot.append(paired_bootstrap(one.values["auroc"], two.values["auroc"], gap).p)
        found = delong(y, a, b)
        assert found is not None
        test.append(found.p)
    return np.array(boot), np.array(test)


def test_equal_models_are_called_different_about_as_often_as_the_level_says() -> None:
    for p in _p_values(0.0, 100):
        assert (p < 0.05).mean() <= 0.12


def test_a_better_model_is_found() -> None:
    for p in _p_values(0.8, 20):
        assert (p < 0.05).mean() >= 0.9
