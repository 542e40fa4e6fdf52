"""The report: offline, escaped, aggregates only, every figure drawn, absent parts named."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cm2.cache import atomic
from cm2.cache.cohort import Cohort
from cm2.errors import ConfigError
from cm2.fuse.evaluation.card import model_card
from cm2.fuse.evaluation.plots import calibration
from cm2.fuse.evaluation.plots_copula import pair_density
from cm2.fuse.evaluation.report import content, render, write_report
from cm2.fuse.rundir import RunDir

from .conftest import COHORT, FIRST_STAY, FIRST_SUBJECT, MODALITIES, MakeRun, predictions, write_run

CANARY = "<script>alert('canary')</script>\"&"


class Page(HTMLParser):
    """Collects elements with their attributes, and checks that they are nested well."""

    VOID = frozenset({"meta", "br", "img", "link", "input", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += data


def cohort(monkeypatch: pytest.MonkeyPatch, **info: Any) -> None:
    """Let the cache hold a cohort with this record."""
    rows = [
        {"rule": "ICU stays", "stays": 500, "subjects": 400, "paper": None},
        {"rule": "of an adult", "stays": 450, "subjects": 380, "paper": 440},
    ]
    found = SimpleNamespace(
        info={"attrition": rows, "synthetic": True, "release": "2.2"} | info, fingerprint=COHORT
    )
    monkeypatch.setattr(Cohort, "exists", lambda cache, name: True)
    monkeypatch.setattr(Cohort, "open", lambda cache, name: found)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page with every part: others, cache, copula, test stays."""
    folder = tmp_path_factory.mktemp("whole")
    for name in ("cxr", "report"):
        store = folder / "stores" / name / ("a" * 12)
        store.mkdir(parents=True)
        atomic.write_json(
            store / "provenance.json", {"weights": "random:0", "random_weights": True}
        )
    run = write_run(folder / "run")
    others = [
        write_run(
            folder / "single", predictions(seed=2), model="single", modalities=("ehr",), copula=None
        ),
        write_run(folder / "concat", predictions(seed=3), model="concat", copula=None),
        write_run(folder / "unjudged", model="concat", seed=9, copula=None, splits=("val",)),
    ]
    with pytest.MonkeyPatch.context() as monkeypatch:
        cohort(monkeypatch)
        out = write_report(run, folder / "out" / "report.html", cache=folder, others=others)
    return out.read_text("utf-8")


def test_the_page_asks_nothing_of_any_network(whole: str) -> None:
    page = Page(whole)
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", whole)
    for tag, attributes in page.elements:
        assert tag not in {"script", "link", "iframe", "object", "embed", "base", "form", "img"}
        assert not {name for name in attributes if name.startswith("on") or name == "src"}
        href = attributes.get("href")
        assert href is None or href.startswith("#")
    policy = [a["content"] for t, a in page.elements if a.get("http-equiv")]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]


def test_every_reference_within_the_page_has_its_one_target(whole: str) -> None:
    page = Page(whole)
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    targets = set(re.findall(r'(?:href="#|url\(#)([^")]+)', whole))
    assert targets
    assert targets <= set(ids)


def test_every_figure_holds_data(whole: str) -> None:
    figures = re.findall(r"<svg class=\"figure.*?</svg>", whole, re.DOTALL)
    labels = [re.search(r'aria-label="([^"]+)"', figure)[1] for figure in figures]  # type: ignore[index]
    assert len(figures) == 6 + 3
    for label, figure in zip(labels, figures, strict=True):
        marked = re.findall(r'<g id="[^"]*-(?:curve\d|train_\w+|val_\w+|ks|kendall_tau|spread|'
            r'effective_rank)">(.*?)</g>', figure, re.DOTALL)  # fmt: skip
        for kind in ("QuadContourSet", "QuadMesh") if "Copula density" in label else ():
            panel = re.search(rf'<g id="[^"]*-{kind}_1".*?(?=<g id="[^"]*-patch)', figure, re.S)
            assert panel is not None, label
            fills = re.findall(r'<path d="[^"]+"[^>]*fill: var\(--(d\d+)\)', panel[0])
            assert len(set(fills)) >= 5, (label, kind)
        assert marked or "Copula density" in label, label
        for body in marked:
            path = re.search(r'<path d="([^"]+)"', body)
            assert path is not None, label
            assert path[1].count("L") >= 3, label
    by_label = dict(zip(labels, figures, strict=True))
    roc = by_label["ROC curves with a bootstrap band for this run"]
    assert [f'id="roc-curve{i}"' in roc for i in range(4)] == [True, True, True, False]
    assert "FillBetween" in roc


def test_no_color_of_the_drawing_is_left_and_both_themes_define_all(whole: str) -> None:
    assert not re.search(r"#01[0-9a-f]{2}fe", whole)
    assert "#000000" not in whole
    light, dark = whole.split("@media (prefers-color-scheme: dark)")
    for name in set(re.findall(r"var\(--(\w+)\)", whole)):
        assert f"--{name}:" in light
        assert f"--{name}:" in dark.split("</style>")[0]


def test_no_stay_and_no_patient_can_be_found_in_the_page(whole: str) -> None:
    numbers = {int(text) for text in re.findall(r"\d{7}", whole)}
    assert not numbers & set(range(FIRST_STAY, FIRST_STAY + 120))
    assert not numbers & set(range(FIRST_SUBJECT, FIRST_SUBJECT + 120))


def test_the_page_is_a_function_of_the_runs(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    pages = [write_report(run, tmp_path / f"{i}.html", cache=None).read_bytes() for i in (0, 1)]
    assert pages[0] == pages[1]


def test_the_page_says_what_it_shows(whole: str) -> None:
    text = " ".join(Page(whole).text.split())
    events = sum(predictions()["y"].to_pylist())
    for words in (
        "In-hospital mortality",
        "MIMIC-IV-shaped synthetic demo",
        "Synthetic data: patients, films and reports are made up",
        "Random weights: the encoder of Chest film and Radiology report was never trained",
        f"120 test stays with {events} events ({100 * events / 120:.1f} %)",
        "The test stays have been looked at once",
        "Holm-adjusted over 4 comparisons",
        "single (ehr)",
        "Not shown, because not judged on test stays: concat (ehr+cxr+report)",
        "published: 440",
        "−50",
        "not a medical device",
        f"{events} of the 120 judged stays are of the rarer class",
        "frank, rosenblatt coupling",
        "θ2.500",
    ):
        assert words in text, words


def test_differences_are_this_run_minus_the_other(make_run: MakeRun) -> None:
    good = make_run("good", predictions(seed=1, noise=0.3))
    bad = make_run("bad", predictions(seed=2, noise=4.0), model="concat")
    rows = content(good, None, [bad])["results"]
    ahead = rows[1]["ahead"]["auroc"]
    assert ahead["value"] == rows[0]["auroc"]["value"] - rows[1]["auroc"]["value"] > 0
    assert 0 < ahead["low"] < ahead["value"] < ahead["high"]


def test_text_from_outside_is_escaped_everywhere(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = make_run(task=CANARY, table=predictions(task=CANARY), cohort=CANARY)
    info = run.info
    info["spaces"]["cxr"]["encoder"] = CANARY
    run.update(dataset=CANARY, warnings=[CANARY], spaces=info["spaces"], versions={CANARY: CANARY})
    rule = {"rule": CANARY, "stays": 9, "subjects": 9, "paper": CANARY}
    cohort(monkeypatch, attrition=[rule], release=CANARY)
    page = render(content(run, tmp_path, []))
    assert "<script" not in page
    assert page.count("canary") >= 8
    assert Page(page).text.count(CANARY) >= 8


def test_validation_alone_is_said_plainly(make_run: MakeRun) -> None:
    page = render(content(make_run(splits=("val",)), None, []))
    assert "Validation only" in page
    assert "120 validation stays" in page
    assert "No test stay has been looked at" in page
    assert "looked at once" not in page


def test_several_labels_are_counted_by_stay_and_the_uninformed_lines_are_means_over_labels(
    make_run: MakeRun,
) -> None:
    table = predictions()
    common, n = table["y"].to_numpy(), table.num_rows
    rare = np.where(np.arange(n) % 10 == 0, 1, 0)
    parts = [
        table.set_column(
            table.column_names.index("target"), "target", pa.array([name] * n)
        ).set_column(table.column_names.index("y"), "y", pa.array(y, pa.int8()))
        for name, y in (("common", common), ("rare", rare))
    ]
    run = make_run(table=pa.concat_tables(parts))
    page = content(run, None, [])
    either = int((common | rare).sum())
    assert (page["n"], page["positives"], page["prevalence"]) == (n, either, either / n)
    rates = np.array([common.mean(), rare.mean()])
    assert page["uninformed"]["aupr"] == pytest.approx(rates.mean())
    assert page["uninformed"]["brier"] == pytest.approx((rates * (1 - rates)).mean())
    text = " ".join(Page(render(page)).text.split())
    assert "2 labels: a stay counts as an event if it has any of them" in text
    assert [(row["name"], row["positives"]) for row in page["by_label"]] == [
        ("common", int(common.sum())),
        ("rare", int(rare.sum())),
    ]
    assert "By label, this run" in text
    assert f"{rare.sum()} of the {n} judged stays are of the rarer class of 'rare'" in text


def test_few_events_of_a_label_are_withheld_in_its_row_and_in_words(make_run: MakeRun) -> None:
    table = predictions()
    n, at = table.num_rows, table.column_names.index("target")
    few = table.set_column(at, "target", pa.array(["few"] * n))
    few = few.set_column(
        table.column_names.index("y"), "y", pa.array([1] * 3 + [0] * (n - 3), pa.int8())
    )
    page = content(make_run(table=pa.concat_tables([table, few])), None, [])
    assert page["by_label"][0] == {"name": "few", "n": n, "few": True, "positives": None}
    assert f"Fewer than 5 of the {n} judged stays are of the rarer class of 'few'" in render(
        page
    ).replace("&#39;", "'")


def test_a_look_at_all_stays_was_one_at_the_test_stays(make_run: MakeRun) -> None:
    run = make_run(splits=("val",))
    run.count_look("all")
    page = render(content(run, None, []))
    assert "Validation only" in page
    assert "No test stay has been looked at" not in page
    assert "The test stays have been looked at 1 time with this run" in page


def test_missing_parts_are_named_and_draw_nothing(make_run: MakeRun) -> None:
    run = make_run(model="single", modalities=("ehr",), copula=None)
    page = render(content(run, None, []))
    assert "This run has no copula" in page
    assert "Not shown: the run’s own cache is not at hand" in page
    assert "cannot tell whether the data are synthetic" in page
    assert "Copula density" not in page


def test_one_class_leaves_curves_out_and_says_why(make_run: MakeRun) -> None:
    table = predictions()
    at = table.column_names.index("y")
    run = make_run(table=table.set_column(at, "y", pa.array([0] * 120, pa.int8())))
    page = render(content(run, None, []))
    assert page.count("the judged stays are all of one class") == 2
    assert "only one class is present" in page
    Page(page)


def test_small_groups_are_pooled_and_small_event_counts_withheld(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    table = predictions()
    patterns = ["ehr+cxr"] * 3 + ["ehr+cxr+report"] * 17 + ["ehr"] * 100
    table = table.set_column(10, "pattern", pa.array(patterns))
    y = [1, 0, 0] + [1] + [0] * 16 + [1] * 30 + [0] * 70
    table = table.set_column(8, "y", pa.array(y, pa.int8()))
    run = make_run(table=table)
    rows = content(run, None, [])["patterns"]
    assert [(row["n"], row["positives"], row["pooled"]) for row in rows] == [
        (100, None, 0),
        (20, None, 2),
    ]
    assert rows[1]["present"] == ["all", "all", "some"]
    assert rows[1]["auroc"] is None
    cohort(monkeypatch)
    made_up = content(run, tmp_path, [])
    assert [(row["n"], row["positives"], row["pooled"]) for row in made_up["patterns"]] == [
        (100, 30, 0),
        (17, 1, 0),
        (3, 1, 0),
    ]
    assert "no count is withheld" in render(made_up)


def test_the_few_stays_that_lack_a_modality_cannot_be_had_by_subtraction(make_run: MakeRun) -> None:
    run = make_run()
    rows = run.info["rows"]
    for part in rows.values():
        part["available"]["ehr"] = 117
    run.update(rows=rows)
    page = render(content(run, None, []))
    assert "over 115 of 120" in page
    assert "117 of 120" not in page
    assert "width: 95.83%" in page  # 115; the bar of 117 would tell
    assert "width: 97.50%" not in page
    assert "over 115 of 120 |" in model_card(run, None)


def test_observed_ranks_are_drawn_only_for_five_stays_or_more(make_run: MakeRun) -> None:
    run = make_run()
    learned = run.learned
    assert learned is not None
    width = run.config.copula_dim
    for name, stays in (("ehr,cxr", 5), ("ehr,report", 4), ("cxr,report", 0)):
        table = np.zeros((10, 10), int)
        table[0, 0] = stays * width
        learned["u_histogram"][name] = table.tolist()
    atomic.write_json(run.path / "learned.json", learned)
    page = render(content(run, None, []))
    assert page.count("Observed, validation") == 1
    assert page.count("Learned density") == 3
    assert page.count("fewer than 5 validation stays have both") == 2
    learned["u_histogram"]["ehr,cxr"][0][0] = 118 * width
    atomic.write_json(run.path / "learned.json", learned)
    assert "over 115 validation stays have both" in render(content(run, None, []))


def test_bars_of_a_few_stays_are_evened_out_unless_the_stays_are_made_up() -> None:
    p = np.array([0.02] * 20 + [0.07] * 9 + [0.52])
    y = (np.arange(30) % 2).astype(np.int64)
    assert calibration(y, p) != calibration(y, p, 1)
    moved = np.array([0.02] * 20 + [0.07] * 8 + [0.52] * 2)  # the same ten stays, evened out
    bars = [re.findall(r'<path d="([^"]+)" clip-path', calibration(y, q)) for q in (p, moved)]
    assert bars[0][-20:] == bars[1][-20:]
    assert len(bars[0]) >= 20


@pytest.mark.parametrize("family", ["gaussian", "frank"])
def test_the_drawn_density_is_that_of_the_pair(family: str, make_run: MakeRun) -> None:
    run = make_run(copula=family)
    learned = run.learned
    assert learned is not None
    u = (np.arange(200) + 0.5) / 200
    density = pair_density(family, learned["parameters"], 3, (0, 1), u)
    np.testing.assert_allclose(density.mean(axis=0), 1, atol=0.02)
    np.testing.assert_allclose(density, density.T, rtol=1e-9)
    if family == "gaussian":
        r = 0.5
        from scipy.stats import multivariate_normal, norm

        x = norm.ppf([u[30], u[150]])
        joint = multivariate_normal.pdf(x, cov=[[1, r], [r, 1]])
        assert density[30, 150] == pytest.approx(joint / norm.pdf(x).prod(), rel=1e-9)
    assert "Copula density of ehr and cxr" in render(content(run, None, []))


def test_parameters_by_coordinate_are_averaged() -> None:
    u = (np.arange(20) + 0.5) / 20
    each = [pair_density("frank", {"theta": t}, 2, (0, 1), u) for t in (1.0, 4.0)]
    both = pair_density("frank", {"theta": [1.0, 4.0]}, 2, (0, 1), u)
    np.testing.assert_allclose(both, (each[0] + each[1]) / 2, rtol=1e-12)


def test_counts_of_another_cohort_are_refused(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = make_run()
    with pytest.raises(ConfigError, match="does not hold the cohort 'default'"):
        content(run, tmp_path, [])
    cohort(monkeypatch)
    assert content(run, tmp_path, [])["synthetic"]
    run.update(fingerprints={**run.info["fingerprints"], "cohort": "d" * 64})
    with pytest.raises(ConfigError, match="not true of this run"):
        content(run, tmp_path, [])


def test_an_unfinished_run_is_refused(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    run.update(status="running")
    with pytest.raises(ConfigError, match="not finished"):
        write_report(run, tmp_path / "x.html", cache=None)


def test_a_run_of_two_modalities_names_them(make_run: MakeRun) -> None:
    run: RunDir = make_run(modalities=MODALITIES[:2], model="concat", copula=None)
    titles = [row["title"] for row in content(run, None, [])["inputs"]]
    assert titles == ["EHR series", "Chest film"]


@pytest.mark.parametrize("encoder", ["lstm", "transformer"])
def test_the_encoder_of_series_is_called_by_its_name(make_run: MakeRun, encoder: str) -> None:
    page = content(make_run(series_encoder=encoder), None, [])
    assert page["inputs"][0]["encoder"].lower() == f"{encoder} over the series"


def test_one_fold_says_that_it_is_one_of_several_and_a_run_left_out_is_told_from_the_others(
    make_run: MakeRun,
) -> None:
    run = make_run("a", folds=5, fold=3)
    judged = make_run("b", folds=5, fold=3, seed=1)
    unjudged = make_run("c", folds=5, fold=3, seed=2, splits=("val",))
    page = render(content(run, None, [judged, unjudged]))
    assert "fold <b>3</b> of 5" in page
    assert "One fold is shown, number 3 of 5" in page
    assert "not judged on test stays: CM2 (ehr+cxr+report), seed 2." in page
    assert "One fold" not in " ".join(content(make_run("d"), None, [])["limits"])


def test_what_was_found_on_another_cohort_stands_in_a_table_of_its_own(make_run: MakeRun) -> None:
    run = make_run()
    assert "other cohorts" not in render(content(run, None, []))
    own = run.metrics("test")
    assert own is not None
    auroc = {"value": 0.6543, "low": 0.5, "high": 0.8}
    run.write_metrics("test@abc", {**own, "external": "elsewhere (test@abc)", "auroc": auroc})
    page = render(content(run, None, []))
    assert "elsewhere (test@abc)" in page
    assert "0.654" in page
    assert content(run, None, [])["results"][0]["auroc"]["value"] != 0.6543
