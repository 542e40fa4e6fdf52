"""A sweep from its grid to its index, in this process."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cm2.cache.lease import Lease
from cm2.errors import ConfigError, Interrupted, RejectsError
from cm2.fuse.config import FuseConfig
from cm2.fuse.inference import load_model
from cm2.fuse.rundir import BEST, LAST, TRAINER, RunDir
from cm2.fuse.sweep.book import SweepDir
from cm2.fuse.sweep.choose import judge_chosen
from cm2.fuse.sweep.engine_local import Workers
from cm2.fuse.sweep.halving import rungs
from cm2.fuse.sweep.index import ranking, rows
from cm2.fuse.sweep.progress import Snapshot
from cm2.fuse.sweep.reading import read, text
from cm2.fuse.sweep.runner import How, require_all, sweep
from cm2.fuse.sweep.spec import SweepSpec, sweep_spec
from cm2.fuse.training.trainer import fuse
from cm2.progress import Stop

CacheMaker = Callable[..., Path]
TINY = {"model": "concat", "hidden": "4", "fusion_hidden": "4", "epochs": "2", "batch_size": "32"}
GRID = ("lr=1e-3,3e-2", "dropout=0,0.5")
HERE = How(jobs=1, device="cpu")


def spec(*lines: str, base: dict[str, object] | None = None, **search: object) -> SweepSpec:
    return sweep_spec({**TINY, **(base or {})}, lines or GRID, search)


def told(sweep: SweepDir) -> list[dict[str, object]]:
    """What a sweep has found, without its times."""
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows(sweep)]


@pytest.fixture(scope="module")
def source(make_cache: CacheMaker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_cache(tmp_path_factory.mktemp("sweep") / "cache", modalities=("ehr", "cxr"))


@pytest.fixture(scope="module")
def done(source: Path, tmp_path_factory: pytest.TempPathFactory) -> SweepDir:
    """A finished sweep; read only."""
    cache = tmp_path_factory.mktemp("done") / "cache"
    shutil.copytree(source, cache)
    return sweep(spec(seeds="0:1", keep=1), cache, how=HERE)


@pytest.fixture
def cache(source: Path, tmp_path: Path) -> Path:
    """A cache of one's own without runs."""
    return Path(shutil.copytree(source, tmp_path / "cache"))


@pytest.fixture
def finished(done: SweepDir, tmp_path: Path) -> SweepDir:
    """A copy of the finished sweep with its cache."""
    shutil.copytree(done.path.parents[1], tmp_path / "copy")
    return SweepDir.open(tmp_path / "copy" / done.path.relative_to(done.path.parents[1]))


def test_every_member_is_the_run_that_fuse_would_make(done: SweepDir, cache: Path) -> None:
    members = done.roll().members
    assert [(m.setting, m.seed) for m in members] == [(i, s) for i in range(4) for s in (0, 1)]
    member = members[5]
    options = {**TINY, "lr": 3e-2, "dropout": 0.0, "seed": 1}
    alone = fuse(FuseConfig.of(options), cache, device="cpu")
    assert alone.path.name == member.run.path.name
    assert alone.predictions("val").equals(member.run.predictions("val"))
    assert not (member.run.path / TRAINER).exists()
    assert member.run.metrics("test") is None
    assert member.run.info["looks"] == {}


def test_the_index_holds_a_row_for_every_run_and_can_be_made_anew(finished: SweepDir) -> None:
    table = pq.read_table(finished.path / "index.parquet")
    assert table.num_rows == 8
    (finished.path / "index.parquet").unlink()
    read(finished)
    assert pq.read_table(finished.path / "index.parquet").equals(table)
    for row in table.to_pylist():
        run = RunDir(finished.path.parents[1] / "runs" / row["run"])
        assert row["val_auroc"] == max(epoch["val_auroc"] for epoch in run.history)
        assert (row["lr"], row["dropout"]) == (run.config.lr, run.config.dropout)


def test_only_the_best_settings_keep_their_weights(done: SweepDir) -> None:
    best = ranking(rows(done))[0].setting
    for member in done.roll().members:
        kept = member.setting == best
        assert (member.run.path / BEST).exists() is kept
        assert (member.run.path / LAST).exists() is kept
        assert member.run.without_weights is not kept
        assert member.run.predictions("val").num_rows


def test_a_run_without_weights_says_so_and_fuse_trains_it_again_for_good(
    finished: SweepDir,
) -> None:
    cache = finished.path.parents[1]
    worst = ranking(rows(finished))[-1].setting
    run = finished.roll().of(worst)[0].run
    before = run.predictions("val")
    with pytest.raises(ConfigError, match=r"keeps those of its best runs only.*--config"):
        load_model(run)
    again = fuse(run.config, cache, device="cpu")
    assert again.path == run.path
    assert again.predictions("val").equals(before)
    load_model(again)
    sweep(spec(seeds="0:1", keep=0), cache, how=HERE)  # a call that would keep none
    assert (run.path / BEST).exists()
    others = [m.run for m in finished.roll().members if m.run.path != run.path]
    assert not any((one.path / BEST).exists() for one in others)


def test_a_finished_sweep_trains_nothing_and_another_one_shares_its_runs(
    finished: SweepDir,
) -> None:
    cache = finished.path.parents[1]
    times = {m.run.path.name: m.run.info["finished"] for m in finished.roll().members}
    assert sweep(spec(seeds="0:1", keep=1), cache, how=HERE).path == finished.path
    wider = sweep(spec("lr=1e-3,3e-2,1e-2", "dropout=0,0.5", seeds="0", keep=1), cache, how=HERE)
    assert wider.path != finished.path
    shared = [m.run for m in wider.roll().members if m.run.path.name in times]
    assert len(shared) == 4
    assert all(run.info["finished"] == times[run.path.name] for run in shared)
    best = ranking(rows(finished))[0].setting
    assert all((m.run.path / BEST).exists() for m in finished.roll().of(best))


def test_a_sweep_moves_with_its_cache(finished: SweepDir, done: SweepDir) -> None:
    assert all(finished.path.parents[1] in m.run.path.parents for m in finished.roll().members)
    assert told(finished) == told(done)


class After(Stop):
    """Stops when it was asked so many times."""

    def __init__(self, asked: int) -> None:
        super().__init__()
        self.left = asked

    def check(self, finished: str) -> None:
        self.left -= 1
        if self.left < 0:
            raise Interrupted(finished)


@pytest.mark.parametrize("asked", [0, 11])
def test_a_stopped_sweep_ends_with_the_same_index(done: SweepDir, cache: Path, asked: int) -> None:
    with pytest.raises(Interrupted):
        sweep(spec(seeds="0:1", keep=1), cache, how=HERE, stop=After(asked))
    again = sweep(spec(seeds="0:1", keep=1), cache, how=HERE)
    assert told(again) == told(done)
    kept = [sorted(p.parent.name for p in s.path.parents[1].rglob(BEST)) for s in (again, done)]
    assert kept[0] == kept[1]


def test_parts_of_a_job_array_may_be_restarted_with_another_number(
    done: SweepDir, cache: Path
) -> None:
    asked = spec(seeds="0:1", keep=1)
    first = sweep(asked, cache, how=How(jobs=1, device="cpu", shard="1/3"))
    assert {r["setting"] for r in rows(first) if r["status"] == "finished"} == {1}
    for part in ("0/2", "1/2"):
        sweep(asked, cache, how=How(jobs=1, device="cpu", shard=part))
    assert told(first) == told(done)
    assert len([*cache.rglob(BEST)]) == 2


@pytest.mark.parametrize("shard", ["2/2", "1", "a/b", "-1/2"])
def test_what_is_no_part_is_refused(cache: Path, shard: str) -> None:
    with pytest.raises(ConfigError, match="I/N"):
        sweep(spec(), cache, how=How(jobs=1, shard=shard))


def test_failed_runs_are_listed_and_tried_again_only_on_request(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = spec("lr=1e-3,1e30")
    found = sweep(asked, cache, how=HERE)
    (reason,) = found.failures().values()
    assert "no longer finite" in reason
    assert [row["status"] for row in rows(found)] == ["finished", "failed"]
    assert read(found)["best"][0]["lr"] == "0.001"
    with pytest.raises(RejectsError, match="--retry") as caught:
        require_all(found)
    assert caught.value.exit_code == 4

    begun: list[int] = []

    def compute(self: Workers, tasks: Sequence[object], *others: object) -> list[object]:
        begun.append(len(tasks))
        return []

    monkeypatch.setattr(Workers, "compute", compute)
    sweep(asked, cache, how=HERE)
    assert begun == []
    sweep(asked, cache, how=How(jobs=1, retry=True))
    assert begun == [1]


def test_a_run_that_another_process_trains_is_waited_for(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = cache / "runs" / sweep_names(cache)[0]
    lease = Lease(place)
    lease.__enter__()
    waited: list[float] = []

    def until_free(seconds: float) -> None:
        waited.append(seconds)
        lease.__exit__(None, None, None)

    monkeypatch.setattr("cm2.fuse.sweep.runner.time.sleep", until_free)
    found = sweep(spec("lr=1e-3,3e-2"), cache, how=HERE)
    assert len(waited) == 1
    assert [row["status"] for row in rows(found)] == ["finished"] * 2


def sweep_names(cache: Path) -> list[str]:
    from cm2.fuse.identity import Inputs
    from cm2.fuse.sweep.plan import make_plan

    plan = make_plan(spec("lr=1e-3,3e-2"), cache, Inputs(cache))
    return [member.run.path.name for member in plan.members]


def test_a_budget_ends_a_sweep_early(cache: Path) -> None:
    found = sweep(spec(budget="3", search="random"), cache, how=HERE)
    assert len(rows(found)) == 3
    few = sweep(spec(budget="0.000001h"), cache, how=HERE)  # what there is has used it up
    assert sum(row["status"] == "waiting" for row in rows(few)) == 1


@pytest.mark.parametrize(
    ("search", "words"),
    [
        ({"search": "random"}, "budget"),
        ({"budget": "many"}, "number of runs"),
        ({"budget": "1", "seeds": "0:1"}, "does not suffice"),
        ({"search": "luck"}, "search"),
        ({"halving": True, "budget": "1h"}, "in runs"),
        ({"keep": -1}, "keep"),
    ],
)
def test_searches_that_cannot_be_meant_are_refused(search: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        spec(**search)


def test_halving_continues_the_same_runs_and_finds_the_same_best(cache: Path) -> None:
    base = {"epochs": "10", "patience": "20"}
    grid = ("lr=1e-5,1e-4,3e-2", "dropout=0,0.1")
    halved = sweep(spec(*grid, base=base, halving=True, keep=9), cache, how=HERE)
    status = [row["status"] for row in rows(halved)]
    assert rungs(10, 1) == [4]
    assert (status.count("finished"), status.count("stopped")) == (2, 4)
    assert not [*cache.rglob(TRAINER)]
    best = ranking(rows(halved))[0]
    told_before = {row["run"]: row for row in rows(halved) if row["status"] == "finished"}
    assert read(halved)["selection"]["tries"] == 6
    with pytest.raises(ConfigError, match="--shard"):
        sweep(spec(*grid, base=base, halving=True), cache, how=How(jobs=1, shard="0/2"))

    whole = sweep(spec(*grid, base=base, keep=9), cache, how=HERE)
    assert {row["status"] for row in rows(whole)} == {"finished"}
    assert ranking(rows(whole))[0].setting == best.setting
    for row in rows(whole):
        assert row["epochs"] == 10
        if row["run"] in told_before:
            assert row == told_before[row["run"]]


def test_a_run_of_its_user_that_halving_gives_up_is_left_to_them_and_the_sweep_ends(
    cache: Path,
) -> None:
    base = {"epochs": "10", "patience": "20"}
    own = FuseConfig.of({**TINY, **base, "lr": 1e-9})
    begun = fuse(own, cache, device="cpu", until=1)
    halved = spec("lr=1e-9,1e-2,3e-2", base=base, halving=True)
    found = sweep(halved, cache, how=HERE)
    expected = ["stopped", "stopped", "finished"]
    assert sorted(row["status"] for row in rows(found)) == sorted(expected)
    given_up = rows(found)[0]
    assert (given_up["status"], given_up["epochs"]) == ("stopped", 4)
    assert (begun.info["status"], begun.info["sweep"]) == ("running", None)
    assert (begun.path / TRAINER).is_file()
    before = told(found)
    assert told(sweep(halved, cache, how=HERE)) == before
    _, metrics = judge_chosen(found, device="cpu", replicates=20)
    assert metrics["split"] == "test"

    assert fuse(own, cache, device="cpu").finished  # its user goes on where the sweep left it
    assert rows(found)[0]["status"] == "finished"


def test_what_is_fitted_to_validation_is_ranked_by_its_cross_fitted_scores(cache: Path) -> None:
    base = {"model": "late", "hidden": "4", "epochs": "2", "batch_size": "32"}
    lines = ("model.combine=mean,stacking",)
    found = sweep(sweep_spec(base, lines, {}), cache, how=HERE)
    plain, stacked = rows(found)
    assert plain["val_auroc"] != stacked["val_auroc"]
    for row, member in zip((plain, stacked), found.roll().members, strict=True):
        stored = member.run.metrics("val")
        assert stored is not None
        for name in ("auroc", "aupr"):
            assert row[f"val_{name}"] == pytest.approx(stored[name]["value"], abs=1e-12)
    values = {one.setting: one.score for one in ranking([plain, stacked])}
    assert values == {0: plain["val_auroc"], 1: stacked["val_auroc"]}


def test_the_chosen_setting_alone_is_judged_on_the_test_stays(finished: SweepDir) -> None:
    best = ranking(rows(finished))[0].setting
    group, metrics = judge_chosen(finished, device="cpu", replicates=20)
    assert metrics["split"] == "test"
    assert [run.config.seed for run in group.members] == [0, 1]
    for member in finished.roll().members:
        looks = member.run.info["looks"].get("test", 0)
        assert looks == (member.setting == best)
        assert bool(member.run.info["sweep"]) == (member.setting != best)


def test_nothing_is_chosen_before_the_sweep_has_ended(cache: Path) -> None:
    found = sweep(spec(), cache, how=How(jobs=1, device="cpu", shard="0/4"))
    with pytest.raises(ConfigError, match=r"3 of 4 runs .* not finished"):
        judge_chosen(found)


def test_a_reader_is_told_of_settings_effects_and_chance(done: SweepDir) -> None:
    shown = text(read(done))
    for words in ("4 settings", "8 finished", "best of 4 settings", "lr", "dropout", "by luck"):
        assert words in shown


def test_whoever_watches_sees_every_run_end(cache: Path) -> None:
    seen: list[Snapshot] = []
    sweep(spec("lr=1e-3,1e30"), cache, how=HERE, watch=seen.append)
    assert [(one.done, one.failed) for one in seen] == [(0, 0), (1, 0), (2, 1)]
    (leader,) = seen[-1].leaders
    assert (leader.values, leader.runs, leader.spread) == ({"lr": "0.001"}, 1, None)
    assert seen[0].seconds_left is None
    assert seen[-1].seconds_left == 0


def test_a_directory_that_holds_something_else_is_refused(finished: SweepDir) -> None:
    cache = finished.path.parents[1]
    with pytest.raises(ConfigError, match="another sweep"):
        sweep(spec("lr=1e-3,3e-2"), cache, finished.path, how=HERE)
    with pytest.raises(ConfigError, match="is no sweep"):
        sweep(spec(), cache, cache, how=HERE)
