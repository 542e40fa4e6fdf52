from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from cm2.cache import atomic
from cm2.cache.cohort import Cohort, write_cohort, write_labels
from cm2.cache.upkeep import GRACE_SECONDS, gc, verify
from cm2.commands.cache import cache_app
from cm2.errors import CM2Error, ConfigError, DataError, IntegrityError, SchemaError
from cm2.fuse.config import FuseConfig
from cm2.fuse.identity import identify

FIRST = 30_000_000
AKI = {FIRST + 5: 1, FIRST: 0, FIRST + 2: None}


def _labels(values: dict[int, int | None] = AKI, task: str = "aki", **more: list[bool]) -> pa.Table:
    ids = pa.array([str(stay) for stay in values])
    y = pa.array(list(values.values()), pa.int8())
    return pa.table({"stay_id": ids, f"y_{task}": y, **more})


def _digest(cache: Path, task: str) -> str:
    config = FuseConfig(task=task, modalities=("cxr",))
    return identify(config, cache).digest


def test_labels_come_to_their_stays_and_the_others_have_none(
    cache: Path, small: ModuleType
) -> None:
    cohort = write_labels(cache, "default", "aki", _labels())
    assert cohort.tasks == ("ihm", "aki")
    assert cohort.stays.drop_columns(["in_aki", "y_aki"]).equals(small.stays())
    assert cohort.stays["y_aki"].to_pylist() == [0, None, None, None, None, 1, None, None]
    assert cohort.stays["in_aki"].to_pylist() == [True] * 8
    assert Cohort.open(cache).stays.equals(cohort.stays)


def test_a_table_that_tells_who_is_eligible_tells_it_of_all(cache: Path) -> None:
    table = _labels(in_aki=[True, False, True])
    stays = write_labels(cache, "default", "aki", table).stays
    assert stays["in_aki"].to_pylist() == [False, False, True, False, False, True, False, False]


def test_several_labels_make_one_task(cache: Path) -> None:
    table = _labels(task="ph__a").append_column("y_ph__b", pa.array([None, 1, 1], pa.int8()))
    cohort = write_labels(cache, "default", "ph", table)
    assert cohort.tasks == ("ihm", "ph")
    assert cohort.stays["y_ph__b"].to_pylist() == [1, None, 1, None, None, None, None, None]


def test_files_links_and_runs_of_other_tasks_stay_valid(cache: Path, small: ModuleType) -> None:
    files, links, run = small.tree(cache), Cohort.open(cache).links("cxr"), _digest(cache, "ihm")
    cohort = write_labels(cache, "default", "aki", _labels())
    after = small.tree(cache)
    assert {name: after[name] for name in files} == files
    assert all("/labels/" in name for name in after.keys() - files.keys())
    assert cohort.links("cxr").fingerprint == links.fingerprint
    assert _digest(cache, "ihm") == run
    assert verify(cache) == []


def test_an_extraction_still_knows_the_cohort(cache: Path, small: ModuleType) -> None:
    write_labels(cache, "default", "aki", _labels())
    info = {"dataset": "small", "attrition": []}
    assert write_cohort(cache, "default", small.stays(), info).tasks == ("ihm", "aki")


def test_the_same_labels_again_change_nothing(cache: Path, small: ModuleType) -> None:
    write_labels(cache, "default", "aki", _labels())
    before = small.tree(cache)
    backwards = dict(reversed(AKI.items()))
    write_labels(cache, "default", "aki", _labels(backwards))
    ihm = dict(zip(range(FIRST, FIRST + 8), [0, 1] * 4, strict=True))
    write_labels(cache, "default", "ihm", _labels(ihm, "ihm"))
    assert small.tree(cache) == before


@pytest.mark.parametrize("task", ["aki", "ihm"])
def test_other_labels_need_replace_and_make_another_run(cache: Path, task: str) -> None:
    write_labels(cache, "default", "aki", _labels())
    run = _digest(cache, task)
    other = _labels({FIRST + 1: 1, FIRST + 2: 0}, task)
    with pytest.raises(ConfigError, match="--replace"):
        write_labels(cache, "default", task, other)
    assert _digest(cache, task) == run
    stays = write_labels(cache, "default", task, other, replace=True).stays
    assert stays[f"y_{task}"].to_pylist()[:3] == [None, 1, 0]
    assert stays.column_names.count(f"y_{task}") == 1
    assert _digest(cache, task) != run


def test_gc_removes_replaced_labels_alone(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_labels(cache, "default", "aki", _labels())
    old = next((cache / "cohorts/default/labels").glob("*.parquet"))
    stays = write_labels(cache, "default", "aki", _labels({FIRST: 1}), replace=True).stays
    monkeypatch.setattr("cm2.cache.upkeep.GRACE_SECONDS", -GRACE_SECONDS)
    assert gc(cache, dry_run=False) == [old]
    assert Cohort.open(cache).stays.equals(stays)


@pytest.mark.parametrize(
    ("table", "error", "words"),
    [
        (_labels({7: 1, FIRST: 1, 8: 0}), DataError, "2 of 3 stay_id .* the first is '7'"),
        (_labels({}), DataError, "no stay has a known label"),
        (_labels({FIRST: None}), DataError, "no stay has a known label"),
        (pa.concat_tables([_labels({FIRST: 1})] * 2), DataError, "1 rows repeat .*'30000000'"),
        (_labels({FIRST: 2}), SchemaError, "0, 1 or null"),
        (_labels(task="other"), SchemaError, "need stay_id and y_aki"),
        (_labels(in_aki=[True, None, True]), SchemaError, "in_aki must be bool"),
    ],
)
def test_labels_that_do_not_fit_are_refused_and_leave_nothing(
    cache: Path, small: ModuleType, table: pa.Table, error: type[CM2Error], words: str
) -> None:
    before = small.tree(cache)
    with pytest.raises(error, match=words):
        write_labels(cache, "default", "aki", table)
    assert small.tree(cache) == before


@pytest.mark.parametrize("task", ["", "a__b", "../up", "a_", "con"])
def test_a_task_has_a_name_that_columns_and_files_can_carry(cache: Path, task: str) -> None:
    with pytest.raises(ConfigError):
        write_labels(cache, "default", task, _labels(task=task))


def test_altered_labels_and_those_of_another_cohort_are_found(
    cache: Path, small: ModuleType
) -> None:
    write_labels(cache, "default", "aki", _labels())
    write_cohort(cache, "other", small.stays(), {"dataset": "other"})
    labels = cache / "cohorts/default/labels"
    labels.rename(cache / "cohorts/other/labels")
    with pytest.raises(IntegrityError, match="--cohort other --task aki=FILE"):
        Cohort.open(cache, "other")
    (cache / "cohorts/other/labels").rename(labels)
    table = next(labels.glob("*.parquet"))
    data = bytearray(table.read_bytes())
    data[len(data) // 2] ^= 1
    table.write_bytes(data)
    assert any(str(table) in problem for problem in verify(cache))


@pytest.mark.parametrize("last", range(8))
def test_a_stop_at_any_step_leaves_the_old_labels_or_the_new(
    cache: Path, monkeypatch: pytest.MonkeyPatch, last: int
) -> None:
    write_labels(cache, "default", "aki", _labels())
    old = Cohort.open(cache).stays
    steps = iter(range(8))

    def stop(kind: str) -> None:
        if next(steps) == last:
            raise KeyboardInterrupt

    monkeypatch.setattr(atomic, "step_hook", stop)
    with pytest.raises(KeyboardInterrupt):
        write_labels(cache, "default", "aki", _labels({FIRST: 1}), replace=True)
    stays = Cohort.open(cache).stays
    assert stays.equals(old) == (last < 7)
    assert stays["y_aki"].to_pylist()[1:] in ([None] * 7, old["y_aki"].to_pylist()[1:])


def test_the_command_reads_a_file_and_says_what_it_found(cache: Path, tmp_path: Path) -> None:
    file = tmp_path / "aki.csv"
    file.write_text(f"stay_id,y\n{FIRST},1\n{FIRST + 3},0\n{FIRST + 4},\n")
    done = CliRunner().invoke(cache_app, ["label", str(cache), "--task", f"aki={file}"])
    assert done.exit_code == 0, done.output
    assert done.stdout == "aki: 2 stays with a label, 1 positive\n"
    file.write_text(f"stay_id,aki\n{FIRST},0\n{FIRST + 3},0\n")
    again = CliRunner().invoke(cache_app, ["label", str(cache), "--task", f"aki={file}"])
    assert isinstance(again.exception, ConfigError)
    arguments = ["label", str(cache), "--replace", "--task", f"aki={file}"]
    assert CliRunner().invoke(cache_app, arguments).exit_code == 0
    assert Cohort.open(cache).stays["y_aki"].to_pylist()[:4] == [0, None, None, 0]
