"""A trained run as a plain module."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import cm2
from cm2.errors import ConfigError, SchemaError
from cm2.fuse.config import FuseConfig
from cm2.fuse.inference import predict
from cm2.fuse.rundir import RunDir
from cm2.fuse.training.trainer import fuse

TINY = {"hidden": 8, "fusion_hidden": 8, "copula_dim": 4, "K": 2, "epochs": 2, "draws": 3}


@pytest.fixture(scope="module")
def run(small_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    config = FuseConfig.of({**TINY, "impute": "conditional"})
    return fuse(config, small_cache, tmp_path_factory.mktemp("loaded") / "run")


def test_a_loaded_run_predicts_what_the_command_predicts(run: RunDir, small_cache: Path) -> None:
    model = cm2.load_run(run.path)
    data = cm2.open_cache(small_cache).dataset("ihm", "test", model.modalities, labelled=False)
    with torch.no_grad():
        p = model(
            data["x"],
            data["mask"],
            data["available"],
            stay_id=data["stay_id"],
            time=data["time"],
        )
    table = predict(run, small_cache, "test")
    assert table["stay_id"].to_pylist() == data["stay_id"]
    np.testing.assert_allclose(p[:, 0].numpy(), table["p"].to_numpy(), rtol=0, atol=1e-6)
    assert model.targets == ("ihm",)


def test_a_modality_left_out_is_absent(run: RunDir) -> None:
    model = cm2.load_run(run.path)
    x = {"ehr": np.random.default_rng(0).normal(size=(4, 5, 4))}
    both = {**x, "cxr": np.full((4, 1, 6), 9.0)}
    hidden = np.array([[1, 0, 0]] * 4, dtype=bool)
    torch.testing.assert_close(model(x), model(both, available=hidden))
    assert not torch.allclose(model(x), model(both))


def test_gradient_reaches_the_input(run: RunDir) -> None:
    x = torch.randn(3, 5, 4, requires_grad=True)
    cm2.load_run(run.path)({"ehr": x}).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0


def test_what_does_not_fit_is_named(run: RunDir) -> None:
    model = cm2.load_run(run.path)
    with pytest.raises(ConfigError, match="reads ehr, cxr, report; found film"):
        model({"film": np.zeros((2, 1, 6))})
    with pytest.raises(SchemaError, match=r"'cxr': expected \[2, steps or parts, 6\]"):
        model({"cxr": np.zeros((2, 1, 5))})
    with pytest.raises(ConfigError, match="Stay 1 has none"):
        model({"ehr": np.zeros((2, 5, 4))}, mask={"ehr": np.array([[1] * 5, [0] * 5])})
    with pytest.raises(SchemaError, match="expected a mask"):
        model({"ehr": np.zeros((2, 5, 4))}, mask={"ehr": np.ones((2, 4))})
    two = {"ehr": np.zeros((2, 5, 4))}
    with pytest.raises(ConfigError, match="reads ehr, cxr, report; found film"):
        model(two, mask={"film": np.ones((2, 5))})
    with pytest.raises(SchemaError, match=r"available: expected \[2, 3\].*found \[2, 1\]"):
        model(two, available=np.ones((2, 1)))
    with pytest.raises(SchemaError, match=r"stay_id: expected 2 ids.*found 1"):
        model(two, stay_id=[7])


def test_ids_that_a_loader_has_made_a_tensor_draw_as_the_same_numbers(run: RunDir) -> None:
    model = cm2.load_run(run.path)
    x = {"ehr": torch.randn(3, 5, 4)}
    drawn = model(x, stay_id=[7, 8, 9])
    torch.testing.assert_close(model(x, stay_id=torch.tensor([7, 8, 9])), drawn, rtol=0, atol=0)
    assert not torch.equal(model(x, stay_id=[17, 18, 19]), drawn)


def test_everything_is_computed_where_the_module_is(run: RunDir) -> None:
    """The device "meta" has shapes and no numbers: whatever was left on the CPU would not fit."""
    model = cm2.load_run(run.path).to("meta")
    x = {"ehr": torch.randn(3, 5, 4)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "all", lambda *_: torch.tensor(True))
        assert model(x).device.type == "meta"
