"""The published order of training and validation, and the published normaliser."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from cm2.cache import checkpoint
from cm2.cache.cohort import Cohort
from cm2.fuse.config import FuseConfig
from cm2.fuse.data import load
from cm2.fuse.rundir import LAST, RunDir
from cm2.fuse.training.trainer import fuse

BASE: dict[str, Any] = {"model": "single", "modalities": ("ehr",), "hidden": 6, "epochs": 4}


def trained(cache: Path, out: Path, **published: bool) -> RunDir:
    return fuse(FuseConfig.of({**BASE, "published": published}), cache, out)


def losses(run: RunDir) -> list[float]:
    lines = (run.path / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["val_loss"] for line in lines]


def test_validation_before_training_judges_the_model_of_the_epoch_before(
    small_cache: Path, tmp_path: Path
) -> None:
    after = losses(trained(small_cache, tmp_path / "after"))
    before = losses(trained(small_cache, tmp_path / "before", validate_first=True))
    assert len(after) == 4
    assert len(before) == 3, "the last training is never judged, so it is left out"
    assert before[1:] == after[:2]
    assert before[0] not in after, "the untrained model"


def test_the_best_weights_are_those_that_were_judged(small_cache: Path, tmp_path: Path) -> None:
    run = trained(small_cache, tmp_path / "run", validate_first=True)
    lines = (run.path / "metrics.jsonl").read_text().splitlines()
    best = json.loads(lines[run.info["best_epoch"] - 1])
    metrics = run.metrics("val")
    assert metrics is not None
    assert best["val_auroc"] == metrics["auroc"]["value"]


def test_the_normaliser_sees_validation_stays(small_cache: Path, tmp_path: Path) -> None:
    means = {}
    for seen in (True, False):
        run = trained(small_cache, tmp_path / str(seen), validation_in_normaliser=seen)
        means[seen] = checkpoint.load(run.path / LAST)[0]["encoders.parts.0.normaliser.mean"]
    config = FuseConfig.of({**BASE, "modalities": ("ehr",)})
    data = load(small_cache, config, Cohort.open(small_cache, "default"))
    for seen, splits in ((True, ("train", "val")), (False, ("train",))):
        rows = torch.cat([data.batch(data.rows(split)).x["ehr"] for split in splits])
        torch.testing.assert_close(means[seen][0], rows[..., 0].mean())
    assert not torch.equal(means[True], means[False])
