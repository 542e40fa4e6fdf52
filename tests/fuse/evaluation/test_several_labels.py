"""Tasks of several labels: a stay counts once, and a rare label does not decide for the others."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cm2.errors import ConfigError
from cm2.fuse.evaluation.contenders import judged
from cm2.fuse.evaluation.facts import patterns
from cm2.fuse.evaluation.looks import Looks, from_validation
from cm2.fuse.evaluation.shown import shown
from cm2.fuse.evaluation.targets import summarise


def long(y: np.ndarray, p: np.ndarray, pattern: list[str] | None = None) -> pa.Table:
    """Predictions in the long form from ``(n, C)``; a label of -1 is unknown."""
    n, C = y.shape
    stays = np.repeat(np.arange(n), C)
    labels = [None if value < 0 else int(value) for value in y.ravel()]
    return pa.table(
        {
            "stay_id": stays,
            "subject_id": stays,
            "target": [f"t{c}" for c in range(C)] * n,
            "task": ["ph"] * (n * C),
            "y": pa.array(labels, pa.int8()),
            "p": p.ravel(),
            "pattern": np.repeat(pattern or ["ehr"] * n, C),
        }
    )


def drawn(n: int, C: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    risk = random.normal(size=(n, C))
    y = (risk + random.normal(size=(n, C)) > 0).astype(int)
    return y, 1 / (1 + np.exp(-risk))


def test_a_pattern_of_one_stay_is_pooled_however_many_labels_it_has() -> None:
    y, p = drawn(60, 25)
    names = ["ehr+cxr"] * 40 + ["ehr"] * 19 + ["cxr"]
    found = patterns(long(y, p, names), ["ehr", "cxr"], 5)
    assert [(row["n"], row["pooled"]) for row in found] == [(41, 2), (19, 0)]
    assert all(row["positives"] in (None, row["n"]) for row in found)  # any of 25 labels


def test_stays_without_a_known_label_are_in_no_pattern() -> None:
    y, p = drawn(40, 3)
    y[30:] = -1
    (row,) = patterns(long(y, p), ["ehr"], 5)
    assert row["n"] == 30


@pytest.mark.parametrize("unit", ["patient", "stay"])
def test_labels_of_a_stay_that_agree_make_no_interval_narrower(unit: str) -> None:
    y, p = drawn(200, 1)
    one = summarise(long(y, p), replicates=300, unit=unit)
    many = summarise(long(np.repeat(y, 20, 1), np.repeat(p, 20, 1)), replicates=300, unit=unit)
    width = one["auroc"]["high"] - one["auroc"]["low"]
    for found in (many, many["micro"]):
        assert found["auroc"]["high"] - found["auroc"]["low"] == pytest.approx(width, rel=0.15)
    assert many["micro"]["bootstrap"]["unit"] == many["bootstrap"]["unit"] == unit


def test_rare_labels_do_not_void_the_interval_of_the_mean() -> None:
    random = np.random.default_rng(0)
    y = np.zeros((300, 12))
    for c in range(12):
        y[random.choice(300, 2, replace=False), c] = 1
    found = judged(y, [random.random((300, 12))], np.arange(300), replicates=200)["auroc"]
    assert np.isfinite(found.replicates).mean() > 0.9


def test_resamples_that_define_fewer_than_half_of_the_labels_are_undefined() -> None:
    y = np.zeros((300, 3))
    y[0, 0] = y[1, 1] = 1  # each is in a resample with a chance of about .63
    y[:150, 2] = 1
    found = judged(y, [np.random.default_rng(0).random((300, 3))], None, replicates=400)["auroc"]
    assert np.isnan(found.replicates).mean() == pytest.approx(0.37**2, abs=0.05)


@pytest.mark.parametrize("label", [-1, 0])
def test_a_label_that_validation_says_nothing_about_is_left_as_it_is(label: int) -> None:
    y, p = drawn(200, 2)
    seen = y.copy()
    seen[:, 1] = label
    run: Any = SimpleNamespace(predictions=lambda split: long(seen, p**2))
    table = long(y, p)
    found = from_validation(run, table, Looks(threshold="youden", recalibrate="platt"), 20, "stay")
    points = found["threshold"]["targets"]
    assert points["t0"]["threshold"] is not None
    assert points["t1"]["threshold"] is None
    assert "one class or none" in points["t1"]["reason"]
    assert found["recalibrated"]["uncorrected"] == ["t1"]
    before, after = summarise(table, replicates=0)["targets"], found["recalibrated"]["targets"]
    assert after["t1"]["brier"]["value"] == before["t1"]["brier"]["value"]
    assert after["t0"]["brier"]["value"] != before["t0"]["brier"]["value"]
    told = dict(shown({"split": "test", "task": "ph", **summarise(table, replicates=0), **found}))
    alarms = next(text for title, text in told.items() if title.startswith("alarms"))
    assert "t1      –" in alarms


def test_a_threshold_given_as_a_number_needs_no_validation() -> None:
    y, p = drawn(50, 2)
    run: Any = SimpleNamespace(predictions=lambda split: long(np.full_like(y, -1), p))
    found = from_validation(run, long(y, p), Looks(threshold="p=0.3"), 20, "stay")
    assert [one["threshold"] for one in found["threshold"]["targets"].values()] == [0.3, 0.3]


@pytest.mark.parametrize("looks", [Looks(threshold="youden"), Looks(recalibrate="isotonic")])
def test_validation_that_says_nothing_about_any_label_is_an_error(looks: Looks) -> None:
    y, p = drawn(50, 2)
    run: Any = SimpleNamespace(predictions=lambda split: long(np.full_like(y, -1), p))
    with pytest.raises(ConfigError):
        from_validation(run, long(y, p), looks, 20, "stay")
