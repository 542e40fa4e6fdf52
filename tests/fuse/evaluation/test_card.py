from __future__ import annotations

from cm2.fuse.evaluation.card import model_card
from cm2.fuse.rundir import RunDir

from .conftest import FIRST_STAY, FIRST_SUBJECT, MakeRun


def card_of(make_run: MakeRun, **options: object) -> tuple[RunDir, str]:
    run = make_run(**options)
    return run, model_card(run, None)


def test_the_card_prints_the_metrics_of_the_run_with_their_intervals(make_run: MakeRun) -> None:
    run, card = card_of(make_run)
    metrics = run.metrics("test")
    assert metrics is not None
    for name, key in (("AUROC", "auroc"), ("Brier score", "brier")):
        assert f"| {name} | {metrics[key]['value']:.3f} |" in card
    assert f"n = {metrics['n']}, {metrics['positives']} events" in card
    assert "looked at 1 time with this run" in card


def test_the_card_names_what_was_changed_what_is_frozen_and_what_it_is_not_for(
    make_run: MakeRun,
) -> None:
    card = card_of(make_run, K=5)[1]
    assert "`K = 5`" in card
    assert "`copula = " not in card
    assert "`options = " not in card
    assert "impute = zero" in card
    assert "| Chest film | resnet34 | none | frozen | 50 of 120 |" in card
    assert "no medical device" in card


def test_the_card_of_a_run_that_saw_no_test_stay_says_that_validation_chose(
    make_run: MakeRun,
) -> None:
    card = card_of(make_run, splits=("val",))[1]
    assert "Validation stays: n =" in card
    assert "chose the epoch" in card


def test_the_card_holds_no_stay_and_no_patient(make_run: MakeRun) -> None:
    card = card_of(make_run)[1]
    assert not any(str(FIRST_STAY + i) in card for i in range(120))
    assert not any(str(FIRST_SUBJECT + i) in card for i in range(102))
