"""A sweep in ensembles finds what a sweep of single runs finds."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from cm2.errors import Interrupted
from cm2.fuse.models.concat import Concat
from cm2.fuse.models.interface import FusionBatch, FusionOutput, Hyper
from cm2.fuse.sweep import engine_ensemble
from cm2.fuse.sweep.book import SweepDir
from cm2.fuse.sweep.engine_local import Piece, Workers
from cm2.fuse.sweep.index import rows
from cm2.fuse.sweep.runner import How, sweep
from cm2.fuse.sweep.spec import SweepSpec, sweep_spec
from cm2.fuse.sweep.work import Outcome
from cm2.progress import Stop

TINY = {"model": "concat", "hidden": "4", "fusion_hidden": "4", "epochs": "2", "batch_size": "32"}
HERE = How("ensemble", jobs=1, device="cpu")


def spec() -> SweepSpec:
    return sweep_spec(TINY, ("lr=1e-3,3e-2", "dropout=0,0.5"), {"seeds": "0:1", "keep": 1})


@pytest.fixture
def caches(make_cache: Callable[..., Path], tmp_path: Path) -> list[Path]:
    first = make_cache(tmp_path / "a", modalities=("ehr", "cxr"))
    return [first, Path(shutil.copytree(first, tmp_path / "b"))]


def told(found: SweepDir) -> list[dict[str, object]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows(found)]


def assert_close(found: SweepDir, expected: SweepDir, close: float, runs: int = 8) -> None:
    assert len(told(found)) == len(told(expected)) == runs
    for ours, theirs in zip(told(found), told(expected), strict=True):
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            if isinstance(value, float):
                value = pytest.approx(value, rel=close)
            assert ours[name] == value, name


def test_ensembles_give_the_index_of_single_runs(caches: list[Path]) -> None:
    apart = sweep(spec(), caches[0], how=replace(HERE, engine="local"))
    assert_close(sweep(spec(), caches[1], how=HERE), apart, 1e-4)


def test_a_stopped_sweep_of_ensembles_continues(caches: list[Path]) -> None:
    class StopAfterOneEpoch(Stop):
        def check(self, finished: str) -> None:
            if "an epoch of" in finished:
                raise Interrupted(finished)

    with pytest.raises(Interrupted, match="8 runs"):
        sweep(spec(), caches[0], how=HERE, stop=StopAfterOneEpoch())
    found = sweep(spec(), caches[0], how=HERE)
    assert {row["status"] for row in rows(found)} == {"finished"}
    assert_close(found, sweep(spec(), caches[1], how=HERE), 1e-5)


def test_halving_in_ensembles_gives_up_and_goes_on_with_the_same_runs(caches: list[Path]) -> None:
    base = {**TINY, "epochs": "10", "patience": "20"}
    grid = ("lr=1e-5,1e-4,3e-2", "dropout=0,0.1")
    halved = sweep_spec(base, grid, {"halving": True})
    found, expected = (
        sweep(halved, cache, how=replace(HERE, engine=engine))
        for cache, engine in zip(caches, ("ensemble", "local"), strict=True)
    )
    status = [row["status"] for row in rows(found)]
    assert (status.count("finished"), status.count("stopped")) == (2, 4)
    assert_close(found, expected, 1e-4, runs=6)


@pytest.mark.parametrize(("measured", "sizes"), [(1.2, [4, 4]), (1.05, [1] * 8)])
def test_every_process_has_an_ensemble_where_the_measured_gain_is_worth_it(
    caches: list[Path], monkeypatch: pytest.MonkeyPatch, measured: float, sizes: list[int]
) -> None:
    import cm2.fuse.training.gain as module

    asked: list[int] = []

    def gain(configs: list[object], data: object) -> float:
        asked.append(len(configs))
        return measured

    def pieces(self: Workers, found: Sequence[Piece], *others: object) -> list[Outcome]:
        assert [len(piece) for piece in found] == sizes
        return []

    monkeypatch.setattr(module, "gain", gain)
    monkeypatch.setattr(engine_ensemble, "SMALLEST", 8)
    monkeypatch.setattr(Workers, "compute_pieces", pieces)
    sweep(spec(), caches[0], how=replace(HERE, engine="auto", jobs=2))
    assert asked == [4]


def test_ensembles_in_two_processes_give_the_index_of_single_runs(caches: list[Path]) -> None:
    apart = sweep(spec(), caches[0], how=replace(HERE, engine="local"))
    assert_close(sweep(spec(), caches[1], how=replace(HERE, jobs=2)), apart, 1e-4)


def test_an_ensemble_whose_workers_always_die_fails_and_the_others_are_trained(
    caches: list[Path], deadly: Callable[[int], None]
) -> None:
    deadly(0)
    found = sweep(spec(), caches[0], how=replace(HERE, jobs=2))
    assert [row["status"] for row in rows(found)] == ["failed"] * 4 + ["finished"] * 4
    assert all("died 3 times (SIGKILL)" in reason for reason in found.failures().values())


def test_a_run_that_is_no_longer_finite_fails_alone_in_an_ensemble_of_a_process(
    caches: list[Path],
) -> None:
    wild = sweep_spec(TINY, ("lr=1e-3,1e30",), {"seeds": "0:1"})
    found = sweep(wild, caches[0], how=replace(HERE, jobs=2))
    assert sorted(row["status"] for row in rows(found)) == ["failed"] * 2 + ["finished"] * 2


@pytest.mark.parametrize("engine", ["local", "ensemble", "auto"])
@pytest.mark.parametrize("late", [False, True])
def test_a_forward_pass_that_raises_fails_the_runs_of_its_setting_and_no_other(
    caches: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    engine: Literal["local", "ensemble", "auto"],
    late: bool,
) -> None:
    forward = Concat.forward

    def broken(model: Concat, batch: FusionBatch, hyper: Hyper) -> FusionOutput:
        if model.config.fusion_hidden == 5 and not (late and "dropout.tokens" in batch.noise):
            raise RuntimeError("a patient of 93 years")
        return forward(model, batch, hyper)

    monkeypatch.setattr(Concat, "forward", broken)
    monkeypatch.setattr(engine_ensemble, "SMALLEST", 2)
    asked = sweep_spec(TINY, ("fusion_hidden=4,5",), {"seeds": "0:1"})
    found = sweep(asked, caches[0], how=replace(HERE, engine=engine))
    states = {row["fusion_hidden"]: row["status"] for row in rows(found)}
    assert states == {4: "finished", 5: "failed"}
    for reason in found.failures().values():
        assert re.match(r"bug: RuntimeError in test_ensembles\.py:\d+$", reason)
