from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import cm2
from cm2 import CM2Classifier
from cm2.errors import ConfigError, IntegrityError
from cm2.fuse.columns import from_table
from cm2.fuse.config import FuseConfig

SMALL: dict[str, Any] = {
    "hidden": 8, "fusion_hidden": 8, "copula_dim": 4, "K": 1, "lr": 0.03, "batch_size": 32,
    "epochs": 8,
}  # fmt: skip
OF_CM2 = ("copula_dim", "K", "fusion_hidden")
QUICK = {name: value for name, value in SMALL.items() if name not in OF_CM2} | {"model": "concat"}
TWO = {"left": slice(0, 4), "right": [4, 5, 6]}

NOT_HELD = {
    "check_class_weight_classifiers": "class_weight is none or balanced, as on the command line: "
    "there is no table of weights by class",
}


@parametrize_with_checks(
    [CM2Classifier(**{**QUICK, "epochs": 6})],
    expected_failed_checks=lambda estimator: NOT_HELD,
)
def test_the_checks_of_scikit_learn_hold(estimator: CM2Classifier, check: Any) -> None:
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks([CM2Classifier(**SMALL)], expected_failed_checks=lambda e: NOT_HELD)
@pytest.mark.filterwarnings("default")
def test_the_checks_of_scikit_learn_hold_for_cm2(estimator: CM2Classifier, check: Any) -> None:
    check(estimator)


def two_modalities(n: int = 240, seed: int = 0, absent: float = 0.3) -> tuple[Any, Any]:
    """Columns 0-3 and 4-6, whose label needs both; `right` is absent in some rows."""
    random = np.random.default_rng(seed)
    X = random.normal(size=(n, 7))
    y = (X[:, 0] + X[:, 4] + 0.3 * random.normal(size=n) > 0).astype(int)
    X[random.random(n) < absent, 4:] = np.nan
    return X, y


@pytest.fixture(scope="module")
def fitted() -> CM2Classifier:
    X, y = two_modalities()
    return CM2Classifier(modalities=TWO, impute="conditional", draws=4, **SMALL).fit(X, y)


def test_parameters_are_the_options_of_fuse() -> None:
    ours = CM2Classifier().get_params()
    assert ours.pop("modalities") is None
    assert ours.pop("validation_fraction") == 0.2
    assert ours.pop("device") == "auto"
    assert ours.pop("published") is None
    assert ours.pop("options") is None
    defaults = FuseConfig().model_dump()
    assert ours == {name: defaults[name] for name in ours}
    assert {"model", "copula", "K", "lambda_cop", "impute", "epochs", "seed"} <= ours.keys()
    with pytest.raises(TypeError, match="lamda_cop"):
        CM2Classifier(lamda_cop=1)


def test_it_learns_from_both_modalities(fitted: CM2Classifier) -> None:
    X, y = two_modalities(seed=1)
    both = roc_auc_score(y, fitted.predict_proba(X)[:, 1])
    alone = X.copy()
    alone[:, 4:] = np.nan
    one = roc_auc_score(y, fitted.predict_proba(alone)[:, 1])
    assert both > 0.8
    assert both > one + 0.05, "a withheld modality must cost something"


def test_a_fit_equals_the_ordinary_training_loop(tmp_path: Path) -> None:
    from cm2.fuse.rundir import RunDir
    from cm2.fuse.training.trainer import fuse

    X, y = two_modalities(120, absent=0.0)
    ours = CM2Classifier(modalities={"left": slice(0, 4), "right": slice(4, 7)}, **SMALL).fit(X, y)
    split = np.where(ours.validation_, "val", "train")
    ids = np.arange(len(y))
    stays = {"stay_id": ids, "subject_id": ids, "split": split, "y_ihm": y, "in_ihm": y >= 0}
    cm2.write_cache(tmp_path / "C", stays, {"left": X[:, :4], "right": X[:, 4:]})
    options = {**SMALL, "modalities": ("left", "right")}
    run: RunDir = fuse(FuseConfig.of(options), tmp_path / "C")
    assert run.history == ours.history_
    assert run.info["best_epoch"] == ours.best_epoch_


def test_a_prediction_depends_on_no_other_row_and_not_on_the_order(fitted: CM2Classifier) -> None:
    X, _ = two_modalities(60, seed=2)
    whole = fitted.predict_proba(X)
    np.testing.assert_allclose(fitted.predict_proba(X[::-1])[::-1], whole, atol=1e-12)
    np.testing.assert_allclose(fitted.predict_proba(X[7:8]), whole[7:8], atol=1e-12)


def test_draws_belong_to_what_a_row_holds_however_it_is_handed_in() -> None:
    random = np.random.default_rng(0)
    severity = random.normal(size=120)
    left = severity[:, None] + random.normal(size=(120, 4))
    series = severity[:, None, None] + random.normal(size=(120, 5, 3))
    left[90:], series[:40] = np.nan, np.nan
    series[40:80, 1, 2] = np.nan
    left[5, 0] = 0.0
    model = CM2Classifier(impute="conditional", draws=2, **{**SMALL, "epochs": 2})
    model.fit({"left": left, "series": series}, severity > 0)

    def told(**X: Any) -> list[Any]:
        found = model.sample_missing(X, n=3)
        return [model.predict_proba(X), found.embeddings["left"], found.embeddings["series"]]

    def assert_same(found: list[Any], expected: list[Any]) -> None:
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)

    whole = told(left=left, series=series)
    assert_same(told(series=series, left=left), whole)
    assert_same(told(left=np.where(left == 0, -0.0, left), series=series), whole)
    longer = np.concatenate([series, np.full((120, 2, 3), np.nan)], 1)
    assert_same(told(left=left, series=longer), whole)
    nothing = np.full_like(series[:90], np.nan)
    assert_same(told(left=left[:90]), told(left=left[:90], series=nothing))
    nothing = np.full_like(left[40:], np.nan)
    assert_same(told(series=series[40:]), told(left=nothing, series=series[40:]))
    unlike = told(left=left + 1e-3, series=series)[2][:, :40]
    assert np.abs(unlike - whole[2][:, :40]).max() > 1e-2, "other content, other draws"


def test_draws_average_to_the_prediction_and_leave_what_is_there(fitted: CM2Classifier) -> None:
    X, _ = two_modalities(40, seed=3)
    lacks = np.isnan(X[:, 4])
    found = fitted.sample_missing(X, n=4, seed=fitted.seed)
    np.testing.assert_allclose(
        found.probabilities.mean(0), fitted.predict_proba(X)[:, 1], atol=1e-6
    )
    np.testing.assert_array_equal(found.absent["right"], lacks)
    assert not found.absent["left"].any()
    spread = found.embeddings["right"].std(0).max(-1)
    assert (spread[lacks] > 0).all()
    assert (spread[~lacks] == 0).all()
    assert found.embeddings["left"].shape == (4, 40, SMALL["hidden"])
    again = fitted.sample_missing(X[::-1], n=4, seed=fitted.seed)
    np.testing.assert_allclose(again.probabilities[:, ::-1], found.probabilities, atol=1e-6)


def test_a_model_that_draws_nothing_says_so() -> None:
    X, y = two_modalities(80)
    model = CM2Classifier(modalities=TWO, **{**SMALL, "epochs": 1}).fit(X, y)
    with pytest.raises(ValueError, match="conditional"):
        model.sample_missing(X)


def test_dependence_and_history_can_be_read(fitted: CM2Classifier) -> None:
    assert fitted.copula_ is not None
    assert fitted.copula_["family"] == "frank"
    assert fitted.copula_["modalities"] == ["left", "right"]
    assert len(fitted.history_) == SMALL["epochs"]
    assert {"epoch", "train_task", "val_auroc", "kendall_tau"} <= fitted.history_[-1].keys()
    assert 1 <= fitted.best_epoch_ <= SMALL["epochs"]


def test_a_saved_classifier_predicts_the_same_and_refuses_altered_bytes(
    fitted: CM2Classifier, tmp_path: Path
) -> None:
    X, _ = two_modalities(30, seed=4)
    path = tmp_path / "model.safetensors"
    fitted.save(path)
    read = CM2Classifier.load(path)
    np.testing.assert_array_equal(read.predict_proba(X), fitted.predict_proba(X))
    assert read.get_params() == fitted.get_params()
    assert (read.history_, read.copula_) == (fitted.history_, fitted.copula_)
    np.testing.assert_array_equal(read.validation_, fitted.validation_)
    assert clone(read).fit(*two_modalities(80)).n_features_in_ == 7
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityError):
        CM2Classifier.load(path)


def test_classes_of_any_kind_survive_the_file(tmp_path: Path) -> None:
    X, y = two_modalities(80)
    for classes in (np.array(["alive", "dead"]), np.array([-1, 1]), np.array([False, True])):
        model = CM2Classifier(modalities=TWO, **{**QUICK, "epochs": 2}).fit(X, classes[y])
        model.save(tmp_path / "m.safetensors")
        read = CM2Classifier.load(tmp_path / "m.safetensors")
        assert read.classes_.dtype == model.classes_.dtype
        np.testing.assert_array_equal(read.predict(X), model.predict(X))
        assert set(read.predict(X)) <= set(classes)


def test_copies_predict_the_same(fitted: CM2Classifier) -> None:
    X, _ = two_modalities(20, seed=5)
    for twin in (copy.deepcopy(fitted), pickle.loads(pickle.dumps(fitted))):
        np.testing.assert_array_equal(twin.predict_proba(X), fitted.predict_proba(X))


def test_another_kind_of_checkpoint_is_refused(tmp_path: Path) -> None:
    from cm2.cache import checkpoint

    checkpoint.save(tmp_path / "x.safetensors", {}, {})
    with pytest.raises(ConfigError, match="load_run"):
        CM2Classifier.load(tmp_path / "x.safetensors")


def test_cross_validation_grid_search_and_pipelines_work_with_groups() -> None:
    X, y = two_modalities(120)
    patients = np.arange(120) // 2
    model = CM2Classifier(modalities=TWO, **{**QUICK, "epochs": 3})
    folds = list(GroupKFold(3).split(X, y, patients))
    scores = cross_val_score(model, X, y, cv=folds, scoring="roc_auc", error_score="raise")
    assert (scores > 0.6).all()
    p = cross_val_predict(model, X, y, cv=folds, method="predict_proba")
    assert p.shape == (120, 2)
    search = GridSearchCV(
        make_pipeline(StandardScaler(), model),
        {"cm2classifier__lr": [1e-5, 3e-2], "cm2classifier__hidden": np.array([4, 8])},
        cv=folds,
        scoring="roc_auc",
        error_score="raise",
    ).fit(X, y)
    assert search.best_params_["cm2classifier__lr"] == 3e-2


@pytest.mark.slow
def test_workers_train_the_same_as_one_process() -> None:
    X, y = two_modalities(80)
    model = CM2Classifier(modalities=TWO, **{**QUICK, "epochs": 2})
    one = cross_val_predict(model, X, y, cv=2, method="decision_function")
    two = cross_val_predict(model, X, y, cv=2, method="decision_function", n_jobs=2)
    np.testing.assert_array_equal(one, two)


def test_validation_rows_are_chosen_by_group_and_by_class() -> None:
    X, y = two_modalities(120)
    patients = np.array([f"p{i // 3}" for i in range(120)])
    model = CM2Classifier(modalities=TWO, **{**QUICK, "epochs": 1}).fit(X, y, groups=patients)
    held = model.validation_
    assert not set(patients[held]) & set(patients[~held])
    assert 0.15 <= held.mean() <= 0.25
    assert set(y[held]) == {0, 1}
    other = clone(model).set_params(seed=1).fit(X, y, groups=patients).validation_
    assert (other != held).any()


def test_groups_reach_fit_through_metadata_routing() -> None:
    from sklearn import config_context

    X, y = two_modalities(120)
    patients = np.arange(120) // 4
    seen: list[Any] = []

    class Seen(CM2Classifier):
        def fit(self, X: Any, y: Any, groups: Any = None) -> CM2Classifier:
            seen.append(groups)
            return super().fit(X, y, groups)

    with config_context(enable_metadata_routing=True):
        model = Seen(modalities=TWO, **{**QUICK, "epochs": 1})
        model = model.set_fit_request(groups=True)
        cross_val_score(model, X, y, cv=GroupKFold(2), params={"groups": patients})
    assert len(seen) == 2
    assert all(groups is not None and len(groups) == 60 for groups in seen)


def test_frames_are_read_by_the_names_of_their_columns() -> None:
    pandas = pytest.importorskip("pandas")
    X, y = two_modalities(120)
    frame = pandas.DataFrame(X, columns=list("abcdefg"))
    named = {"left": list("abcd"), "right": ["e", "f", "g"]}
    options = {**QUICK, "epochs": 2}
    ours = CM2Classifier(modalities=named, **options).fit(frame, y)
    plain = CM2Classifier(modalities={"left": slice(4), "right": slice(4, 7)}, **options).fit(X, y)
    np.testing.assert_array_equal(ours.predict_proba(frame), plain.predict_proba(X))
    assert ours.feature_names_in_.tolist() == list("abcdefg")
    with pytest.raises(ValueError, match="no column 'h'"):
        CM2Classifier(modalities={"left": ["a", "h"]}, **options).fit(frame, y)


def test_frames_by_modality_are_held_to_the_columns_of_fit() -> None:
    pandas = pytest.importorskip("pandas")
    X, y = two_modalities(60)
    frame = pandas.DataFrame(X[:, :4], columns=list("abcd"))
    model = CM2Classifier(**{**QUICK, "epochs": 1}).fit({"left": frame}, y)
    wanted = model.predict_proba({"left": frame[:9]})
    np.testing.assert_array_equal(model.predict_proba({"left": X[:9, :4]}), wanted)
    with pytest.raises(ValueError, match=r"columns a, b, c, d in this order.*found d, c, b, a"):
        model.predict_proba({"left": frame[list("dcba")]})
    model.fit({"left": X[:, :4]}, y)  # names that fit did not see cannot be wrong
    np.testing.assert_array_equal(model.predict_proba({"left": frame[:9]}), wanted)


def test_columns_may_be_named_by_the_index_of_a_frame(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    X, y = two_modalities(60)
    frame = pandas.DataFrame(X, columns=list("abcdefg"))
    chosen = {"left": frame.columns[:4], "right": frame.columns[4:]}
    model = CM2Classifier(modalities=chosen, **{**QUICK, "epochs": 1}).fit(frame, y)
    model.save(tmp_path / "m.safetensors")
    read = CM2Classifier.load(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(read.predict_proba(frame), model.predict_proba(frame))


def series(n: int = 100) -> tuple[dict[str, Any], Any]:
    random = np.random.default_rng(7)
    labs = random.normal(size=(n, 6, 3))
    film = random.normal(size=(n, 5))
    y = (labs[:, -1, 0] + film[:, 0] > 0).astype(int)
    labs[random.random(labs.shape) < 0.2] = np.nan
    film[:20] = np.nan
    return {"labs": labs, "film": film}, y


def test_arrays_by_modality_may_be_series() -> None:
    arrays, y = series()
    model = CM2Classifier(**{**QUICK, "epochs": 3}).fit(arrays, y)
    assert [spec.view for spec in model.model_.specs] == ["series", "vector"]
    assert model.predict_proba(arrays).shape == (100, 2)
    without = model.predict_proba({"film": arrays["film"][30:]})
    nothing = {"labs": np.full((70, 6, 3), np.nan), "film": arrays["film"][30:]}
    np.testing.assert_array_equal(without, model.predict_proba(nothing))
    with pytest.raises(ValueError, match="pulse"):
        model.predict({**arrays, "pulse": arrays["film"]})


def test_steps_of_a_series_may_be_columns_of_a_table() -> None:
    arrays, y = series()
    options = {**QUICK, "epochs": 2}
    table = np.concatenate([arrays["labs"].reshape(100, 18), arrays["film"]], 1)
    steps = np.arange(18).reshape(6, 3)
    flat = CM2Classifier(modalities={"labs": steps, "film": slice(18, None)}, **options)
    np.testing.assert_array_equal(
        flat.fit(table, y).predict_proba(table),
        CM2Classifier(**options).fit(arrays, y).predict_proba(arrays),
    )


def test_unknown_values_are_told_apart_from_zero_after_standardisation() -> None:
    X, y = two_modalities(150, absent=0.0)
    X[::3, 1] = np.nan
    model = CM2Classifier(modalities={"one": slice(0, 7)}, **{**QUICK, "epochs": 2}).fit(X, y)
    (spec,) = model.model_.specs
    assert spec.width == 14
    assert spec.columns[7:] == tuple(f"known:x{i}" for i in range(7))
    train = ~model.validation_
    mean = model.model_.encoders.parts[0].normaliser.mean[1]
    assert float(mean) == pytest.approx(np.nanmean(X[train, 1]), abs=1e-6)
    shifted = X.copy()
    shifted[:, 1] = np.where(np.isnan(X[:, 1]), np.nan, X[:, 1] + 100)
    p = CM2Classifier(modalities={"one": slice(0, 7)}, **{**QUICK, "epochs": 2}).fit(shifted, y)
    np.testing.assert_allclose(p.predict_proba(shifted), model.predict_proba(X), atol=1e-3)


def test_a_gap_that_training_had_not_takes_the_training_mean() -> None:
    X, y = two_modalities(100, absent=0.0)
    model = CM2Classifier(modalities={"one": slice(0, 7)}, **{**QUICK, "epochs": 2}).fit(X, y)
    assert model.model_.specs[0].width == 7
    gap, filled = X[:5].copy(), X[:5].copy()
    gap[:, 2] = np.nan
    filled[:, 2] = X[~model.validation_, 2].astype(np.float32).mean(dtype=np.float64)
    np.testing.assert_allclose(model.predict_proba(gap), model.predict_proba(filled), atol=1e-6)


def test_several_labels_are_predicted_at_once() -> None:
    X, y = two_modalities(120)
    labels = np.stack([y, 1 - y, (X[:, 1] > 0).astype(int)], 1)
    model = CM2Classifier(modalities=TWO, **{**QUICK, "epochs": 6}).fit(X, labels)
    p = model.predict_proba(X)
    assert p.shape == (120, 3)
    np.testing.assert_array_equal(model.predict(X), p > 0.5)
    assert np.corrcoef(p[:, 0], p[:, 1])[0, 1] < 0


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"modalities": {"left": slice(0, 0)}}, "expected columns"),
        ({"modalities": {"left": [0, 9]}}, "no column 9"),
        ({"modalities": {"left": slice(0, 4), "right": slice(4, 40)}}, "reaches beyond the 7"),
        ({"modalities": {"left": slice(-8, None)}}, "reaches beyond the 7"),
        ({"modalities": {"left": slice(0, 5), "right": [4, 5]}}, "'left' and 'right' .*column 4"),
        ({"modalities": ["left"]}, "maps names"),
        ({"validation_fraction": 1.0}, "between 0 and 1"),
        ({"K": 0}, "K = 0"),
        ({"copula": "franck"}, "Did you mean 'frank'"),
        ({"lambda_align": 0.5}, "lambda_align"),
    ],
)
def test_what_cannot_be_meant_is_a_value_error(change: dict[str, Any], text: str) -> None:
    X, y = two_modalities(40)
    with pytest.raises(ValueError, match=text):
        CM2Classifier(**{"modalities": TWO, **SMALL, **change}).fit(X, y)


def test_slices_mean_what_python_means_within_the_table() -> None:
    X, _ = two_modalities(5)
    for wanted, columns in (
        (slice(-3, None), [4, 5, 6]),
        (slice(None, -4), [0, 1, 2]),
        (slice(5, 7), [5, 6]),
        (slice(6, None, -3), [6, 3, 0]),
    ):
        found = from_table(X.astype(np.float32), {"one": wanted})["one"].values[:, 0]
        np.testing.assert_array_equal(found, X[:, columns].astype(np.float32))


def test_arrays_without_a_row_and_rows_without_a_group_are_refused() -> None:
    X, y = two_modalities(40, absent=0.0)
    arrays = {"left": X[:, :4], "right": X[:, 4:]}
    model = CM2Classifier(**{**QUICK, "epochs": 1}).fit(arrays, y)
    with pytest.raises(ValueError, match="one row or more"):
        model.predict({"left": X[:0, :4]})
    groups = [None if i < 4 else f"p{i}" for i in range(40)]
    with pytest.raises(ValueError, match=r"NoneType and str.*group of its own"):
        model.fit(arrays, y, groups=groups)
    with pytest.raises(ValueError, match=r"found NaN.*group of its own"):
        model.fit(arrays, y, groups=[np.nan, np.nan, *range(38)])


def test_rows_and_modalities_without_values_are_named() -> None:
    X, y = two_modalities(40)
    empty = X.copy()
    empty[11] = np.nan
    model = CM2Classifier(modalities=TWO, **{**QUICK, "epochs": 1})
    with pytest.raises(ValueError, match="Row 11"):
        model.fit(empty, y)
    with pytest.raises(ValueError, match="Row 11"):
        model.fit(X, y).predict(empty)
    nobody = X.copy()
    nobody[:, 4:] = np.nan
    with pytest.raises(ValueError, match="No training row has 'right'"):
        model.fit(nobody, y)


def test_scrambling_held_out_rows_moves_no_weight() -> None:
    X, y = two_modalities(100)
    model = CM2Classifier(modalities=TWO, **{**QUICK, "epochs": 2, "patience": 9}).fit(X, y)
    spoiled = X.copy()
    spoiled[model.validation_] *= -7
    other = clone(model).fit(spoiled, y)
    ours = [row["train_task"] for row in model.history_]
    assert [row["train_task"] for row in other.history_] == ours
    assert [row["val_loss"] for row in other.history_] != [r["val_loss"] for r in model.history_]
