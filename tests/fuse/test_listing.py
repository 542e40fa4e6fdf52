from __future__ import annotations

from pathlib import Path

import pytest

from cm2.cache import atomic
from cm2.errors import DataError
from cm2.fuse.group import RunGroup
from cm2.fuse.listing import list_runs
from cm2.fuse.sweep.book import SweepDir

from .evaluation.conftest import write_run
from .sweep.test_report import make_sweep


def test_runs_of_a_cache_are_listed_with_state_metrics_and_looks(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    write_run(runs / "a", model="concat", copula=None)
    write_run(runs / "b", splits=("val",)).update(status="training")
    first, second = list_runs(tmp_path)
    assert (first["name"], first["state"], first["model"]) == ("a", "finished", "concat")
    assert first["modalities"] == "ehr+cxr+report"
    assert first["test_auroc"]["low"] < first["test_auroc"]["value"] < first["test_auroc"]["high"]
    assert first["looks"] == 1
    assert (second["state"], second["test_auroc"], second["looks"]) == ("unfinished", None, 0)


def test_a_look_at_all_stays_is_a_look_at_the_test_stays(tmp_path: Path) -> None:
    write_run(tmp_path / "a", splits=("val",)).count_look("all")
    write_run(tmp_path / "b").count_look("all")
    assert [row["looks"] for row in list_runs(tmp_path)] == [1, 2]


def test_a_group_is_one_line_and_unfinished_while_a_member_is(tmp_path: Path) -> None:
    members = [write_run(tmp_path / f"s{seed}", splits=("val",), seed=seed) for seed in (0, 1)]
    record = {"kind": "seeds", "identity": "x", "folds": 0}
    RunGroup.write(tmp_path / "g", {run.path: run.config for run in members}, record)
    assert {row["name"]: row["kind"] for row in list_runs(tmp_path)}["g"] == "2 seeds"
    members[1].update(status="training")
    states = {row["name"]: row["state"] for row in list_runs(tmp_path)}
    assert states == {"g": "unfinished", "s0": "finished", "s1": "unfinished"}


def test_runs_of_other_tasks_are_left_out_on_request(tmp_path: Path) -> None:
    write_run(tmp_path / "a", splits=("val",))
    write_run(tmp_path / "b", splits=("val",), task="readm")
    assert [row["name"] for row in list_runs(tmp_path, "readm")] == ["b"]


def test_a_damaged_run_is_said_to_be_and_hides_no_other(tmp_path: Path) -> None:
    write_run(tmp_path / "a", splits=("val",))
    write_run(tmp_path / "b", splits=("val",))
    config = tmp_path / "a" / "config.json"
    config.write_text(config.read_text().replace("frank", "gumbe"))
    states = {row["name"]: row["state"] for row in list_runs(tmp_path)}
    assert states == {"a": "damaged", "b": "finished"}


def test_a_run_whose_options_another_version_took_is_unreadable_not_damaged(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", splits=("val",))
    options = {**run.record["config"], "long_gone": 1}
    atomic.write_json(run.path / "config.json", {"config": options})
    assert [row["state"] for row in list_runs(tmp_path)] == ["unreadable"]


def test_sweeps_are_lines_of_their_own_and_name_the_command_that_reads_them(tmp_path: Path) -> None:
    made = make_sweep(tmp_path)
    sweep = SweepDir.claim(
        tmp_path / "sweeps" / "one", made.identity, {"spec": made.record["spec"]}
    )
    sweep.write_roll(made.roll())
    (line,) = list_runs(tmp_path / "sweeps", "ihm")
    assert (line["name"], line["kind"], line["state"]) == ("one", "sweep of 30", "finished")
    assert line["val_auroc"]["value"] == pytest.approx(0.7505)
    assert line["detail"] == f"15 settings; cm2 compare {sweep.path}"
    made.roll().members[3].run.update(status="training")
    assert list_runs(tmp_path / "sweeps")[0]["state"] == "unfinished"


def test_a_sweep_lists_its_runs_wherever_they_lie(tmp_path: Path) -> None:
    names = [row["name"] for row in list_runs(make_sweep(tmp_path).path)]
    assert (len(names), names[1]) == (30, "run-0-1")


@pytest.mark.parametrize("there", [True, False])
def test_a_folder_without_runs_is_an_error_with_a_way_on(tmp_path: Path, there: bool) -> None:
    folder = tmp_path if there else tmp_path / "nothing"
    with pytest.raises(DataError, match="Name a cache" if not there else "cm2 fuse"):
        list_runs(folder)
