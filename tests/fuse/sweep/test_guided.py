"""A guided search: better than chance, and the same after a stop."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from shutil import rmtree
from typing import Any

import pytest

from cm2.errors import ConfigError
from cm2.fuse.identity import Inputs
from cm2.fuse.sweep.book import SweepDir
from cm2.fuse.sweep.estimate import estimate
from cm2.fuse.sweep.guided import JOURNAL, ROUND, guide
from cm2.fuse.sweep.index import Standing, rows
from cm2.fuse.sweep.plan import Plan, make_plan
from cm2.fuse.sweep.runner import How, sweep
from cm2.fuse.sweep.spec import SweepSpec, sweep_spec

CacheMaker = Callable[..., Path]
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("optuna") is None, reason="optuna is not installed"
)


class Stopped(Exception):
    pass


class Fake:
    """Scores a setting by a formula in place of training; stops after some settings."""

    def __init__(self, plan: Plan, stop_after: int = 10**6) -> None:
        self.plan, self.left = plan, stop_after
        self.scores: dict[int, float] = {}
        self.mine: Any = ()
        self.stage = ""

    def reload(self) -> None:
        pass

    def pending(self, numbers: Any) -> list[int]:
        return [i for i in numbers if self.plan.members[i].setting not in self.scores]

    def prune(self, numbers: Any) -> None:
        pass

    def standings(self) -> list[Standing]:
        return [Standing(s, value, (value,), True) for s, value in self.scores.items()]

    def train(self, numbers: list[int]) -> None:
        for i in numbers:
            if self.left == 0:
                raise Stopped
            self.left -= 1
            config = self.plan.configs[i]
            lack = (config.K - 5) ** 2 / 9 + (config.dropout - 0.4) ** 2 * 9
            worse = 0.0 if config.copula == "gumbel" else 1.0
            self.scores[self.plan.members[i].setting] = -lack - worse


def search(
    cache: Path, place: Path, budget: int, stop_after: int = 10**6, **more: object
) -> tuple[list[str], dict[int, float]]:
    spec = spec_of(budget, **more)
    plan = make_plan(spec, cache, Inputs(cache))
    fake = Fake(plan, stop_after)
    book = SweepDir.claim(place, "x", {"spec": spec.describe()})
    with suppress(Stopped):
        guide(book, spec, plan, fake, fake.train)  # type: ignore[arg-type]
    return [setting.label for setting in plan.settings], fake.scores


def spec_of(budget: int, **more: object) -> SweepSpec:
    grid = ["K=1:8", "dropout=0:0.6", "copula=frank,gumbel,clayton"]
    return sweep_spec({}, grid, {"search": "tpe", "budget": str(budget), **more})


def test_a_guided_search_closes_in_on_the_best(small_cache: Path, tmp_path: Path) -> None:
    wins = 0
    for seed in range(3):
        _, scores = search(small_cache, tmp_path / str(seed), 48, draw_seed=seed)
        values = list(scores.values())
        wins += sum(values[-16:]) / 16 > sum(values[:16]) / 16 + 0.5
    assert wins == 3


@pytest.mark.parametrize("stop_after", [0, 3, ROUND + 1])
def test_a_stopped_search_goes_on_as_if_nothing_had_happened(
    small_cache: Path, tmp_path: Path, stop_after: int
) -> None:
    whole, scores = search(small_cache, tmp_path / "whole", 20)
    search(small_cache, tmp_path / "cut", 20, stop_after)
    with (tmp_path / "cut" / JOURNAL).open("ab") as journal:
        journal.write(b'{"op_code": 4, "wor')  # killed in the middle of a line
    again, found = search(small_cache, tmp_path / "cut", 20)
    assert again == whole
    assert found.items() <= scores.items()
    assert len(whole) == 20


def test_proposals_that_cannot_be_meant_are_counted_and_cost_no_budget(
    small_cache: Path, tmp_path: Path
) -> None:
    grid = ["coupling=kendall,rosenblatt", "K=1:3"]
    spec = sweep_spec({}, grid, {"search": "tpe", "budget": "6"})
    plan = make_plan(spec, small_cache, Inputs(small_cache))
    fake = Fake(plan)
    book = SweepDir.claim(tmp_path / "s", "x", {"spec": spec.describe()})
    guide(book, spec, plan, fake, fake.train)  # type: ignore[arg-type]
    assert len(plan.settings) == 4  # what there is to try
    assert all("kendall" in reason for reason in plan.expansion.refused)
    book.write_roll(plan.roll())


@pytest.mark.parametrize("draw_seed", [0, 1])
def test_a_proposal_that_was_made_before_costs_no_budget(
    small_cache: Path, tmp_path: Path, draw_seed: int
) -> None:
    grid = ["K=1:3", "copula=frank,gumbel,clayton"]
    more = {"search": "tpe", "budget": "16", "seeds": "0:1", "draw_seed": draw_seed}
    spec = sweep_spec({}, grid, more)
    book = SweepDir.claim(tmp_path / "s", "x", {"spec": spec.describe()})
    labels = []
    for stop_after in (5, 10**6):
        plan = make_plan(spec, small_cache, Inputs(small_cache))
        fake = Fake(plan, stop_after)
        with suppress(Stopped):
            guide(book, spec, plan, fake, fake.train)  # type: ignore[arg-type]
        labels.append([setting.label for setting in plan.settings])
    assert len(plan.settings) == 8  # of nine
    assert plan.expansion.repeated > 0
    assert labels[0] == labels[1][: len(labels[0])]


def twice(cache: Path, tmp_path: Path, grid: list[str], budget: str) -> list[tuple[Plan, Fake]]:
    """Make one search, and go on with it when it is over."""
    spec = sweep_spec({}, grid, {"search": "tpe", "budget": budget})
    book = SweepDir.claim(tmp_path / "s", "x", {"spec": spec.describe()})
    calls = []
    for _ in range(2):
        plan = make_plan(spec, cache, Inputs(cache))
        fake = Fake(plan)
        guide(book, spec, plan, fake, fake.train)  # type: ignore[arg-type]
        calls.append((plan, fake))
    return calls


def test_a_search_that_finds_nothing_new_ends_below_its_budget_and_says_so(
    small_cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    calls = twice(small_cache, tmp_path, ["K=1:3"], "20")
    assert all(len(fake.scores) in (0, 3) for _, fake in calls)
    repeated = [plan.expansion.repeated for plan, _ in calls]
    assert repeated[0] == repeated[1]
    assert "room for 20 settings, 3 were tried" in caplog.text


def test_a_search_killed_while_it_writes_its_journal_goes_on_as_if_nothing_had_happened(
    small_cache: Path, tmp_path: Path
) -> None:
    whole, _ = search(small_cache, tmp_path / "whole", 10)
    lines = (tmp_path / "whole" / JOURNAL).read_bytes().splitlines(keepends=True)
    for n in range(len(lines) - 14, len(lines)):  # end of the first round, and the second
        search(small_cache, tmp_path / f"cut{n}", 10, 0)
        (tmp_path / f"cut{n}" / JOURNAL).write_bytes(b"".join(lines[:n]))
        again, _ = search(small_cache, tmp_path / f"cut{n}", 10)
        assert again == whole


def test_a_search_that_goes_on_still_knows_what_it_left_out(
    small_cache: Path, tmp_path: Path
) -> None:
    calls = twice(small_cache, tmp_path, ["coupling=kendall,rosenblatt", "K=1:3"], "6")
    counts = [(plan.expansion.refused, plan.expansion.repeated) for plan, _ in calls]
    assert counts[0] == counts[1]
    assert counts[0][0]


def test_a_guided_sweep_trains_what_it_chooses(make_cache: CacheMaker, tmp_path: Path) -> None:
    cache = make_cache(tmp_path / "cache", modalities=("ehr", "cxr"), stays=100)
    tiny = {"model": "concat", "hidden": "4", "fusion_hidden": "4", "epochs": "1"}
    spec = sweep_spec(tiny, ["lr=1e-3..1e-1"], {"search": "tpe", "budget": "3"})
    found = sweep(spec, cache, how=How(jobs=1, device="cpu"))
    times = [member.run.info["finished"] for member in found.roll().members]
    assert len(times) == 3
    again = sweep(spec, cache, how=How(jobs=1, device="cpu"))
    assert [member.run.info["finished"] for member in again.roll().members] == times
    with pytest.raises(ConfigError, match="--search tpe compares all runs"):
        sweep(spec, cache, how=How(jobs=1, shard="0/2"))


def test_a_guided_sweep_tries_failed_runs_again(make_cache: CacheMaker, tmp_path: Path) -> None:
    cache = make_cache(tmp_path / "cache", modalities=("ehr", "cxr"), stays=100)
    tiny = {"model": "concat", "hidden": "4", "fusion_hidden": "4", "epochs": "1"}
    spec = sweep_spec(tiny, ["lr=1e-3..1e-1"], {"search": "tpe", "budget": "3"})
    found = sweep(spec, cache, how=How(jobs=1, device="cpu"))
    member = found.roll().members[1]
    rmtree(member.run.path)
    found.fail(member, "Its worker died 3 times")
    statuses = []
    for retry in (False, True):
        found = sweep(spec, cache, how=How(jobs=1, device="cpu", retry=retry))
        statuses.append([row["status"] for row in rows(found)])
    assert statuses == [["finished", "failed", "finished"], ["finished"] * 3]
    assert not found.failures()


def test_its_estimate_is_a_bound_and_says_so(small_cache: Path) -> None:
    spec = sweep_spec({"search": "tpe", "budget": 61, "seeds": "0:1"}, ["K=1:3"], {})
    found = estimate(spec, small_cache, How())
    assert found["settings at most"] == 30
    assert found["runs at most"] == 60
    assert "settings" not in found  # three are all there are
