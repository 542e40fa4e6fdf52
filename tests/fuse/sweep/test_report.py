"""The page about a sweep: whole, offline, and true to the index."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from matplotlib.axes import Axes

from cm2.cache import atomic
from cm2.errors import DataError
from cm2.fuse.config import FuseConfig
from cm2.fuse.rundir import RunDir
from cm2.fuse.sweep.book import Member, Roll, SweepDir
from cm2.fuse.sweep.grid import expand
from cm2.fuse.sweep.plots import Point, by_option, heat_map
from cm2.fuse.sweep.reading import read, text
from cm2.fuse.sweep.report import write_report
from cm2.fuse.sweep.spec import sweep_spec

GRID = ("copula=frank,gumbel,independence", "K=1:3", "lambda_cop=1e-3,1e-1")


def make_sweep(folder: Path, seeds: int = 2) -> SweepDir:
    """A finished sweep whose runs were never trained: only what a reader looks at."""
    spec = sweep_spec({}, GRID, {"seeds": f"0:{seeds - 1}"})
    settings = expand(spec.base, spec.axes).settings
    members = []
    for i, setting in enumerate(settings):
        for seed in spec.seeds:
            run = RunDir(folder / "runs" / f"run-{i}-{seed}")
            atomic.write_json(run.path / "config.json", {"config": FuseConfig().model_dump()})
            worth = 0.7 + 0.01 * setting.config.K + 0.02 * (setting.config.copula == "gumbel")
            best = {"val_auroc": worth + 0.001 * seed, "val_aupr": 0.5, "val_loss": 0.4}
            run.update(status="finished", best=best, best_epoch=1, epochs=2, seconds=1.0, sweep="x")
            members.append(Member(i, seed, 0, run))
    sweep = SweepDir.claim(folder / "sweep", "x" * 64, {"spec": spec.describe()})
    sweep.write_roll(Roll([s.values for s in settings], members, {"a <b> reason": 3}, 2))
    return sweep


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, Any]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_page_shows_the_best_and_every_figure_and_asks_nothing_of_a_network(
    tmp_path: Path,
) -> None:
    out = write_report(make_sweep(tmp_path), tmp_path / "page.html")
    source = out.read_text("utf-8")
    page = Page()
    page.feed(source)
    figures = [a["aria-label"] for tag, a in page.tags if tag == "svg"]
    assert [f for f in figures if "frank" in f or "gumbel" in f] == [
        "Mean score by lambda_cop and K, frank",
        "Mean score by lambda_cop and K, gumbel",
    ]
    assert {"Score by K", "Score by lambda_cop"} <= set(figures)
    assert figures[-1].startswith("Every setting as a line")
    assert not [tag for tag, _ in page.tags if tag in ("script", "link", "iframe", "img")]
    assert not re.search(r"https?://", source)
    first = source[source.index("<tbody>") : source.index("</tr>", source.index("<tbody>"))]
    assert "0.7505" in first
    assert "gumbel" in first
    assert "a &lt;b&gt; reason" in source
    assert "".join(page.text).count("luck") >= 2


def test_what_the_best_runs_say_of_themselves_stands_on_the_page_and_in_the_text(
    tmp_path: Path,
) -> None:
    sweep = make_sweep(tmp_path)
    said = "Encoder weights of cxr are random, not trained."
    for member in sweep.roll().members:
        member.run.update(warnings=[said])
    assert write_report(sweep, tmp_path / "page.html").read_text("utf-8").count(said) == 1
    assert text(read(sweep)).count(f"warning: {said}") == 1


def test_the_same_sweep_gives_the_same_page(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path)
    pages = [write_report(sweep, tmp_path / f"{i}.html").read_bytes() for i in range(2)]
    assert pages[0] == pages[1]


def test_a_sweep_without_a_complete_setting_has_no_page(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path)
    for member in sweep.roll().members:
        member.run.update(status="running")
    with pytest.raises(DataError, match="complete"):
        write_report(sweep, tmp_path / "page.html")


def test_means_of_an_option_have_the_interval_of_its_seeds_and_none_with_fewer_than_three(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Seeds .70, .72, .74 whatever the setting: Student's half width 4.3027 * .02 / sqrt 3."""
    points = [
        ({"K": k}, (0.70 + shift, 0.72 + shift, 0.74 + shift)) for k in (1, 2) for shift in (0, 0.1)
    ]
    seen: list[Any] = []
    monkeypatch.setattr(Axes, "errorbar", lambda *given, **more: seen.append(given[1:]))
    by_option("line", points, "K", None)
    by_option("line", [({"K": 1}, (0.6, 0.8)), ({"K": 2}, (0.7, 0.9))], "K", None)
    (levels, means, bars), (_, few, no_bars) = seen
    assert levels == [1, 2]
    assert means == pytest.approx([0.77, 0.77])
    assert bars == pytest.approx([4.30265 * 0.02 / 3**0.5] * 2, rel=1e-4)
    assert few == pytest.approx([0.7, 0.8])
    assert no_bars is None


def test_the_maps_of_all_families_have_the_same_cells_and_short_labels() -> None:
    low: Point = ({"K": 1, "lambda_cop": 0.00464159}, (0.8,))
    high: Point = ({"K": 3, "lambda_cop": 0.1}, (0.9,))
    svg = heat_map("map", "frank", [low], [low, high], "lambda_cop", "K", (0.8, 0.9))
    texts = re.findall(r"<text[^>]*>([^<]*)", svg)
    assert texts == ["0.00464", "0.1", "lambda_cop", "1", "3", "K", ".800", "frank"]
