"""The paper's figures: numbers of the runs themselves, drawn without a look at the test stays."""

from __future__ import annotations

from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from cm2.fuse.evaluation.understanding import kendall
from cm2.fuse.group import RunGroup
from cm2.fuse.reproduce.dependence import HELD_OUT, TAU, quantities, rows_of_copula
from cm2.fuse.reproduce.experiments import EXPERIMENTS
from cm2.fuse.reproduce.forecast import forecast
from cm2.fuse.reproduce.run import plan, reproduce, write
from cm2.fuse.reproduce.show import Result, as_text
from cm2.fuse.reproduce.train import Trained

Asking = Callable[..., Any]
FIGURES = ("figure2", "figure3", "figure4")


class Run:
    """What is read of a run."""

    def __init__(self, thetas: list[float]) -> None:
        self.history = [{"epoch": 1, "kendall_tau": None}] + [
            {"epoch": e, "copula_theta": theta, TAU: 1 - 1 / theta}
            for e, theta in enumerate(thetas, 2)
        ]
        counts = {"n": 75, "positives": 18}
        self.info = {"epochs": len(thetas) + 1, "warnings": [], "rows": {"train": counts}}


class Group:
    """What is read of a group."""

    path = Path("group")

    def __init__(self, *members: Run) -> None:
        self.members = members


def course(iv: Path, asking: Asking, *runs: Run, **parts: Any) -> list[dict[str, Any]]:
    (room,) = plan("figure3", asking(iv, **parts)).rooms
    entry = room.entries[0]
    line = Trained(entry, Group(*runs), entry.tries[0])  # type: ignore[arg-type]
    return rows_of_copula(EXPERIMENTS["figure3"], room, [line])


def test_an_epoch_is_the_mean_of_the_seeds_that_reached_it(iv: Path, asking: Asking) -> None:
    rows = course(iv, asking, Run([1.2, 1.5, 2.0]), Run([1.4, 1.7]), Run([1.3, 1.9]))
    theta = {row["epoch"]: row for row in rows if row["quantity"] == "theta"}
    assert list(theta) == [2, 3, 4, "last"]
    assert [row["seeds"] for row in theta.values()] == [3, 3, 1, 3]
    assert theta[3]["value"] == pytest.approx(1.7)
    ends = [2.0, 1.7, 1.9]
    low, high = stats.t.interval(0.95, 2, np.mean(ends), stats.sem(ends))
    assert (theta["last"]["low"], theta["last"]["high"]) == pytest.approx((low, high))
    assert theta[4]["low"] is None
    assert {(row["n"], row["positives"]) for row in rows} == {(75, 18)}


def test_the_papers_numbers_stand_beside_the_last_epoch_of_its_own_inputs(
    iv: Path, asking: Asking
) -> None:
    told = {
        (row["epoch"], row["quantity"]): row["paper"]
        for row in course(iv, asking, Run([1.5]))
        if row["paper"] is not None
    }
    assert told == {("last", "theta"): 2.54349, ("last", TAU): 0.60684}
    turned = course(iv, asking, Run([1.5]), modalities=("cxr", "ehr"))
    assert all(row["paper"] is None for row in turned)


def test_quantities_go_by_pair_and_the_held_out_density_is_that_of_the_family() -> None:
    R = [[1, 0.2, 0.4], [0.2, 1, 0.6], [0.4, 0.6, 1]]
    found = quantities(
        {
            "modalities": ["a", "b", "c"],
            "family": "student",
            "parameters": {"correlation": [R, R], "nu": [4.0, 6.0]},
            "kendall_tau": R,
            "held_out": {"student": 0.05, "frank": 0.07},
        }
    )
    assert found["correlation", "a and c"] == pytest.approx(0.4)
    assert found[TAU, "b and c"] == pytest.approx(0.6)
    assert found["nu", "a and b"] == 5.0
    assert found[HELD_OUT, ""] == 0.05


class Strict(HTMLParser):
    """Collects what a page refers to."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.refers: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "link", "img")
        for name, value in attrs:
            if name == "id" and value:
                self.ids.append(value)
            if name in ("href", "src") and value:
                self.refers.append(value)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*FIGURES, "figure5"])
def test_a_figure_is_drawn_from_its_runs(
    name: str, iv: Path, asking: Asking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"epochs": 3, "lr": 2e-3}
    methods = ("K=1", "K=3") if name == "figure5" else ()
    request = asking(iv, options=options, methods=methods)
    planned = plan(name, request)
    lines = len(planned.rooms[0].entries)
    result = reproduce(planned, request, (0, 1), jobs=1, replicates=50)
    page = write(result, tmp_path)[-1]
    assert page.name == f"{name}.html"
    text = page.read_text()
    found = Strict()
    found.feed(text)
    assert len(set(found.ids)) == len(found.ids)
    assert {refers[1:] for refers in found.refers} <= set(found.ids)
    assert text.count("<svg") == 1
    (rows,) = result.rows
    if name in FIGURES:
        _reads_the_copula_alone(result, lines)
    assert all(f"<td>{row['method']}</td>" in text for row in rows)
    assert all(entry["finished"] == entry["runs"] for entry in forecast(planned, (0, 1)))
    from cm2.fuse.training import trainer

    monkeypatch.setattr(trainer, "_train", None)
    assert reproduce(planned, request, (0, 1), jobs=1, replicates=50).rows == result.rows


def _reads_the_copula_alone(result: Result, lines: int) -> None:
    (rows,) = result.rows
    groups = {row["method"]: RunGroup.open(Path(row["group"])) for row in rows}
    assert len(groups) == lines
    for method, group in groups.items():
        for run in group.members:
            assert "test" not in run.info.get("looks", {})
            assert "test" not in run.info["predictions"]
        mine = [row for row in rows if row["method"] == method and row["quantity"] == TAU]
        last = [run.history[-1][TAU] for run in group.members]
        chosen = [kendall(run.learned or {})["ehr and cxr"] for run in group.members]
        expected = chosen if mine[-1]["epoch"] == "chosen" else last
        assert mine[-1]["value"] == pytest.approx(np.mean(expected))
    assert f"{rows[-1]['value']:.3f}" in as_text(result)
