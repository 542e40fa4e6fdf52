from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest

from cm2.cache.cohort import Cohort, write_labels
from cm2.errors import ConfigError, DataError, IntegrityError, LeakageError
from cm2.fuse.config import FuseConfig
from cm2.fuse.inference import predict, prepare, write_predictions
from cm2.fuse.rundir import BEST, CONFIG, INFO, RunDir
from cm2.fuse.training.trainer import fuse

TINY = {"hidden": 8, "fusion_hidden": 8, "copula_dim": 4, "K": 2, "epochs": 2, "lr": 1e-2}


@pytest.fixture(scope="module")
def run(small_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    config = FuseConfig.of({**TINY, "impute": "marginal"})
    return fuse(config, small_cache, tmp_path_factory.mktemp("inference") / "run")


@pytest.fixture
def copy(run: RunDir, tmp_path: Path) -> RunDir:
    return RunDir.open(Path(shutil.copytree(run.path, tmp_path / "run")))


def test_predicting_again_gives_the_stored_predictions(run: RunDir, small_cache: Path) -> None:
    assert predict(run, small_cache, "val").equals(run.predictions("val"))


def test_all_is_every_split(run: RunDir, small_cache: Path) -> None:
    everything = predict(run, small_cache, "all")
    assert set(everything["split"].to_pylist()) == {"train", "val", "test"}
    test = predict(run, small_cache, "test")
    assert set(test["stay_id"].to_pylist()) < set(everything["stay_id"].to_pylist())


def test_a_cache_with_other_stays_and_the_same_spaces_can_be_predicted(
    run: RunDir, make_cache: Callable[..., Path], tmp_path: Path
) -> None:
    cache = make_cache(tmp_path / "cache", 30, seed=5, dataset="elsewhere")
    assert predict(run, cache, "all").num_rows > 20


def test_replaced_labels_are_another_source_and_are_told(
    copy: RunDir, small_cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = Path(shutil.copytree(small_cache, tmp_path / "cache"))
    assert prepare(copy, cache, "test").source == ""
    stays = Cohort.open(cache).stays
    other = stays.select(["stay_id", "y_ihm"]).set_column(
        1, "y_ihm", pc.subtract(pa.scalar(1, pa.int8()), stays["y_ihm"])
    )
    write_labels(cache, "default", "other", other.rename_columns(["stay_id", "y_other"]))
    assert prepare(copy, cache, "test").source == ""
    write_labels(cache, "default", "ihm", other, replace=True)
    assert prepare(copy, cache, "test").source != ""
    assert "labels of task ihm" in caplog.text
    write_labels(
        cache, "default", "ihm", stays.select(["stay_id", "in_ihm", "y_ihm"]), replace=True
    )
    fuse(copy.config, cache, tmp_path / "again")
    assert prepare(RunDir.open(tmp_path / "again"), cache, "test").source == ""


def test_patients_seen_in_training_cannot_be_judged(
    run: RunDir, make_cache: Callable[..., Path], tmp_path: Path
) -> None:
    cache = make_cache(tmp_path / "cache", shift=3)
    with pytest.raises(LeakageError, match="seen in the training"):
        predict(run, cache, "test")


def test_a_cache_without_a_modality_is_refused(
    run: RunDir, make_cache: Callable[..., Path], tmp_path: Path
) -> None:
    cache = make_cache(tmp_path / "cache", 30, modalities=("ehr",), dataset="elsewhere")
    with pytest.raises(DataError, match="cxr"):
        predict(run, cache, "all")


def test_an_unknown_split_is_refused(run: RunDir, small_cache: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'test'"):
        predict(run, small_cache, "tests")


@pytest.mark.parametrize("name", [BEST, CONFIG, INFO])
def test_a_flipped_bit_is_refused(copy: RunDir, small_cache: Path, name: str) -> None:
    path = copy.path / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match=name):
        predict(RunDir(copy.path), small_cache, "val")


def test_altered_predictions_are_refused(copy: RunDir) -> None:
    path = copy.path / "predictions" / "val.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match=r"val\.parquet"):
        copy.predictions("val")


def test_predictions_that_were_not_made_name_the_command(run: RunDir, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"cm2 evaluate {run.path} --cache CACHE --split test"):
        run.predictions("test")
    inside = Path(shutil.copytree(run.path, tmp_path / "cache/runs/one"))
    with pytest.raises(DataError, match=f"--cache {tmp_path / 'cache'} --split test"):
        RunDir.open(inside).predictions("test")
    with pytest.raises(DataError, match="--cache OTHER --split test` makes it"):
        RunDir.open(inside).predictions("test@2708986d6d99")


def test_looks_are_counted(copy: RunDir) -> None:
    assert copy.count_look("test") == 1
    assert copy.count_look("test") == 2
    assert RunDir.open(copy.path).info["looks"] == {"test": 2}


def test_a_folder_without_a_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no run"):
        RunDir.open(tmp_path)


def test_predictions_can_be_written_for_other_programs(run: RunDir, tmp_path: Path) -> None:
    table = run.predictions("val")
    write_predictions(table, tmp_path / "p.parquet")
    write_predictions(table, tmp_path / "p.csv")
    assert pq.read_table(tmp_path / "p.parquet").equals(table)
    assert csv.read_csv(tmp_path / "p.csv")["p"].to_pylist() == table["p"].to_pylist()
    with pytest.raises(ConfigError, match=r"\.csv"):
        write_predictions(table, tmp_path / "p.xlsx")


def test_what_was_learned_is_told(run: RunDir) -> None:
    learned = run.learned
    assert learned is not None
    assert learned["family"] == "frank"
    assert learned["modalities"] == ["ehr", "cxr", "report"]
    assert learned["weights_note"] == "cxr: random:0"
    counts = learned["u_histogram"]
    assert set(counts) == {"ehr,cxr", "ehr,report", "cxr,report"}
    both = sum(
        "ehr" in p and "cxr" in p and y is not None
        for p, y in zip(
            run.predictions("val")["pattern"].to_pylist(),
            run.predictions("val")["y"].to_pylist(),
            strict=True,
        )
    )
    assert sum(map(sum, counts["ehr,cxr"])) == both * 4, "stays with both, times coordinates"
