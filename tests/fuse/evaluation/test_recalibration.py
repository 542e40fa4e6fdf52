"""Corrections fitted to validation stays."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from cm2.errors import ConfigError
from cm2.fuse.evaluation.calibration import calibration_fit
from cm2.fuse.evaluation.recalibration import recalibration

RANDOM = np.random.default_rng(0)
RISK = RANDOM.normal(-1.5, 1, 2000)
Y = (RANDOM.random(2000) < expit(RISK)).astype(int)
WRONG = expit(2.0 * RISK + 1.5)  # too sure, and too high


def test_platt_scaling_equals_scikit_learn_and_restores_calibration() -> None:
    corrected = recalibration("platt", Y, WRONG)(WRONG)
    model = LogisticRegression(C=np.inf, tol=1e-10).fit(logit(WRONG)[:, None], Y)
    np.testing.assert_allclose(corrected, model.predict_proba(logit(WRONG)[:, None])[:, 1], 1e-4)
    fit = calibration_fit(Y, corrected)
    assert fit.slope == pytest.approx(1, abs=1e-6)
    assert fit.intercept == pytest.approx(0, abs=1e-6)


def test_isotonic_correction_rises_and_matches_frequencies() -> None:
    correct = recalibration("isotonic", Y, WRONG)
    grid = correct(np.linspace(0, 1, 200))
    assert (np.diff(grid) >= 0).all()
    assert correct(WRONG).mean() == pytest.approx(Y.mean())


def test_none_changes_nothing_and_other_names_are_refused() -> None:
    np.testing.assert_array_equal(recalibration("none", Y, WRONG)(WRONG), WRONG)
    with pytest.raises(ConfigError, match="Did you mean 'platt'"):
        recalibration("plat", Y, WRONG)


def test_separated_validation_stays_are_refused() -> None:
    with pytest.raises(ConfigError, match="isotonic, or none"):
        recalibration("platt", [0, 0, 1], [0.1, 0.2, 0.9])
