"""Thresholds fixed on validation, operating points, decision curves."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from cm2.errors import ConfigError
from cm2.fuse.evaluation.thresholds import GRID, choose, decision_curve, operating_point

RANDOM = np.random.default_rng(0)
P = RANDOM.random(300).round(2)
Y = (RANDOM.random(300) < P).astype(int)
WHO = np.arange(300) // 2


def test_youden_is_the_best_sum_of_sensitivity_and_specificity() -> None:
    fpr, tpr, thresholds = metrics.roc_curve(Y, P, drop_intermediate=False)
    assert choose("youden", Y, P) == thresholds[np.argmax(tpr - fpr)]


def test_a_wanted_sensitivity_or_specificity_is_kept_as_tightly_as_possible() -> None:
    at = choose("sensitivity=0.9", Y, P)
    assert metrics.recall_score(Y, at <= P) >= 0.9
    assert metrics.recall_score(Y, np.nextafter(at, 1) <= P) < 0.9
    at = choose("specificity=0.8", Y, P)
    assert 1 - (at <= P)[Y == 0].mean() >= 0.8
    below = P[at > P].max()
    assert 1 - (below <= P)[Y == 0].mean() < 0.8
    assert choose("p=0.2", Y, P) == 0.2


@pytest.mark.parametrize("percent", range(1, 100))
def test_a_specificity_that_is_reached_exactly_is_kept(percent: int) -> None:
    y = np.array([0] * 100 + [1])
    p = np.append(np.arange(100) / 100, 0.5)
    assert choose(f"specificity={percent / 100}", y, p) == percent / 100


def test_a_specificity_that_no_threshold_keeps_raises_no_alarm() -> None:
    at = choose("specificity=1", [0, 1, 0], [1.0, 0.5, 0.2])
    assert not (np.array([1.0]) >= at).any()


@pytest.mark.parametrize("rule", ["yuden", "sensitivity", "sensitivity=2", "youden=1", "p=x", ""])
def test_other_rules_are_refused(rule: str) -> None:
    with pytest.raises(ConfigError, match="--threshold is one of"):
        choose(rule, Y, P)


def test_the_operating_point_equals_scikit_learn() -> None:
    found = operating_point(Y, P, 0.4, WHO, replicates=200)
    alarm = (P >= 0.4).astype(int)
    tn, fp, fn, tp = metrics.confusion_matrix(Y, alarm).ravel()
    assert (found["tp"], found["fp"], found["tn"], found["fn"]) == (tp, fp, tn, fn)
    expected = {
        "sensitivity": metrics.recall_score(Y, alarm),
        "specificity": tn / (tn + fp),
        "ppv": metrics.precision_score(Y, alarm),
        "npv": tn / (tn + fn),
        "f1": metrics.f1_score(Y, alarm),
        "alarms_per_100": 100 * alarm.mean(),
    }
    for name, value in expected.items():
        assert found[name]["value"] == pytest.approx(value)
        assert found[name]["low"] < value < found[name]["high"]


def test_what_cannot_be_divided_is_null_with_a_reason() -> None:
    found = operating_point(Y, P, 1.5, WHO, replicates=20)
    assert found["ppv"]["value"] is None
    assert found["ppv"]["reason"]
    assert found["sensitivity"]["value"] == 0


def test_intervals_resample_patients_and_not_stays() -> None:
    y, p, who = np.repeat(Y, 4), np.repeat(P, 4), np.repeat(np.arange(300), 4)
    by_patient = operating_point(y, p, 0.4, who, replicates=400)["sensitivity"]
    by_stay = operating_point(y, p, 0.4, None, replicates=400)["sensitivity"]
    width = {k: v["high"] - v["low"] for k, v in {"p": by_patient, "s": by_stay}.items()}
    assert width["p"] > 1.6 * width["s"]


def test_net_benefit_follows_its_definition() -> None:
    found = decision_curve(Y, P, WHO, replicates=100)
    at = int(np.flatnonzero(np.isclose(GRID, 0.3))[0])
    alarm = P >= 0.3
    n = len(Y)
    expected = (alarm & (Y == 1)).sum() / n - (alarm & (Y == 0)).sum() / n * 0.3 / 0.7
    assert found["model"][at] == pytest.approx(expected)
    assert found["low"][at] < expected < found["high"][at]
    assert found["all"][at] == pytest.approx(Y.mean() - (1 - Y.mean()) * 0.3 / 0.7)
