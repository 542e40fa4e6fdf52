"""Fit, course, seeds and draws of a copula: numbers from known inputs, figures in their place."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from cm2.cache import atomic
from cm2.fuse.config import FuseConfig
from cm2.fuse.evaluation.evaluate import evaluate
from cm2.fuse.evaluation.plots_copula import pair_density
from cm2.fuse.evaluation.plots_fit import chosen_epochs, imputed, parameters_at
from cm2.fuse.evaluation.plots_judgement import missingness
from cm2.fuse.evaluation.report import content, render
from cm2.fuse.evaluation.understanding import kendall, over_seeds, siblings
from cm2.fuse.rundir import LEARNED, RunDir
from cm2.fuse.training.trainer import fuse

from .conftest import MODALITIES, MakeRun, learned

QUICK: dict[str, Any] = {"epochs": 3, "hidden": 8, "fusion_hidden": 8, "copula_dim": 4, "K": 2}


@pytest.fixture(scope="module")
def drawn(small_cache: Path) -> tuple[RunDir, dict[str, Any]]:
    """A trained run that draws what is missing, judged with a modality withheld."""
    from cm2.fuse.evaluation.looks import Looks

    run = fuse(FuseConfig.of({**QUICK, "impute": "marginal"}), small_cache)
    looks = Looks(drop=("cxr",))
    return run, evaluate(run, small_cache, "test", looks=looks, replicates=50)


def test_kendalls_tau_over_seeds_has_the_interval_of_student(make_run: MakeRun) -> None:
    taus = (0.1, 0.3, 0.26)
    runs = []
    for seed, tau in enumerate(taus):
        run = make_run(f"run{seed}", seed=seed)
        atomic.write_json(run.path / LEARNED, {**learned(), "kendall_tau": tau})
        runs.append(run)
    rows = over_seeds(runs)
    assert [row["pair"] for row in rows] == ["ehr and cxr", "ehr and report", "cxr and report"]
    low, high = stats.t.interval(0.95, 2, np.mean(taus), stats.sem(taus))
    assert (rows[0]["low"], rows[0]["high"]) == pytest.approx((low, high))
    assert over_seeds(runs[:1]) == []


def test_the_tau_of_a_pair_is_its_entry_averaged_over_coordinates() -> None:
    matrix = [[[1, 0.2, 0.4], [0.2, 1, 0.6], [0.4, 0.6, 1]], [[1, 0.4, 0], [0.4, 1, 0], [0, 0, 1]]]
    found = kendall({"modalities": list(MODALITIES), "kendall_tau": matrix})
    assert list(found.values()) == pytest.approx([0.3, 0.2, 0.3])


def test_only_runs_that_differ_in_their_seed_alone_are_siblings(make_run: MakeRun) -> None:
    run, twin, other = make_run("a"), make_run("b", seed=1), make_run("c", seed=2, K=2)
    assert [found.path for found in siblings(run, [twin, other])] == [twin.path]


@pytest.mark.parametrize("family", ["frank", "gaussian", "student"])
def test_the_density_of_an_epoch_is_that_of_its_parameters(family: str) -> None:
    row = {"epoch": 4, "copula_theta": 2.5, "kendall_tau": 0.26}
    learned_: dict[str, Any] = {"theta": 2.5}
    if family != "frank":
        row = {"copula_correlation_a_b": 0.5, "copula_correlation_a_c": 0.1, "copula_nu": 6.0}
        learned_ = {"correlation": [[1, 0.5, 0.1], [0.5, 1, 0.3], [0.1, 0.3, 1]], "nu": 6.0}
    if family == "gaussian":
        row.pop("copula_nu"), learned_.pop("nu")
    grid = np.array([0.2, 0.5, 0.9])
    own = pair_density(family, parameters_at(row, ("a", "b")), 2, (0, 1), grid)
    np.testing.assert_allclose(own, pair_density(family, learned_, 3, (0, 1), grid), rtol=1e-9)


def test_the_epochs_shown_begin_where_the_copula_does() -> None:
    history = [{"epoch": 1}] + [{"epoch": e, "copula_theta": 0.1 * e} for e in range(2, 9)]
    assert [row["epoch"] for row in chosen_epochs(history)] == [2, 5, 8]
    assert chosen_epochs(history[:1]) == []


def test_a_run_records_the_dependence_of_every_epoch_and_how_well_it_fits(
    drawn: tuple[RunDir, dict[str, Any]],
) -> None:
    run, _ = drawn
    facts = run.learned
    assert facts is not None
    assert run.history[-1]["copula_theta"] > 0
    assert set(facts["held_out"]) >= {"independence", "frank", "gaussian"}
    assert facts["held_out"]["independence"] == 0
    assert set(facts["validation_ks_bound"]) == set(facts["validation_ks"])
    assert all(len(values) == 4 for values in facts["validation_ks"].values())
    assert set(facts["held_out_by_K"]) == set(facts["modalities"])
    for found in facts["held_out_by_K"].values():
        assert list(found["sizes"]) == [str(K) for K in range(1, 7)]
        assert found["sizes"][str(run.config.K)]["difference"] == 0


def test_draws_move_the_predictions_of_stays_that_lack_a_modality(
    drawn: tuple[RunDir, dict[str, Any]],
) -> None:
    run, metrics = drawn
    patterns = run.predictions("test")["pattern"].to_pylist()
    for row in metrics["imputed"]:
        lacking = sum(row["modality"] not in pattern.split("+") for pattern in patterns)
        assert row["n"] == lacking == sum(row["means"])
        assert sum(row["every_draw"]) == lacking * row["draws"]
        assert row["within"]["q90"] >= row["within"]["median"] > 0


def test_without_draws_nothing_is_said_about_them(small_cache: Path) -> None:
    run = fuse(FuseConfig.of({**QUICK, "epochs": 1}), small_cache)
    assert evaluate(run, small_cache, "test", replicates=20)["imputed"] == []


def test_the_report_draws_fit_course_draws_and_consequences(
    drawn: tuple[RunDir, dict[str, Any]], small_cache: Path
) -> None:
    run, _ = drawn
    page = content(run, small_cache, ())
    text = render(page)
    for name in (
        "uniformity",
        "families",
        "sizes",
        "epochs",
        "decision",
        "missingness",
        "imputed-cxr",
    ):
        assert f'id="{name}-' in text, name
    assert "Kendall’s τ over seeds" not in text
    for name, found in (run.learned or {})["held_out_by_K"].items():
        best = max(found["sizes"], key=lambda K: found["sizes"][K]["value"])
        assert f"K = {best} (n {found['n']})" in text, name


def test_a_run_of_an_earlier_version_shows_what_it_has(make_run: MakeRun) -> None:
    run = make_run()
    text = render(content(run, None, ()))
    assert "Are the margins right?" not in text
    assert "Decision curve" not in text
    assert "What the copula learned" in text


def test_a_missingness_curve_of_one_class_is_empty() -> None:
    none = {"value": None, "low": None, "high": None}
    row = {"modality": "cxr", "share": 0.5, "withheld": 3, "auroc": none, "aupr": none}
    assert "o-" not in re.findall(r">([^<>]+)</text>", missingness([row], row))


def test_where_the_draws_of_a_few_stays_lie_is_not_drawn() -> None:
    few: dict[str, Any] = {"modality": "cxr", "draws": 2}
    here = {**few, "means": [20, 8, 0, 2], "every_draw": [40, 16, 0, 4]}
    there = {**few, "means": [20, 9, 0, 1], "every_draw": [40, 18, 0, 2]}
    assert imputed(here) == imputed(there)
    assert imputed(here, 1) != imputed(there, 1)
