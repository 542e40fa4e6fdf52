"""Modalities taken away by severity, and what cannot be taken away."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cm2.errors import ConfigError
from cm2.fuse.config import FuseConfig
from cm2.fuse.data import load
from cm2.fuse.evaluation.evaluate import evaluate
from cm2.fuse.evaluation.looks import Looks
from cm2.fuse.training.trainer import fuse

CacheMaker = Callable[..., Path]


def test_whoever_keeps_a_modality_by_severity_is_sicker_in_every_split(
    make_cache: CacheMaker, tmp_path: Path
) -> None:
    cache = make_cache(tmp_path, stays=900)
    data = load(cache, FuseConfig(modalities=("ehr", "report"), drop=("report=0.5:severity",)))
    for split in ("train", "val", "test"):
        rows = data.rows(split)
        kept = data.whole.available[rows][:, 1].numpy()
        y = data.labels(rows)[:, 0].numpy()
        assert y[kept].mean() > y[~kept].mean() + 0.1


@pytest.mark.parametrize("how", ["report=0.5", "report=0.5:severity"])
@pytest.mark.parametrize("rows", ["partial", "matched"])
def test_a_modality_read_alone_goes_from_the_stays_that_a_richer_run_takes_it_from(
    make_cache: CacheMaker, tmp_path: Path, how: str, rows: str
) -> None:
    cache = make_cache(tmp_path, have={"ehr": 0.8, "report": 0.7})
    both = load(cache, FuseConfig(modalities=("ehr", "report"), rows=rows, drop=(how,)))
    other = {"partial": {"beside": ("ehr",)}, "matched": {"require": ("ehr",)}}[rows]
    alone = load(cache, FuseConfig.of({"modalities": ("report",), "drop": (how,), **other}))
    kept = np.flatnonzero(both.whole.available[:, 1].numpy())
    whole = load(cache, FuseConfig.of({"modalities": ("report",), **other}))
    assert 0 < len(kept) < len(whole.keys)
    for column in ("stay_id", "subject_id", "split"):
        assert alone.columns[column] == [both.columns[column][i] for i in kept]
    np.testing.assert_array_equal(alone.whole.y, both.whole.y[kept])
    np.testing.assert_array_equal(alone.whole.x["report"], both.whole.x["report"][kept])


@pytest.mark.parametrize("how", ["drop", "drop_train"])
def test_a_run_that_knows_of_one_modality_alone_refuses_to_withhold_it(
    make_cache: CacheMaker, tmp_path: Path, how: str
) -> None:
    config = FuseConfig.of({"modalities": ("report",), how: ("report=0.5",)})
    with pytest.raises(ConfigError, match="--beside"):
        load(make_cache(tmp_path), config)


@pytest.mark.parametrize(("how", "split"), [("drop", "test"), ("drop_train", "val")])
def test_stays_that_training_left_with_a_modality_lose_it_again_in_evaluation(
    make_cache: CacheMaker, tmp_path: Path, how: str, split: str
) -> None:
    cache = make_cache(tmp_path, stays=600)
    options = {"model": "concat", "modalities": ("ehr", "report"), "hidden": 4, "epochs": 1}
    run = fuse(FuseConfig.of({**options, how: ("report=0.5",)}), cache)
    looks = Looks(drop=("report=0.5", "report=1"))
    half, whole = evaluate(run, cache, split, looks=looks, replicates=20)["missingness"]
    assert 0.3 < half["withheld"] / whole["withheld"] < 0.7


def test_where_no_stay_loses_a_modality_no_comparison_is_recorded_but_the_reason(
    make_cache: CacheMaker, tmp_path: Path
) -> None:
    cache = make_cache(tmp_path)
    options = {"model": "concat", "modalities": ("ehr",), "hidden": 4, "epochs": 1}
    run = fuse(FuseConfig.of(options), cache)
    (found,) = evaluate(run, cache, looks=Looks(drop=("ehr=0.5",)), replicates=20)["missingness"]
    assert (found["withheld"], found["reason"]) == (0, "no stay has it beside another one")
    assert not {"auroc", "aupr"} & set(found)
    run = fuse(FuseConfig.of({**options, "modalities": ("ehr", "report")}), cache)
    looks = Looks(drop=("report=0.000001",))
    (found,) = evaluate(run, cache, looks=looks, replicates=20)["missingness"]
    assert found["reason"].startswith("the share takes none of ")
    assert not {"auroc", "aupr"} & set(found)
