"""Trained and judged: the same stays, paired differences, resumed and never trained twice."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cm2.errors import DataError, Interrupted
from cm2.fuse.config import FuseConfig
from cm2.fuse.evaluation.compare import compare
from cm2.fuse.group import RunGroup
from cm2.fuse.reproduce import train as training
from cm2.fuse.reproduce.forecast import forecast, hours
from cm2.fuse.reproduce.run import plan, reproduce, write
from cm2.fuse.reproduce.show import AGAINST, Result, as_text, side_by_side
from cm2.fuse.rundir import RunDir
from cm2.fuse.sweep.axis import parse
from cm2.fuse.training.trainer import fuse
from cm2.progress import Stop

Asking = Callable[..., Any]
METHODS = ("mmtm", "cm2", "cm2-zero", "cm2+K=0")


@pytest.fixture(scope="module")
def done(iv: Path) -> Result:
    from cm2.fuse.reproduce.expand import Request

    options = {"epochs": 1, "hidden": 8, "fusion_hidden": 8, "copula_dim": 4, "K": 2}
    request = Request((iv,), tasks=("ihm",), methods=METHODS, options=options)
    return reproduce(plan("table3", request), request, (0, 1), replicates=200, jobs=1)


def row(result: Result, key: str, metric: str = "auroc") -> dict[str, Any]:
    return next(r for r in result.rows[0] if r["key"] == key and r["metric"] == metric)


def test_the_paper_stands_beside_ours_and_is_marked_as_another_experiment(done: Result) -> None:
    own = row(done, "mmtm")
    assert (own["paper"], own["paper_low"], own["paper_high"]) == (0.855, 0.840, 0.869)
    assert own["source"] == "table3"
    assert own["other_experiment"]
    assert row(done, "cm2-zero")["paper"] is None
    assert own["seeds"] == 2
    assert own["n"] > own["positives"] > 0


def test_values_and_differences_are_those_of_compare(done: Result) -> None:
    for baseline in ("CM2 (marginal draws)", "concat"):
        other = next(r for r in done.rows[0] if r["method"] == baseline)
        groups = [RunGroup.open(Path(r["group"])) for r in (row(done, "mmtm"), other)]
        for metric in ("auroc", "aupr"):
            own = row(done, "mmtm", metric)
            told = compare(groups[:1], groups[1], metrics=(metric,), replicates=200)[0]
            assert own["value"] == pytest.approx(told["value"], abs=1e-12)
            assert own[AGAINST + baseline]["difference"] == pytest.approx(
                told["difference"], abs=1e-12
            )
            assert own[AGAINST + baseline]["n"] == told["n"] == own["n"]


def test_a_line_with_fewer_stays_takes_none_from_the_others(done: Result) -> None:
    alone, other = row(done, "alone:ehr"), row(done, "mmtm")
    assert alone["n"] <= other["n"]
    assert other[AGAINST + "EHR alone"]["n"] == alone["n"]
    told = compare(
        [RunGroup.open(Path(other["group"]))],
        RunGroup.open(Path(alone["group"])),
        metrics=("auroc",),
        replicates=200,
    )[0]
    assert other[AGAINST + "EHR alone"]["difference"] == pytest.approx(told["difference"])


def test_holm_counts_every_comparison_with_one_baseline(done: Result) -> None:
    entries = [r[AGAINST + "concat"] for r in done.rows[0] if r[AGAINST + "concat"] is not None]
    assert {r["comparisons"] for r in done.rows[0]} == {len(entries)}
    smallest = min(entries, key=lambda entry: entry["p"])
    assert smallest["p_holm"] == pytest.approx(min(1, smallest["p"] * len(entries)))


def test_a_second_call_trains_nothing_and_looks_no_second_time(
    done: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cm2.fuse.training import trainer

    monkeypatch.setattr(trainer, "_train", None)
    again = reproduce(done.plan, done.request, (0, 1), replicates=200, jobs=1)
    assert again.rows == done.rows
    for found in done.rows[0]:
        for run in RunGroup.open(Path(found["group"])).members:
            assert run.info["looks"] == {"test": 1}


def test_a_forecast_counts_what_is_finished_and_writes_nothing(
    done: Result, iv: Path, asking: Asking
) -> None:
    before = sorted(iv.rglob("*"))
    told = forecast(done.plan, (0, 1))
    assert all(entry["finished"] == entry["runs"] == 2 for entry in told)
    assert hours(told) == 0
    fresh = plan("table3", asking(iv, methods=("daft",), options={"epochs": 50}))
    told = forecast(fresh, (0, 1, 2))
    assert all(entry["finished"] == 0 and entry["s/epoch"] > 0 for entry in told)
    expected = sum(entry["s/epoch"] * 50 * 3 for entry in told) / 3600
    assert hours(told) == pytest.approx(expected, rel=0.2, abs=2e-3)
    assert sorted(iv.rglob("*")) == before


def test_a_forecast_finds_weights_that_do_not_fit(iv: Path, asking: Asking, tmp_path: Path) -> None:
    alone = {"task": "ihm", "model": "single", "modalities": ("ehr",), "epochs": 1, "hidden": 6}
    start = fuse(FuseConfig.of(alone), iv, tmp_path / "start")
    options = {"init": (f"ehr={start.path}",)}
    told = forecast(plan("table3", asking(iv, methods=("mmtm",), options=options)), (0,))
    assert told
    for entry in told:
        assert "is 6 wide" in entry["cannot be trained"], entry


def test_validation_chooses_among_the_tries(iv: Path, asking: Asking) -> None:
    request = asking(iv, methods=("concat",), tune=(parse("lr=1e-6,3e-2"),), options={"epochs": 2})
    planned = plan("table2", request)
    lines = training.train(planned, (0,), jobs=1)[0]
    for line in lines:
        scores = [_val(config, iv) for config in line.entry.tries]
        assert line.config == line.entry.tries[scores.index(max(scores))]
        assert line.group is not None
        assert {run.config.lr for run in line.group.members} == {line.config.lr}


def _val(config: Any, cache: Path) -> float:
    from cm2.fuse.training.trainer import fuse

    metrics = fuse(config.model_copy(update={"seed": 0}), cache).metrics("val")
    assert metrics is not None
    return float(metrics["auroc"]["value"])


def test_a_method_that_fails_is_named_and_the_others_go_on(
    done: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cm2.fuse.training import groups

    real = groups.fuse_group

    def failing(config: Any, *rest: Any, **more: Any) -> RunGroup:
        if config.model == "mmtm":
            raise DataError("no stay has a film")
        return real(config, *rest, **more)

    monkeypatch.setattr(groups, "fuse_group", failing)
    result = reproduce(done.plan, done.request, (0, 1), replicates=50, jobs=1)
    assert row(result, "mmtm")["failure"] == "no stay has a film"
    assert row(result, "mmtm")["value"] is None
    assert row(result, "concat")["value"] == row(done, "concat")["value"]
    assert "MMTM failed: no stay has a film" in as_text(result)


def test_a_stop_ends_the_call_and_the_next_one_goes_on(iv: Path, asking: Asking) -> None:
    request = asking(iv, methods=("unified",), options={"epochs": 2, "lr": 5e-4})
    planned = plan("table3", request)
    with pytest.raises(Interrupted):
        training.train(planned, (0,), jobs=1, stop=Stop(0))
    lines = training.train(planned, (0,), jobs=1)[0]
    assert all(line.group is not None for line in lines)


def test_every_form_holds_the_numbers(done: Result, tmp_path: Path) -> None:
    value = f"{row(done, 'mmtm')['value']:.3f}"
    table, md, latex = (as_text(done, layout) for layout in ("table", "md", "latex"))
    for text in (table, md, latex):
        assert value in text
        assert "0.855 [0.840, 0.869]" in text
        assert "nothing tuned" in text
        assert "is left out: " in text
    assert "release 1" in table
    assert "(0.855 ≠)" in side_by_side(done, "table")
    assert "never trained" in table  # the films of the small cache
    rows = list(csv.DictReader(io.StringIO(as_text(done, "csv"))))
    assert len(rows) == len(done.rows[0])
    assert float(rows[0]["value"]) == row(done, "mmtm")["value"]
    assert float(rows[0]["against concat difference"]) == pytest.approx(
        row(done, "mmtm")[AGAINST + "concat"]["difference"]
    )
    assert [path.name for path in write(done, tmp_path / "out")] == ["table3.md", "table3.csv"]


def test_the_command_prints_the_table_and_forecasts(done: Result, iv: Path) -> None:
    command = [sys.executable, "-c", "from cm2.cli import main; main()"]
    options = ["--set", "hidden=8", "--set", "fusion_hidden=8", "--set", "copula_dim=4"]
    arguments = ["reproduce", "table3", "--cache", str(iv), "--task", "ihm", "--seeds", "0:1"]
    arguments += ["--methods", ",".join(METHODS), "--epochs", "1", "--set", "K=2", *options]
    shown = subprocess.run(
        [*command, *arguments, "--format", "csv"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.returncode == 0, shown.stderr
    rows = list(csv.DictReader(io.StringIO(shown.stdout)))
    assert [float(r["value"]) for r in rows] == [r["value"] for r in done.rows[0]]
    assert RunDir.open(RunGroup.open(Path(rows[0]["group"])).members[0].path).finished


@pytest.mark.slow
def test_the_command_continues_with_a_method_of_the_users_own_in_processes(
    iv: Path, tmp_path: Path
) -> None:
    import re

    docs = Path(__file__).parents[3] / "docs" / "methods.md"
    (text,) = re.findall(r"```python\n(.*?)```", docs.read_text(), re.DOTALL)
    broken = text.replace("hidden = nn", "raise KeyError\n        hidden = nn")
    (tmp_path / "mine.py").write_text(text)
    (tmp_path / "broken.py").write_text(broken)
    own = f"{tmp_path}/mine.py:MyFusion"
    names = f"{own}+model.alpha=0.2,{tmp_path}/broken.py:MyFusion"
    arguments = ["reproduce", "methods", "--cache", str(iv), "--task", "ihm", "--seeds", "0:1"]
    arguments += ["--methods", names, "--epochs", "2", "--set", "hidden=6", "--jobs", "2", "--json"]
    arguments += ["--modalities", "ehr,cxr", "--tries", "2", "--set", "fusion_hidden=6"]

    def call(*more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from cm2.cli import main; main()", *arguments, *more]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert call("--time-limit", "0.02").returncode == 130
    shown = call()
    assert shown.returncode == 4, shown.stderr  # one method failed, the others are judged
    rows = {(r["key"], r["metric"]): r for r in json.loads(shown.stdout)}
    failed = rows[f"{tmp_path}/broken.py:MyFusion", "auroc"]
    place = 1 + broken[: broken.index("raise KeyError")].count("\n")
    assert failed["failure"] == f"seed 0: bug: KeyError in broken.py:{place}"
    done = rows[f"{own}+model.alpha=0.2", "auroc"]
    assert (done["seeds"], done["tries"]) == (2, 2)
    for run in RunGroup.open(Path(done["group"])).members:
        assert run.config.options.model_dump() == {"alpha": 0.2}
