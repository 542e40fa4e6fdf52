"""What chance explains of the lead of the best, and what one option was worth."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cm2.fuse.sweep.effects import main_effects
from cm2.fuse.sweep.index import Standing, ranking
from cm2.fuse.sweep.reading import _bootstrap_noise
from cm2.fuse.sweep.selection import expected_maximum, gain_by_chance, noise_of_means


def test_the_expected_maximum_is_that_of_the_tables() -> None:
    assert expected_maximum(1) == pytest.approx(0, abs=1e-9)
    assert expected_maximum(2) == pytest.approx(1 / math.sqrt(math.pi), rel=1e-8)
    assert expected_maximum(3) == pytest.approx(1.5 / math.sqrt(math.pi), rel=1e-8)
    assert expected_maximum(10) == pytest.approx(1.538753, abs=1e-6)
    with pytest.raises(ValueError, match="one number or more"):
        expected_maximum(0)


def test_equal_settings_lead_by_what_chance_gives_whatever_their_seeds_share() -> None:
    random = np.random.default_rng(0)
    settings, seeds, sd = 30, 4, 0.01
    leads, chances = [], []
    for _ in range(100):
        luck = random.normal(0, 0.05, seeds)  # of a seed: the same for all settings
        table = 0.8 + luck + random.normal(0, sd, (settings, seeds))
        standings = [
            Standing(i, float(row.mean()), tuple(row), True) for i, row in enumerate(table)
        ]
        noise = noise_of_means(standings)
        assert noise is not None
        leads.append(table.mean(1).max() - table.mean())
        chances.append(gain_by_chance(settings, noise))
    assert np.mean(chances) == pytest.approx(np.mean(leads), rel=0.08)
    assert np.mean(chances) == pytest.approx(expected_maximum(settings) * sd / 2, rel=0.05)


def test_without_seeds_no_noise_is_made_up() -> None:
    assert noise_of_means([Standing(0, 0.8, (0.8,), True), Standing(1, 0.7, (0.7,), True)]) is None
    assert noise_of_means([Standing(0, 0.8, (0.8, 0.7), True)]) is None


def test_a_perfect_validation_is_no_proof_that_there_is_no_noise() -> None:
    def run(value: float, low: float, high: float) -> SimpleNamespace:
        found = {"auroc": {"value": value, "low": low, "high": high}}
        return SimpleNamespace(run=SimpleNamespace(metrics=lambda _: found))

    runs = {0: [run(1.0, 1.0, 1.0)], 1: [run(0.8, 0.604, 0.996)]}
    sweep: Any = SimpleNamespace(roll=lambda: SimpleNamespace(of=runs.__getitem__))
    complete = [Standing(0, 1.0, (1.0,), True), Standing(1, 0.8, (0.8,), True)]
    assert _bootstrap_noise(sweep, complete) == pytest.approx(0.1)
    assert _bootstrap_noise(sweep, complete[:1]) is None


def row(setting: int, seed: int, auroc: float | None, **values: object) -> dict[str, object]:
    base = {"setting": setting, "seed": seed, "status": "finished", "val_auroc": auroc}
    return {**base, "val_loss": 0.5, **values}


def test_an_effect_is_the_mean_over_the_others_and_its_interval_is_over_seeds() -> None:
    rows = []
    for k in (1, 2):
        for i, copula in enumerate(("frank", "gumbel", "independence")):
            for seed in range(4):
                inert = copula == "independence"
                worth = 0.7 + 0.02 * k + 0.01 * i + 0.05 * seed + 0.001 * (-1) ** seed * k
                rows.append(
                    row(3 * k + i, seed, worth, K=k, copula=copula, lam=None if inert else 0.1)
                )
    found = {(r["option"], r["value"]): r for r in main_effects(rows, ["K", "copula", "lam"])}
    assert found["K", "2"]["difference"] == pytest.approx(0.01)
    assert found["K", "1"]["difference"] == pytest.approx(-0.01)
    assert found["copula", "gumbel"]["difference"] == pytest.approx(0, abs=1e-12)
    # what seeds share cancels: only the tiny alternating part is left
    assert found["K", "2"]["high"] - found["K", "2"]["low"] < 0.005
    assert found["copula", "gumbel"]["high"] == pytest.approx(0, abs=1e-12)
    assert found["lam", "0.1"]["settings"] == 4
    assert ("lam", "–") not in found


def test_a_setting_with_a_failed_run_has_no_rank_and_an_unfinished_one_is_not_complete() -> None:
    rows = [row(0, 0, 0.9), row(0, 1, 0.9), row(1, 0, 0.8), row(1, 1, 0.8), row(2, 0, 0.7)]
    rows[1]["status"] = "failed"
    rows.append({**row(2, 1, 0.7), "status": "running"})
    assert [(one.setting, one.complete) for one in ranking(rows)] == [(1, True), (2, False)]


def test_without_an_area_the_loss_decides() -> None:
    rows = [{**row(0, 0, None), "val_loss": 0.4}, {**row(1, 0, None), "val_loss": 0.3}]
    assert [one.setting for one in ranking(rows)] == [1, 0]
