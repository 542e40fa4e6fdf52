"""Runs of cached vectors whose encoder of a series starts from another run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cm2.errors import ConfigError, LeakageError
from cm2.fuse.config import FuseConfig
from cm2.fuse.identity import Inputs, identify
from cm2.fuse.inference import load_model
from cm2.fuse.training import pretrain
from cm2.fuse.training.course import Course
from cm2.fuse.training.ensemble import train_ensemble
from cm2.fuse.training.state import InMemory
from cm2.fuse.training.trainer import fuse, plan

CacheMaker = Callable[..., Path]

SMALL = {"task": "ihm", "hidden": 4, "epochs": 1}
MEDFUSE = SMALL | {"model": "medfuse", "fusion_hidden": 4, "modalities": ("ehr", "cxr")}


def config(**options: object) -> FuseConfig:
    return FuseConfig.of(MEDFUSE | options)


def test_medfuse_starts_from_the_encoder_of_a_run_of_its_series_alone(
    make_cache: CacheMaker, tmp_path: Path
) -> None:
    cache = make_cache(tmp_path / "cache")
    settled = pretrain.pretrained(config(), cache, {"ehr": ""})
    (start,) = settled.init
    before = fuse(FuseConfig.of(SMALL | {"model": "single", "modalities": ("ehr",)}), cache)
    assert start == f"ehr={before.path}"  # the run it would be by itself

    inputs = Inputs(cache)
    identity = inputs.identify(settled)
    course = Course.open(identity.config, inputs.load(identity), InMemory(), identity.starts)
    alone = load_model(before)[0].encoders.parts[0].lstm.state_dict()
    found = course.model.encoders.parts[0].lstm.state_dict()
    assert all(torch.equal(found[name], value) for name, value in alone.items())
    assert identity.spaces["ehr"]["origin"].startswith("trained, from sha256:")
    assert identity.digest != identify(config(), cache).digest


def test_a_member_of_an_ensemble_starts_where_its_single_run_does(
    make_cache: CacheMaker, tmp_path: Path
) -> None:
    cache = make_cache(tmp_path / "cache")
    start = fuse(FuseConfig.of(SMALL | {"model": "single", "modalities": ("ehr",)}), cache)
    members = [config(init=(f"ehr={start.path}",), lr=lr) for lr in (1e-3, 1e-2)]
    single = [fuse(member, cache, tmp_path / str(i)) for i, member in enumerate(members)]
    together = train_ensemble(members, cache, outs=[tmp_path / "a", tmp_path / "b"])
    for one, other in zip(single, together, strict=True):
        found = other.run.history[0]["val_loss"]
        assert one.history[0]["val_loss"] == pytest.approx(found, abs=1e-5)


def test_a_start_that_saw_a_patient_to_be_judged_is_refused(
    make_cache: CacheMaker, tmp_path: Path
) -> None:
    cache = make_cache(tmp_path / "cache")
    folds = {"model": "single", "modalities": ("ehr",), "folds": 3, "fold": 1}
    start = fuse(FuseConfig.of(SMALL | folds), cache)
    for command in (plan, fuse):
        with pytest.raises(LeakageError, match=r"The start of ehr .* validation or test split"):
            command(config(init=(f"ehr={start.path}",)), cache)


def test_a_run_that_cannot_begin_is_refused_by_a_dry_run_too(
    make_cache: CacheMaker, tmp_path: Path
) -> None:
    cache = make_cache(tmp_path / "cache")
    start = fuse(FuseConfig.of(SMALL | {"model": "single", "modalities": ("ehr",)}), cache)
    wider = config(init=(f"ehr={start.path}",), hidden=8)
    cells = FuseConfig.of(SMALL | {"model": "daft", "preset": "original"})
    for command in (plan, fuse):
        with pytest.raises(ConfigError, match=r"its encoder of ehr is 4 wide.* hidden = 8"):
            command(wider, cache)
        with pytest.raises(ConfigError, match=r"daft cannot be trained on this: model.modulated"):
            command(cells, cache)


def test_vectors_that_are_read_as_they_are_have_no_start(
    make_cache: CacheMaker, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"init = 'cxr=x': mode = 'cached' trains .*ehr"):
        identify(config(init=("cxr=x",)), make_cache(tmp_path))
