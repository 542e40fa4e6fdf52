"""An empty input in place of an absent one."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import cm2
from cm2.cache.store import Store, StoreWriter
from cm2.errors import ConfigError
from cm2.fuse.config import FuseConfig
from cm2.fuse.conformance import Subject, run
from cm2.fuse.identity import identify
from cm2.fuse.inference import build, predict
from cm2.fuse.models.interface import FusionBatch, ModalitySpec
from cm2.fuse.synthetic import SPECS, make_batch
from cm2.fuse.training.trainer import fuse

CacheMaker = Callable[..., Path]

METHODS: tuple[dict[str, Any], ...] = (
    {"model": "concat", "options": {"missing": "blank", "bits": False}},
    {"model": "mmtm", "options": {"missing": "blank"}},
    {"model": "mmtm", "options": {"missing": "blank", "pairing": "pairwise"}},
    {"model": "daft", "options": {"missing": "blank"}},
    {"model": "cm2", "impute": "blank", "availability_bits": False},
    {
        "model": "cm2",
        "impute": "blank",
        "availability_bits": False,
        "fusion": "transformer",
        "align": "none",
    },
)
TRAINED = {
    "task": "ihm",
    "model": "concat",
    "options": {"missing": "blank"},
    "epochs": 2,
    "hidden": 6,
    "fusion_hidden": 6,
}


def with_empty_inputs(batch: FusionBatch) -> FusionBatch:
    """Stays to whom an empty input was really given, written out stay by stay."""
    x, mask = dict(batch.x), dict(batch.mask)
    available = batch.available.clone()
    for m, spec in enumerate(SPECS):
        if spec.null is None:
            continue
        longest = max(x[spec.name].shape[1], len(spec.null))
        values = torch.zeros(len(available), longest, spec.width)
        marks = torch.zeros(len(available), longest, dtype=torch.bool)
        for i in range(len(available)):
            item = x[spec.name][i] if available[i, m] else spec.null
            values[i, : len(item)] = item
            marks[i, : len(item)] = True
            available[i, m] = True
        x[spec.name], mask[spec.name] = values, marks
    return dataclasses.replace(batch, x=x, mask=mask, available=available)


@pytest.mark.parametrize("options", METHODS, ids=lambda o: "-".join(map(str, o.values())))
def test_an_absent_item_predicts_as_an_empty_one_that_is_there(options: dict[str, Any]) -> None:
    model = Subject("", options).model()
    batch = make_batch(16)
    found, expected = run(model, batch), run(model, with_empty_inputs(batch))
    assert not batch.available.all()
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("options", METHODS[:1] + METHODS[3:5], ids=lambda o: o["model"])
def test_arrays_without_an_empty_input_are_refused(options: dict[str, Any]) -> None:
    specs = (SPECS[0], ModalitySpec("labs", "vector", 3))
    with pytest.raises(ConfigError, match=r"'labs'.*zero, mean or learned"):
        build(specs, FuseConfig.of(options))


@pytest.fixture(scope="module")
def with_blanks(make_cache: CacheMaker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_blanks(make_cache(tmp_path_factory.mktemp("blanks")), 1.0)


def write_blanks(cache: Path, value: float) -> Path:
    for name, shape in (("cxr", (6,)), ("report", (3, 5))):
        writer = StoreWriter(cache, Store.open(cache, name).space, {})
        writer.write_blank({"values": np.full(shape, value, np.float32)})
        writer.finish(complete=True)
    return cache


def test_a_run_learns_with_the_blanks_of_its_stores_and_keeps_them(with_blanks: Path) -> None:
    done = fuse(FuseConfig.of(TRAINED), with_blanks)
    loaded = cm2.load_run(done.path)
    assert loaded.model.get_buffer("blanks.null_2").tolist() == [[1.0] * 5] * 3
    table = predict(done, with_blanks, "test").to_pydict()
    rows = cm2.open_cache(with_blanks).dataset("ihm", "test", ("ehr", "cxr", "report"))
    again = loaded(rows["x"], rows["mask"], rows["available"], rows["stay_id"])
    order = [table["stay_id"].index(stay) for stay in rows["stay_id"]]
    np.testing.assert_allclose(again[:, 0].detach().numpy(), np.array(table["p"])[order], atol=1e-6)


def test_another_blank_is_another_run(with_blanks: Path, tmp_path: Path) -> None:
    other = write_blanks(shutil.copytree(with_blanks, tmp_path / "cache"), 2.0)
    blank, zero = FuseConfig.of(TRAINED), FuseConfig.of(TRAINED | {"options": {}})
    assert identify(blank, with_blanks).digest != identify(blank, other).digest
    assert identify(zero, with_blanks).digest == identify(zero, other).digest


def test_a_store_without_a_blank_is_refused_before_training(small_cache: Path) -> None:
    for options in (TRAINED, {"task": "ihm", "impute": "blank"}):
        with pytest.raises(ConfigError, match=r"stores/cxr.* holds none.*Choose zero, mean"):
            fuse(FuseConfig.of(options), small_cache)


@pytest.mark.parametrize("name", ["mmtm", "daft"])
def test_runs_that_knew_no_blank_keep_their_names(name: str) -> None:
    recorded = FuseConfig.of({"model": name}).model_dump(mode="json")
    assert "missing" not in recorded["options"]
    assert FuseConfig.of(recorded).options == FuseConfig.of({"model": name}).options
    chosen = FuseConfig.of({"model": name, "options": {"missing": "blank"}})
    assert chosen.model_dump(mode="json")["options"]["missing"] == "blank"
