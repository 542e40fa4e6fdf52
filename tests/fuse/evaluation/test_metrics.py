"""The summary of one model: complete, honest about what is undefined, ready for JSON."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from cm2.errors import ConfigError, DataError
from cm2.fuse.evaluation.bootstrap import bootstrap
from cm2.fuse.evaluation.metrics import METRICS, POINTS, summary


def sample(n: int = 200) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    y = (rng.random(n) < 0.25).astype(int)
    return y, np.clip(0.3 * y + rng.random(n) * 0.6, 0, 1), rng.integers(0, n // 4, n)


def strict(value: Any) -> str:
    return json.dumps(value, allow_nan=False)


def test_values_lie_beside_the_percentiles_of_their_replicates() -> None:
    y, p, patients = sample()
    found = summary(y, p, patients, replicates=200, seed=5)
    drawn = bootstrap(y, [p], patients, replicates=200, seed=5)[0].values
    assert (found["n"], found["positives"]) == (200, int(y.sum()))
    assert found["bootstrap"] == {
        "replicates": 200, "unit": "patient", "seed": 5, "degenerate": 0,
    }  # fmt: skip
    for name in METRICS:
        low, high = np.quantile(drawn[name], [0.025, 0.975])
        assert found[name] == {"value": POINTS[name](y, p), "low": low, "high": high}


def test_resampling_patients_widens_the_interval_when_their_stays_repeat() -> None:
    y, p, _ = sample(60)
    patients = np.tile(np.arange(60), 5)
    found = [
        summary(np.tile(y, 5), np.tile(p, 5), patients, unit=unit) for unit in ("patient", "stay")
    ]
    by_patient, by_stay = (one["auroc"]["high"] - one["auroc"]["low"] for one in found)
    assert by_patient > 1.5 * by_stay


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_gives_null_with_a_reason_and_never_nan(label: int) -> None:
    found = summary([label] * 5, [0.1, 0.4, 0.2, 0.9, 0.5], unit="stay")
    for name in ("auroc", "aupr"):
        assert found[name] == {
            "value": None, "low": None, "high": None, "reason": "only one class is present",
        }  # fmt: skip
    assert found["brier"]["low"] is not None
    assert found["calibration"] == {"slope": None, "intercept": None}
    strict(found)


def test_mostly_degenerate_resamples_give_no_interval_but_a_reason() -> None:
    found = summary([1, 0], [0.8, 0.3], unit="stay", replicates=1000)
    assert found["auroc"]["value"] == 1
    assert found["bootstrap"]["degenerate"] == pytest.approx(500, abs=60)
    found = summary([1, 0, 0, 0], [0.8, 0.3, 0.2, 0.1], np.array([1, 2, 2, 2]), replicates=300)
    degenerate = found["bootstrap"]["degenerate"]
    assert (found["auroc"]["low"] is None) == (degenerate > 150)
    assert ("reason" in found["auroc"]) == (degenerate > 150)
    strict(found)


def test_no_replicates_give_values_without_intervals() -> None:
    y, p, patients = sample()
    found = summary(y, p, patients, replicates=0)
    assert found["auroc"]["value"] is not None
    assert found["auroc"]["low"] is None
    assert found["auroc"]["reason"] == "no resamples were asked for"


def test_an_unknown_unit_and_missing_patients_are_refused() -> None:
    with pytest.raises(ConfigError, match="'patient' or by 'stay'"):
        summary([0, 1], [0.1, 0.2], [1, 2], unit="hospital")
    with pytest.raises(DataError, match="needs the patient"):
        summary([0, 1], [0.1, 0.2])
