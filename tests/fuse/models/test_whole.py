"""Methods that are fitted as a whole: statistics of stays, logistic regression, boosted trees."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from scipy.special import expit
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

import cm2
from cm2.errors import ConfigError, Interrupted
from cm2.fuse.config import FuseConfig
from cm2.fuse.inference import build, predict
from cm2.fuse.models.boosting import Boosting
from cm2.fuse.models.interface import ModalitySpec
from cm2.fuse.models.logistic import Logistic
from cm2.fuse.models.statistics import WINDOWS, SeriesStatistics, StayTable, VectorColumns
from cm2.fuse.models.trees import Trees
from cm2.fuse.rundir import BEST, TRAINER
from cm2.fuse.synthetic import SPECS, make_batch
from cm2.fuse.training.trainer import fuse
from cm2.progress import Stop

CacheMaker = Callable[..., Path]

NAMES = ("pulse", "gcs->low", "gcs->high", "mask->pulse", "mask->gcs")
BOOSTING = {"trees": 30, "leaves": 5, "min_leaf": 3}
TRAINED: tuple[dict[str, Any], ...] = (
    {"task": "ihm", "model": "logistic", "options": {"strengths": 3}},
    {"task": "ihm", "model": "boosting", "options": BOOSTING},
)
both = pytest.mark.parametrize("options", TRAINED, ids=lambda o: o["model"])


def test_statistics_are_those_of_scipy_on_the_measured_cells() -> None:
    random = np.random.default_rng(0)
    n, L = 12, 20
    pulse = random.normal(80, 10, (n, L))
    low = (random.random((n, L)) < 0.4).astype(float)
    marks = (random.random((n, L, 2)) < 0.5).astype(float)
    marks[0] = 0  # a stay of which nothing was measured
    x = np.concatenate([np.stack([pulse, low, 1 - low], -1), marks], -1)
    real = np.arange(L) < random.integers(5, L + 1, n)[:, None]
    time = np.tile((np.arange(L) + 1) / L, (n, 1))
    part = SeriesStatistics(ModalitySpec("ehr", "series", 5, NAMES))
    found = part(*(torch.from_numpy(v) for v in (x.astype(np.float32), real, time)))
    assert len(part.names) == found.shape[1] == 7 * (5 + 2 + 2)
    measures: dict[str, Callable[[Any], Any]] = {
        "min": np.min, "max": np.max, "mean": np.mean, "std": np.std,
        "skew": lambda v: scipy.stats.skew(v) if len(v) > 1 else 0.0,
    }  # fmt: skip
    for column, name in enumerate(part.names):
        _, variable, kind, window = name.split(".")
        begin, end = WINDOWS[window]
        inside = (time <= end + 1e-9) & ((time > begin + 1e-9) | (begin == 0))
        measured = real & inside & (marks[..., int("gcs" in variable)] > 0)
        for i in range(n):
            cells = x.astype(np.float32)[i, measured[i]].astype(float)
            if kind == "count":
                expected = float(len(cells))
            elif not len(cells):
                expected = np.nan
            elif kind == "share":
                expected = cells[:, NAMES.index(variable)].mean()
            else:
                expected = measures[kind](cells[:, 0])
            np.testing.assert_allclose(found[i, column], expected, rtol=1e-6, atol=1e-9)


def test_unknown_columns_and_absent_modalities_are_nan() -> None:
    specs = (
        ModalitySpec("static", "vector", 3, ("age", "known:age", "male")),
        ModalitySpec("cxr", "vector", 2),
    )
    table = StayTable(specs, 64)
    batch = dataclasses.replace(
        make_batch(3),
        x={
            "static": torch.tensor([[[0.0, 0, 1]], [[0.0, 1, 0]], [[5.0, 1, 1]]]),
            "cxr": torch.ones(3, 1, 2),
        },
        mask={name: torch.ones(3, 1, dtype=torch.bool) for name in ("static", "cxr")},
        available=torch.tensor([[True, True], [True, False], [False, True]]),
    )
    nan = np.nan
    expected = [[nan, 0, 1, 1, 1], [0, 1, 0, nan, nan], [nan, nan, nan, 1, 1]]
    np.testing.assert_array_equal(table(batch).numpy(), expected)


def test_components_are_those_of_the_covariance() -> None:
    rows = torch.from_numpy(
        np.random.default_rng(1).normal(size=(80, 6)) @ np.diag([5, 4, 3, 1, 1, 1])
    )
    part = VectorColumns(ModalitySpec("cxr", "vector", 6), 3).double()
    part.fit(rows)
    found = part(rows.unsqueeze(1), torch.ones(80, 1, dtype=torch.bool))
    values = np.linalg.eigvalsh(np.cov(rows.numpy().T))[::-1][:3]
    np.testing.assert_allclose(np.cov(found.numpy().T), np.diag(values), atol=1e-9)


@pytest.mark.parametrize("leaves", [2, 9])
def test_trees_predict_what_scikit_learn_predicts(leaves: int) -> None:
    random = np.random.default_rng(2)
    x = random.normal(size=(400, 5))
    x[random.random(x.shape) < 0.2] = np.nan
    x[:, 4] = np.round(x[:, 4])  # ties with thresholds
    signal = np.nan_to_num(x[:, 0]) + 3 * np.isnan(x[:, 1])
    y = (signal + random.normal(size=400) > 0.5).astype(int)
    grown = HistGradientBoostingClassifier(
        max_iter=40, max_leaf_nodes=leaves, early_stopping=False
    ).fit(x, y)
    trees = Trees(2, 40, leaves)
    trees.grown(1, grown)
    thresholds = np.concatenate([one[0].nodes["num_threshold"] for one in grown._predictors])
    assert np.isinf(thresholds).any(), "some node parts what is known from what is not"
    assert trees.threshold.isfinite().all()
    new = random.normal(size=(500, 5)) * 2
    new[random.random(new.shape) < 0.3] = np.nan
    new[:, 4] = np.round(new[:, 4])
    for used, expected in zip((10, 40), (9, 39), strict=True):
        trees.used.fill_(used)
        staged = list(grown.staged_predict_proba(new))[expected][:, 1]
        found = trees(torch.from_numpy(new))[:, 1].sigmoid().detach().numpy()
        np.testing.assert_allclose(found, staged, rtol=0, atol=1e-12)


def test_logistic_regression_is_that_of_scikit_learn_with_weights() -> None:
    options = {"strengths": 2, "strongest": 1e-3, "weakest": 0.5}
    model = build(SPECS, FuseConfig.of({"model": "logistic", "options": options}), 2)
    assert isinstance(model, Logistic)
    batch = make_batch(90)
    unknown = torch.arange(90) % 5 == 0
    second = torch.where(unknown.unsqueeze(1), torch.nan, 1 - batch.y)
    batch = dataclasses.replace(batch, y=torch.cat([batch.y, second], 1))
    model.weigh(batch.y)
    model.fit([batch])
    columns = model.columns(batch).numpy()
    assert np.isfinite(columns).all()
    for candidate, strength in ((1, 1e-3), (2, 0.5)):
        assert model.choose(candidate)["strength"] == pytest.approx(strength)
        odds = model.linear(torch.from_numpy(columns)).detach().numpy()
        for c, rows in enumerate((np.ones(90, bool), ~unknown.numpy())):
            events = batch.y[:, c].numpy()[rows].astype(int)
            oracle = LogisticRegression(
                C=strength, class_weight="balanced", max_iter=5000, tol=1e-8
            )
            expected = oracle.fit(columns[rows], events).decision_function(columns)
            np.testing.assert_allclose(expit(odds[:, c]), expit(expected), atol=1e-3)


def test_seeds_draw_other_columns_only_where_a_share_of_them_is_tried() -> None:
    def odds(seed: int, share: float) -> torch.Tensor:
        options = {**BOOSTING, "share": share}
        model = build(SPECS, FuseConfig.of({"model": "boosting", "seed": seed, "options": options}))
        assert isinstance(model, Boosting)
        model.fit([make_batch(80)])
        return model.trees(model.columns(make_batch(20, seed=3)))

    assert torch.equal(odds(0, 1.0), odds(1, 1.0))
    assert torch.equal(odds(0, 0.2), odds(0, 0.2))
    assert not torch.equal(odds(0, 0.2), odds(1, 0.2))


@both
def test_a_run_is_chosen_by_validation_and_loads_as_a_plain_module(
    options: dict[str, Any], small_cache: Path, tmp_path: Path
) -> None:
    done = fuse(FuseConfig.of(options), small_cache, tmp_path / "run")
    scores = [row["val_auroc"] for row in done.history]
    assert len(scores) == 3
    assert done.info["best_epoch"] == 1 + scores.index(max(scores))
    assert done.history[0].keys() & {"strength", "trees"}
    loaded = cm2.load_run(done.path)
    assert isinstance(loaded, torch.nn.Module)
    table = predict(done, small_cache, "val")
    rows = cm2.open_cache(small_cache).dataset(
        "ihm", "val", ("ehr", "cxr", "report"), labelled=False
    )
    again = loaded(rows["x"], rows["mask"], rows["available"], rows["stay_id"], rows["time"])
    order = [table["stay_id"].to_pylist().index(stay) for stay in rows["stay_id"]]
    p = table["p"].to_numpy()[order]
    np.testing.assert_allclose(again[:, 0].detach().numpy(), p, rtol=0, atol=1e-12)
    assert table.equals(done.predictions("val"))


class After(Stop):
    """Stops a run once something was asked so many times."""

    def __init__(self, times: int) -> None:
        self.left = times

    def check(self, stored: str) -> None:
        self.left -= 1
        if self.left < 0:
            raise Interrupted(stored)


@both
def test_a_stopped_fit_ends_with_the_bytes_of_an_undisturbed_one(
    options: dict[str, Any], small_cache: Path, tmp_path: Path
) -> None:
    whole = fuse(FuseConfig.of(options), small_cache, tmp_path / "whole")
    for times in (0, 1):
        with pytest.raises(Interrupted):
            fuse(FuseConfig.of(options), small_cache, tmp_path / "cut", stop=After(times))
    assert (tmp_path / "cut" / TRAINER).is_file()
    cut = fuse(FuseConfig.of(options), small_cache, tmp_path / "cut")
    assert (cut.path / BEST).read_bytes() == (whole.path / BEST).read_bytes()
    assert cut.history == whole.history


@both
def test_test_stays_change_nothing_that_is_learned(
    options: dict[str, Any], make_cache: CacheMaker, small_cache: Path, tmp_path: Path
) -> None:
    spoiled = make_cache(tmp_path / "spoiled", scramble="test")
    runs = [
        fuse(FuseConfig.of(options), cache, tmp_path / str(i))
        for i, cache in enumerate((small_cache, spoiled))
    ]
    first, second = (cm2.load_run(run.path).model.state_dict() for run in runs)
    assert all(torch.equal(first[name], second[name]) for name in first)


@both
def test_several_labels_with_unknown_ones_are_fitted_each_by_itself(
    options: dict[str, Any], make_cache: CacheMaker, tmp_path: Path
) -> None:
    cache = make_cache(tmp_path / "cache", labels=("a", "b", "c"))
    done = fuse(FuseConfig.of({**options, "task": "ph", "class_weight": "balanced"}), cache)
    table = predict(done, cache, "test")
    assert sorted(set(table["target"].to_pylist())) == ["a", "b", "c"]
    assert np.isfinite(table["p"].to_numpy()).all()
    means = [np.mean(np.array(table["p"])[np.array(table["target"]) == t]) for t in "abc"]
    assert len(set(means)) == 3


def test_options_of_networks_and_streaming_are_refused() -> None:
    for given in ({"epochs": 3}, {"lr": 0.1}, {"published": {"validate_first": True}}):
        with pytest.raises(ConfigError, match="nothing with model = 'boosting'"):
            FuseConfig.of({"model": "boosting", **given})
    with pytest.raises(ConfigError, match="fitted as a whole"):
        FuseConfig.of({"model": "logistic", "mode": "stream"})
