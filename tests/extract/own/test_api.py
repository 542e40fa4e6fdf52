from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import cm2
from cm2.cache import atomic
from cm2.cache.cohort import Cohort
from cm2.cache.dataset import Cache
from cm2.errors import CM2Error, ConfigError, DataError, LeakageError, SchemaError
from cm2.extract.config import ExtractConfig
from cm2.extract.runner import extract

# Rows not in the order of their ids: write_cache must keep each array with its stay.
STAYS: dict[str, list[Any]] = {
    "stay_id": [5, 3, 4, 1, 2, 6],
    "subject_id": ["p", "q", "q", "r", "s", "t"],
    "split": ["train", "train", "train", "val", "test", "train"],
    "y_aki": [1, 0, None, 1, 0, 1],
    "in_aki": [1, 1, 1, 1, 1, 0],
    "sex": ["F", "M", "M", "F", "F", "M"],
}
VECTORS = np.arange(6, dtype=np.float64)[:, None] + np.array([0.0, 0.5])
SERIES = np.repeat(np.arange(6, dtype=np.float32), 6).reshape(6, 3, 2) + 1
STEPS = np.array([[1, 1, 0], [1, 1, 1], [1, 0, 0], [1, 1, 1], [0, 0, 0], [1, 1, 1]])


def _write(path: Path, **more: Any) -> Cache:
    given = {"stays": STAYS, "modalities": {"x": VECTORS, "lab": SERIES}, "masks": {"lab": STEPS}}
    return cm2.write_cache(path, **{**given, **more})


def test_what_was_written_comes_back_as_tensors_with_masks(tmp_path: Path) -> None:
    _write(tmp_path / "c")
    cache = cm2.open_cache(tmp_path / "c")
    assert (cache.tasks, cache.modalities) == (("aki",), ("lab", "x"))
    found = cache.dataset("aki", "train", ["x", "lab"])
    assert found["stay_id"] == [3, 5]  # 4 has no label, 6 is not eligible
    assert found["subject_id"] == ["q", "p"]
    assert found["y"].tolist() == [[0.0], [1.0]]
    assert found["labels"] == ("aki",)
    assert found["x"]["x"].tolist() == [[[1.0, 1.5]], [[0.0, 0.5]]]
    assert found["mask"]["x"].tolist() == [[True], [True]]
    assert found["x"]["lab"].tolist() == [[[2, 2]] * 3, [[1, 1], [1, 1], [0, 0]]]
    assert found["mask"]["lab"].tolist() == [[True] * 3, [True, True, False]]
    assert found["available"].all()
    assert found["x"]["x"].dtype == found["y"].dtype == torch.float32
    assert found["mask"]["lab"].dtype == found["available"].dtype == torch.bool


def test_a_table_of_vectors_keeps_the_names_of_its_columns(tmp_path: Path) -> None:
    frame = pl.DataFrame(VECTORS, schema=["crea", "urea"])
    made = _write(tmp_path / "c", modalities={"x": frame}, masks={})
    assert made.dataset("aki", "all")["columns"]["x"] == ("crea", "urea")


def test_what_a_masked_array_hides_is_unknown(tmp_path: Path) -> None:
    hidden = np.ma.masked_array(VECTORS, mask=[[i < 3] * 2 for i in range(6)])
    found = _write(tmp_path / "c", modalities={"x": hidden}, masks={}).dataset("aki", "all", ["x"])
    assert found["stay_id"] == [1, 2]  # 5, 3 and 4 have nothing, 6 is not eligible


def test_a_column_that_holds_no_plain_values_is_named(tmp_path: Path) -> None:
    for values in ([[1]] * 6, np.arange(6).astype("timedelta64[ms]")):
        with pytest.raises(SchemaError, match="column past must hold numbers, words"):
            _write(tmp_path / "c", stays={**STAYS, "past": values})


def test_rows_and_labels_can_be_left_in(tmp_path: Path) -> None:
    cache = _write(tmp_path / "c")
    everything = cache.dataset("aki", "all", labelled=False)
    assert everything["stay_id"] == [1, 2, 3, 4, 5]
    assert torch.isnan(everything["y"][3]).item()
    assert everything["modalities"] == ("lab", "x")
    assert everything["available"][1].tolist() == [False, True]  # stay 2: no step is real
    assert cache.dataset("aki", "all", rows="matched")["stay_id"] == [1, 3, 5]
    assert cache.dataset("aki", "test", ["lab"])["stay_id"] == []


def test_unknown_values_are_marked_and_a_row_of_them_is_absence(tmp_path: Path) -> None:
    values = VECTORS.copy()
    values[0, 1] = values[2] = np.nan
    cache = _write(tmp_path / "c", modalities={"x": values}, masks=None, columns={"x": ["a", "b"]})
    found = cache.dataset("aki", "all", labelled=False)
    assert found["columns"] == {"x": ("a", "b", "known:a", "known:b")}
    assert found["stay_id"] == [1, 2, 3, 5]
    assert found["x"]["x"][3].tolist() == [[0.0, 0.0, 1.0, 0.0]]


@pytest.mark.parametrize("kind", ["polars", "lazy", "arrow", "pandas", "numpy"])
def test_any_table_gives_the_same_cache(tmp_path: Path, kind: str) -> None:
    frame = pl.DataFrame(STAYS)
    if kind == "pandas":
        pandas = pytest.importorskip("pandas", reason="pandas is not installed")
        stays: Any = pandas.DataFrame(STAYS)  # y_aki becomes float with NaN
    elif kind == "numpy":
        stays = {name: np.array(values) for name, values in STAYS.items() if name != "y_aki"}
        stays["y_aki"] = np.array([1, 0, np.nan, 1, 0, 1])
        stays = {name: stays[name] for name in STAYS}
    else:
        stays = {"polars": frame, "lazy": frame.lazy(), "arrow": frame.to_arrow()}[kind]
    first, second = _write(tmp_path / "a"), _write(tmp_path / "b", stays=stays)
    assert second.cohort.fingerprint == first.cohort.fingerprint


def test_it_is_the_cache_that_the_command_makes(tmp_path: Path) -> None:
    _write(tmp_path / "api")
    pl.DataFrame(STAYS).write_csv(tmp_path / "stays.csv")
    np.savez(tmp_path / "x.npz", stay_id=np.array(STAYS["stay_id"]), values=VECTORS)
    np.savez(tmp_path / "l.npz", stay_id=np.array(STAYS["stay_id"]), values=SERIES, mask=STEPS)
    words = (f"x={tmp_path / 'x.npz'}", f"lab={tmp_path / 'l.npz'}")
    extract(
        ExtractConfig(
            data=tmp_path, cache=tmp_path / "cli", stays=tmp_path / "stays.csv", modality=words
        )
    )
    trees = [
        {
            str(file.relative_to(tmp_path / name)): atomic.sha256_file(file)
            for file in (tmp_path / name).rglob("*")
            if file.is_file() and "receipts" not in file.parts and file.name != "provenance.json"
        }
        for name in ("api", "cli")
    ]
    assert trees[0] == trees[1]


def test_the_same_call_changes_nothing_and_new_values_are_linked(tmp_path: Path) -> None:
    cohort = _write(tmp_path / "c").cohort
    before = {p: atomic.sha256_file(p) for p in (tmp_path / "c").rglob("*") if p.is_file()}
    _write(tmp_path / "c")
    after = {p: atomic.sha256_file(p) for p in (tmp_path / "c").rglob("*") if p.is_file()}
    assert after == before
    again = _write(tmp_path / "c", modalities={"x": VECTORS + 10}, masks=None)
    assert again.cohort.fingerprint == cohort.fingerprint
    assert again.dataset("aki", "val", ["x"])["x"]["x"].tolist() == [[[13.0, 13.5]]]


INFINITE = np.where(VECTORS == 2.5, np.inf, VECTORS)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"modalities": {"x": VECTORS[:5]}}, SchemaError, "n = 6"),
        ({"modalities": {"x": VECTORS[:, 0]}}, SchemaError, r"\[n, D\]"),
        ({"modalities": {"x": INFINITE}}, DataError, "1 rows .*row 2, stay 4"),
        ({"modalities": {"x": VECTORS * 1e39}}, DataError, "too large"),
        ({"modalities": {"x": VECTORS * np.nan}}, DataError, "no stay has a value"),
        ({"modalities": {}}, ConfigError, "at least one"),
        ({"modalities": {"../x": VECTORS}}, ConfigError, "cannot name a folder"),
        ({"masks": {"y": STEPS}}, ConfigError, "found x and y"),
        ({"columns": {"x": ["a"]}}, SchemaError, "names 1 columns, values have 2"),
        ({"cohort": "../c"}, ConfigError, "cohort"),
        ({"dataset": "a b"}, ConfigError, "dataset"),
        ({"stays": [1, 2]}, SchemaError, "found list"),
        ({"stays": {"stay_id": [1, 2], "subject_id": [1]}}, SchemaError, "equally long"),
        ({"stays": {**STAYS, "stay_id": [1] * 6}}, DataError, "several rows"),
        ({"stays": {"stay_id": STAYS["stay_id"]}}, ConfigError, "subject_id"),
        ({"stays": {**STAYS, "subject_id": [1] * 6}}, LeakageError, "more than one"),
        ({"stays": {**STAYS, "y_aki": [2] * 6}}, SchemaError, "0, 1 or nothing"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_written(
    tmp_path: Path, change: dict[str, Any], error: type[CM2Error], words: str
) -> None:
    given: dict[str, Any] = {"modalities": {"x": VECTORS}, "masks": None, **change}
    with pytest.raises(error, match=words):
        _write(tmp_path / "c", **given)
    assert not (tmp_path / "c").exists()


def test_an_infinite_value_that_the_mask_hides_is_allowed(tmp_path: Path) -> None:
    cells = np.isfinite(INFINITE)
    cache = _write(tmp_path / "c", modalities={"x": INFINITE}, masks={"x": cells})
    assert cache.dataset("aki", "all", labelled=False)["x"]["x"][3].tolist() == [[2, 0, 1, 0]]


def test_other_stays_under_the_same_name_are_refused(tmp_path: Path) -> None:
    fingerprint = _write(tmp_path / "c").cohort.fingerprint
    with pytest.raises(ConfigError, match="exists with other stays"):
        _write(tmp_path / "c", stays={**STAYS, "y_aki": [0, 1] * 3})
    assert Cohort.open(tmp_path / "c").fingerprint == fingerprint
    stays = {"stay_id": STAYS["stay_id"]}
    other = _write(tmp_path / "c", stays=stays, cohort="other", subject_is_stay=True)
    assert other.tasks == ()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nope",), "no task 'nope'; it has aki"),
        (("aki", "dev"), "split must be train, val, test, all"),
        (("aki", "all", "x"), "must be a list"),
        (("aki", "all", ["x", "x"]), "each once"),
    ],
)
def test_a_data_set_that_cannot_be_meant_is_refused(
    tmp_path: Path, arguments: tuple[Any, ...], words: str
) -> None:
    cache = _write(tmp_path / "c")
    with pytest.raises(ConfigError, match=words):
        cache.dataset(*arguments)


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        "import sys, cm2; "
        "assert not {'torch', 'polars', 'pyarrow', 'numpy'} & set(sys.modules); "
        "names = ['CM2Classifier', '__version__', 'compare', 'evaluate', 'extract', 'fuse']; "
        "names += ['load_run', 'open_cache', 'register_model', 'sweep', 'write_cache']; "
        "assert dir(cm2) == names; "
        "assert callable(cm2.write_cache) and callable(cm2.open_cache); "
        "assert not hasattr(cm2, 'nothing')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
