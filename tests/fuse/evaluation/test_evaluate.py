"""Judging a run: files, looks at the test stays, plain words about few events."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from cm2.errors import ConfigError, DataError
from cm2.fuse.config import FuseConfig
from cm2.fuse.evaluation.evaluate import evaluate, judge, notes
from cm2.fuse.evaluation.looks import Looks
from cm2.fuse.evaluation.metrics import summary
from cm2.fuse.inference import predict
from cm2.fuse.rundir import INFO, RunDir
from cm2.fuse.training.groups import fuse_group
from cm2.fuse.training.trainer import fuse

from .conftest import predictions


@pytest.fixture(scope="module")
def trained(small_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    options = {"model": "concat", "hidden": 8, "fusion_hidden": 8, "epochs": 2, "lr": 1e-2}
    out = tmp_path_factory.mktemp("evaluate") / "run"
    return fuse(FuseConfig.of(options), small_cache, out)


def test_a_judged_run_holds_predictions_and_metrics_in_the_documented_form(
    trained: RunDir, small_cache: Path
) -> None:
    found = evaluate(trained, small_cache, "test", replicates=100)
    assert trained.metrics("test") == found
    table = trained.predictions("test")
    assert table.equals(predict(trained, small_cache, "test"))
    promised = {"task", "n", "positives", "auroc", "aupr", "brier", "ece", "by_pattern", "seed"}
    assert promised < set(found)
    known = table.filter(table["y"].is_valid())
    expected = summary(
        known["y"].to_numpy(), known["p"].to_numpy(), known["subject_id"].to_numpy(), replicates=100
    )
    assert {key: found[key] for key in expected} == expected


def test_every_look_at_the_test_stays_is_counted_and_no_other(
    trained: RunDir, small_cache: Path
) -> None:
    before = trained.info["looks"].get("test", 0)
    for split in ("val", "test", "val", "test", "all"):
        evaluate(trained, small_cache, split, replicates=0)
    assert trained.info["looks"] == {"test": before + 2, "all": 1}


def test_a_group_with_a_run_that_is_not_finished_has_none_of_its_runs_judged(
    small_cache: Path, tmp_path: Path
) -> None:
    options = {"model": "concat", "hidden": 8, "fusion_hidden": 8, "epochs": 1}
    group = fuse_group(FuseConfig.of(options), small_cache, (0, 1), out=tmp_path / "group")
    first, second = group.members
    (second.path / INFO).unlink()
    with pytest.raises(ConfigError, match="is not finished"):
        evaluate(group, small_cache, "test", replicates=0)
    assert "test" not in first.info["looks"]
    assert first.metrics("test") is None


@pytest.mark.parametrize(
    ("looks", "words"),
    [
        (Looks(by=("age:65/40",)), "rising numbers"),
        (Looks(by=("ages",)), "--by: Unknown column 'ages'"),
        (Looks(drop=("ehr=2",)), "--drop: expected NAME=SHARE"),
        (Looks(drop=("ecg=0.5",)), "--drop: Unknown modality 'ecg'"),
        (Looks(threshold="youdn"), "--threshold is one of"),
        (Looks(recalibrate="plat"), "Did you mean 'platt'"),
    ],
)
def test_a_look_that_cannot_be_meant_is_refused_before_the_run_is_loaded(
    trained: RunDir,
    small_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    looks: Looks,
    words: str,
) -> None:
    monkeypatch.setattr("cm2.fuse.inference.prepare", lambda *_: pytest.fail("loaded"))
    with pytest.raises(ConfigError, match=words):
        evaluate(trained, small_cache, looks=looks)


def test_patterns_are_judged_one_by_one() -> None:
    table = predictions()
    found = judge(table, replicates=20, unit="stay", seed=0, split="test")["by_pattern"]
    assert sum(part["n"] for part in found.values()) == table.num_rows
    own = table.filter(pa.compute.equal(table["pattern"], "ehr"))
    assert found["ehr"]["auroc"] == summary(own["y"].to_numpy(), own["p"].to_numpy(), unit="stay",
        replicates=20)["auroc"]  # fmt: skip


def test_stays_without_a_known_target_are_left_out_and_none_at_all_is_an_error() -> None:
    table = predictions()
    unknown = pa.array([None] * 20 + table["y"].to_pylist()[20:], pa.int8())
    at = table.column_names.index("y")
    table = table.set_column(at, "y", unknown)
    assert judge(table, replicates=0, unit="patient", seed=0, split="test")["n"] == 100
    with pytest.raises(DataError, match="None of the 20 test stays has a known target"):
        judge(table.slice(0, 20), replicates=0, unit="patient", seed=0, split="test")


@pytest.mark.parametrize(
    ("positives", "n", "words"),
    [
        (3, 60, "Only 3 events among 60 stays: these numbers prove nothing"),
        (55, 60, "Only 5 stays without an event among 60 stays"),
        (40, 400, "read the intervals"),
        (100, 400, None),
    ],
)
def test_few_events_are_said_in_plain_words(positives: int, n: int, words: str | None) -> None:
    y = np.arange(n) < positives
    said = notes({"ihm": y.astype(int)}, ["test"] * n)
    assert [words in line for line in said if words] == ([True] if words else [])
    assert len(said) == (words is not None)


def test_of_several_labels_the_one_with_the_rarest_class_is_noted_and_stays_are_counted_once() -> (
    None
):
    stays = np.arange(400)
    targets = {"common": (stays < 200).astype(int), "rare": (stays < 7).astype(int)}
    said = notes(targets, ["train"] * 400)
    assert "Only 7 events of 'rare' among 400 stays: these numbers prove nothing" in said[0]
    assert said[1].startswith("400 of the 400 stays are of the training split")


def test_notes_are_logged_and_training_stays_named(
    trained: RunDir, small_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="cm2.fuse.evaluation"):
        evaluate(trained, small_cache, "all", replicates=0)
    assert "read the intervals" in caplog.text
    assert "stays are of the training split" in caplog.text


@pytest.mark.parametrize(
    ("split", "looks", "words"),
    [
        ("val", Looks(recalibrate="isotonic"), "on which the correction had"),
        ("all", Looks(threshold="youden"), "on which the threshold had"),
        ("val", Looks(threshold="youden", recalibrate="isotonic"), "the threshold and the corr"),
        ("test", Looks(threshold="youden", recalibrate="isotonic"), ""),
        ("val", Looks(threshold="p=0.3"), ""),
    ],
)
def test_stays_judged_by_what_was_fixed_on_themselves_are_named(
    trained: RunDir, small_cache: Path, split: str, looks: Looks, words: str
) -> None:
    found = evaluate(trained, small_cache, split, looks=looks, replicates=0)
    said = [note for note in found["notes"] if "fixed" in note]
    assert len(said) == bool(words)
    own = trained.predictions("val")["y"].is_valid().to_pylist().count(True)
    assert all(words in note and note.startswith(f"{own} of the {found['n']}") for note in said)
