"""The looks of a judgement as tables."""

from __future__ import annotations

import json
import logging
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cm2 import cli
from cm2.fuse.config import FuseConfig
from cm2.fuse.evaluation.shown import shown
from cm2.fuse.rundir import RunDir
from cm2.fuse.training.groups import fuse_group
from cm2.fuse.training.trainer import fuse

CacheMaker = Callable[..., Path]
TINY = {"model": "concat", "hidden": 8, "fusion_hidden": 8, "epochs": 2, "lr": 1e-2}


def main(arguments: list[str]) -> int:
    """Call the command line and return its exit code; leave the process as it was."""
    before, sys.argv = sys.argv, ["cm2", *arguments]
    log = logging.getLogger("cm2")
    state = log.level, log.propagate, list(log.handlers)
    signals = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    finally:
        sys.argv = before
        log.setLevel(state[0])
        log.propagate = state[1]
        log.handlers[:] = state[2]
        for number, handler in signals.items():
            signal.signal(number, handler)
    return 0


@pytest.fixture(scope="module")
def cache(make_cache: CacheMaker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_cache(tmp_path_factory.mktemp("shown") / "cache", labels=("aki", "mi"))


def test_every_look_is_a_table(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = fuse(FuseConfig.of({**TINY, "task": "ihm"}), cache)
    options = ["--by", "sex,age:50", "--drop", "cxr", "--recalibrate", "platt"]
    options += ["--threshold", "youden", "--bootstrap", "20", "--cache", str(cache)]
    assert main(["-q", "evaluate", str(run.path), *options]) == 0
    out = capsys.readouterr().out
    for title in (
        "by what is there",
        "by sex",
        "by age",
        "a modality withheld from the stays",
        "a modality withheld from a share",
        "alarms at the threshold fixed on validation (youden)",
        "probabilities corrected on validation",
    ):
        assert f"concat (ehr+cxr+report): {title}" in out
    assert "age >= 50" in out
    assert "* fewer than 10 events" in out


def test_a_group_of_one_stay_and_a_drop_of_none_show_no_numbers() -> None:
    spot = {"value": 0.123, "low": None, "high": None}
    figures = dict.fromkeys(("auroc", "aupr", "brier", "ece"), spot)
    change = {"difference": 0.0, "difference_low": 0.0, "difference_high": 0.0, "p": 1.0}
    reason = "no stay has it beside another one"
    metrics: dict[str, Any] = {
        "split": "test",
        "by_group": {
            "sex": {
                "F": {"n": 40, "positives": 15, **figures},
                "M": {"n": 1, "positives": 0, **figures},
            }
        },
        "missingness": [{"modality": "cxr", "share": 0.5, "withheld": 0, "reason": reason}],
    }
    apart = {"mean_change": 0.1, "mean_absolute_change": 0.123, "auroc": {**spot, **change}}
    metrics["without"] = [{"modality": "cxr", "n": 4, "positives": 2, **apart}]
    groups, without, curve = (text for _, text in shown(metrics))
    assert "0.123" not in without
    assert "empty: fewer than 5 stays" in without
    assert groups.count("0.123") == 4
    assert "empty: fewer than 5 stays" in groups
    assert reason in curve


def test_labels_and_groups_are_shown_and_compared(
    cache: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    group = fuse_group(FuseConfig.of({**TINY, "task": "ph"}), cache, (0, 1))
    single = group.members[0]
    common = ["--bootstrap", "20"]
    paths = [str(group.path), str(single.path)]
    assert main(["-q", "evaluate", *paths, *common, "--cache", str(cache)]) == 0
    out = capsys.readouterr().out
    assert "x 2 seeds" in out
    assert "by label" in out
    assert "all pairs" in out
    for name in ("p.csv", "p.CSV"):
        file = tmp_path / name
        assert main(["-q", "predict", paths[1], "--out", str(file), "--cache", str(cache)]) == 0
        assert main(["-q", "compare", *paths, *common, "--predictions", str(file)]) == 0
        rows = capsys.readouterr().out
        # what another program says about the same stays is the same run once more
        assert "+0.000 [+0.000, +0.000]" in rows


def test_what_is_asked_of_a_group_is_shown_of_each_of_its_runs(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    group = fuse_group(FuseConfig.of({**TINY, "task": "ihm"}), cache, (0, 1))
    command = ["-q", "evaluate", str(group.path), "--bootstrap", "20"]
    assert main(command) == 0
    assert "seed 1" not in capsys.readouterr().out
    assert main([*command, "--threshold", "youden"]) == 0
    out = capsys.readouterr().out
    for seed in (0, 1):
        assert f"x 2 seeds, seed {seed}: alarms at the threshold" in out
    assert main([*command, "--threshold", "youden", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out).values()
    assert [(one["seed"], one["threshold"]["rule"]) for one in found["members"]] == [
        (0, "youden"),
        (1, "youden"),
    ]


def test_a_run_behind_a_link_lies_in_the_cache_that_its_path_names(
    cache: Path,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = fuse(FuseConfig.of({**TINY, "task": "ihm"}), cache)
    away = tmp_path / "large disk"
    shutil.copytree(run.path, away / run.path.name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CM2_CACHE", raising=False)
    command = ["evaluate", "--bootstrap", "20"]
    assert main([*command, f"large disk/{run.path.name}"]) == 2
    assert "lies in no cache: name the one to read with --cache" in capsys.readouterr().err
    (cache / "linked").symlink_to(away)
    assert main([*command, str(cache / "linked" / run.path.name)]) == 0
    capsys.readouterr()
    assert main([*command, f"large disk/{run.path.name}", "--cache", str(cache)]) == 0
    next_one = f"next: cm2 report 'large disk/{run.path.name}' --cache"
    assert next_one in capsys.readouterr().err


def test_the_report_of_a_cross_validation_is_that_of_its_first_fold(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = FuseConfig.of({**TINY, "task": "ihm", "folds": 3})
    group = fuse_group(config, cache, (0, 1), every_fold=True)
    assert main(["report", str(group.path)]) == 0
    shown = capsys.readouterr()
    page = (group.members[0].path / "report.html").read_text()
    assert shown.out.strip() == str(group.members[0].path / "report.html")
    assert "reported: seed 0, fold 0" in shown.err
    assert "seed 1" in page


def test_a_run_is_judged_on_the_cache_that_it_lies_in(
    cache: Path,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = fuse(FuseConfig.of({**TINY, "task": "ihm"}), cache)
    monkeypatch.setenv("CM2_CACHE", str(tmp_path))  # is asked about runs outside of caches alone
    monkeypatch.chdir(cache / "runs")
    assert main(["-q", "evaluate", run.path.name, "--bootstrap", "20"]) == 0
    assert main(["-q", "predict", run.path.name, "--out", str(tmp_path / "p.csv")]) == 0
    assert "external" not in capsys.readouterr().out
    assert main(["-q", "evaluate", run.path.name, "--cache", str(tmp_path)]) == 3


def test_predictions_from_outside_are_checked(
    cache: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run = fuse(FuseConfig.of({**TINY, "task": "ihm"}), cache)
    main(["-q", "evaluate", str(run.path), "--bootstrap", "20", "--cache", str(cache)])
    file = tmp_path / "p.csv"
    for text, words in (
        ("stay,p\n1,0.5\n", "expected the columns stay_id and p"),
        ("stay_id,p\n1,1.5\n", "found 1.5 in row 1"),
        ("stay_id,p\n1,0.5\n", "share no judged test stay"),
        ("stay_id,p\n30000007,0.5\n30000007,0.5\n", "predicts a stay twice"),
    ):
        file.write_text(text)
        assert main(["-q", "compare", str(run.path), "--predictions", str(file)]) == 3
        assert words in capsys.readouterr().err


def test_test_stays_are_looked_at_only_under_final_and_once(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["-q", "fuse", "--cache", str(cache), "--task", "ihm", "--model", "concat", "--json"]
    command += ["--hidden", "8", "--fusion-hidden", "8", "--epochs", "1", "--seed", "11"]
    looks = []
    for options in ([], ["--final"], ["--final"]):
        assert main([*command, *options]) == 0
        shown = json.loads(capsys.readouterr().out)
        looks.append(RunDir(Path(shown["run"])).info["looks"].get("test", 0))
        assert ("test" in shown) == bool(options)
    assert looks == [0, 1, 1]


def test_a_seed_list_on_the_command_line_trains_a_group(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["-q", "fuse", "--cache", str(cache), "--task", "ihm", "--model", "concat"]
    small = ["--hidden", "8", "--fusion-hidden", "8", "--epochs", "1"]
    assert main([*command, *small, "--seeds", "0:1"]) == 0
    out = capsys.readouterr().out
    assert "over 2 seeds" in out
    assert main([*command, *small, "--folds", "3"]) == 0
    assert "Folds are pooled" in capsys.readouterr().out
    assert main([*command, *small, "--seeds", "0:1", "--dry-run"]) == 0
    assert capsys.readouterr().out.count('"status": "finished"') == 2
