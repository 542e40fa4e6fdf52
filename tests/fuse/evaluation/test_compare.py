"""Runs against a baseline: the same stays, paired differences, one Holm family, four layouts."""

from __future__ import annotations

import csv
import io
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cm2.errors import ConfigError, DataError
from cm2.fuse.evaluation.compare import compare
from cm2.fuse.evaluation.layout import layout_rows
from cm2.fuse.evaluation.metrics import (
    auroc,
    average_precision,
    bootstrap,
    delong,
    holm,
    paired_bootstrap,
)
from cm2.fuse.evaluation.paired import labels, paired
from cm2.fuse.rundir import RunDir

from .conftest import MakeRun, predictions


@pytest.fixture
def three(make_run: MakeRun) -> list[RunDir]:
    return [
        make_run("good", predictions(seed=1, noise=0.8)),
        make_run("bad", predictions(seed=2, noise=3.0), model="concat"),
        make_run("base", predictions(seed=3, noise=1.5), model="concat", seed=1),
    ]


def test_rows_hold_the_paired_tests_of_each_metric(three: list[RunDir]) -> None:
    rows = compare(three, three[2], replicates=200)
    assert [(row["name"][:3], row["metric"]) for row in rows] == [
        (name, metric) for metric in ("auroc", "aupr") for name in ("CM2", "con", "con")
    ]
    tables = [run.predictions("test") for run in three]
    y, groups = tables[0]["y"].to_numpy(), tables[0]["subject_id"].to_numpy()
    p = [table["p"].to_numpy() for table in tables]
    drawn = bootstrap(y, p, groups, replicates=200)
    expected = []
    for metric, point in (("auroc", auroc), ("aupr", average_precision)):
        for i in (0, 1):
            values = (drawn[i].values[metric], drawn[2].values[metric])
            gap = point(y, p[i]) - point(y, p[2])  # type: ignore[operator]
            expected.append(paired_bootstrap(*values, gap))
    compared = [row for row in rows if "difference" in row]
    keys = ("difference", "difference_low", "difference_high", "p_bootstrap")
    assert [tuple(row[key] for key in keys) for row in compared] == expected
    assert [row["p_holm"] for row in compared] == holm([one.p for one in expected])
    assert {row["comparisons"] for row in compared} == {4}
    test = delong(y, p[0], p[2], groups)
    assert test is not None
    assert compared[0]["p_delong"] == test.p
    assert compared[2]["p_delong"] is None


def test_a_baseline_spelled_another_way_is_not_compared_with_itself(
    three: list[RunDir], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(three[0].path.parent)
    baseline = RunDir(Path(three[0].path.name))
    rows = compare(three, baseline, metrics=("auroc",), replicates=20)
    assert [row.get("comparisons") for row in rows] == [2, 2, None]


def test_only_common_stays_are_compared_and_the_rest_is_said(
    make_run: MakeRun, caplog: pytest.LogCaptureFixture
) -> None:
    whole, part = make_run("whole"), make_run("part", predictions(seed=4).slice(0, 90))
    shuffled = np.random.default_rng(0).permutation(120)
    again = make_run("again", predictions(seed=5).take(shuffled))
    with caplog.at_level(logging.WARNING, logger="cm2.fuse.evaluation"):
        data = paired([whole, part, again], "test")
    assert len(data.y) == 90
    assert data.left_out == [30, 0, 30]
    assert "90 test stays" in caplog.text
    assert "30 of whole" in caplog.text
    np.testing.assert_array_equal(data.p[2][0][:, 0], predictions(seed=5)["p"].to_numpy()[:90])


def _with(table: pa.Table, name: str, values: list[Any]) -> pa.Table:
    at = table.column_names.index(name)
    return table.set_column(at, name, pa.array(values, table.schema.field(name).type))


def test_other_stays_targets_patients_and_tasks_are_refused(make_run: MakeRun) -> None:
    base = make_run("base")
    table = predictions()
    stays = _with(table, "stay_id", [s + 1000 for s in table["stay_id"].to_pylist()])
    with pytest.raises(DataError, match=r"share no judged test stay.*has 120"):
        compare([make_run("stays", stays)], base)
    y = table["y"].to_pylist()
    with pytest.raises(DataError, match="2 of 120 common stays have another target"):
        compare([make_run("y", _with(table, "y", [1 - y[0], 1 - y[1], *y[2:]]))], base)
    subjects = table["subject_id"].to_pylist()
    with pytest.raises(DataError, match="1 of 120"):
        compare([make_run("s", _with(table, "subject_id", [1, *subjects[1:]]))], base)
    with pytest.raises(ConfigError, match="different tasks cannot be compared: ihm, readm"):
        compare([make_run("task", task="readm")], base)
    with pytest.raises(DataError, match="cm2 evaluate"):
        compare([make_run("unjudged", splits=("val",))], base)
    with pytest.raises(ConfigError, match="'auroc'"):
        compare([base], base, metrics=("auroq",))
    with pytest.raises(ConfigError, match=r"Unknown split 'tset'\. Did you mean 'test'"):
        compare([base], base, "tset")


def test_one_class_leaves_differences_null(make_run: MakeRun) -> None:
    tables = [_with(predictions(seed=s), "y", [0] * 120) for s in (0, 1)]
    runs = [make_run(f"run{i}", table, splits=("test",)) for i, table in enumerate(tables)]
    rows = compare(runs, runs[1], metrics=("auroc", "brier"), replicates=50)
    assert rows[0]["difference"] is None
    assert rows[0]["p_holm"] is None
    assert rows[2]["p_holm"] == rows[2]["p_bootstrap"]


def test_runs_are_named_by_what_tells_them_apart(make_run: MakeRun) -> None:
    runs = [
        make_run("a"),
        make_run("b", lambda_cop=0.1, seed=4),
        make_run("c", model="single", modalities=("ehr",)),
    ]
    assert labels(runs) == [
        "CM2 (ehr+cxr+report), lambda_cop 0.01, seed 0",
        "CM2 (ehr+cxr+report), lambda_cop 0.1, seed 4",
        "single (ehr)",
    ]


def test_layouts_show_every_row(three: list[RunDir]) -> None:
    rows = compare(three, three[2], replicates=50)
    text = layout_rows(rows)
    assert text.count("baseline") == 2
    assert "family: 4 comparisons, primary metric AUROC" in text
    read = list(csv.DictReader(io.StringIO(layout_rows(rows, "csv"))))
    assert [float(line["value"]) for line in read] == [row["value"] for row in rows]
    markdown = layout_rows(rows, "md").split("\n\n")[0].splitlines()
    assert len(markdown) == 2 + len(rows)
    assert {line.count("|") for line in markdown} == {10}
    latex = layout_rows(rows, "latex")
    assert latex.count(r"\\") == 1 + len(rows)
    assert latex.count(" & ") == 8 * (1 + len(rows))
    with pytest.raises(ConfigError, match="Did you mean 'latex'"):
        layout_rows(rows, "latec")


def test_names_cannot_break_out_of_a_layout(three: list[RunDir]) -> None:
    rows = compare(three[:1], three[2], replicates=20)
    rows[0]["name"] = "=cmd()|<b>_50%&"
    assert next(csv.DictReader(io.StringIO(layout_rows(rows, "csv"))))["name"].startswith("'=cmd()")
    assert r"=cmd()\|&lt;b>" in layout_rows(rows, "md")
    assert r"=cmd()|$<$b$>$\_50\%\&" in layout_rows(rows, "latex")
