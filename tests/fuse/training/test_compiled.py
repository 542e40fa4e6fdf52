"""Compiled steps: the same run, the same numbers to rounding, and a plain word without them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch._inductor import config as inductor

import cm2
from cm2.errors import ConfigError
from cm2.fuse.config import FuseConfig
from cm2.fuse.inference import build
from cm2.fuse.models.interface import FusionBatch, Hyper, ModalitySpec, pattern_ids
from cm2.fuse.models.layers import LONG
from cm2.fuse.rundir import BEST, INFO
from cm2.fuse.training.compiled import compile_forward
from cm2.fuse.training.trainer import fuse

TINY = {"hidden": 8, "fusion_hidden": 8, "copula_dim": 4, "K": 2, "epochs": 3, "lr": 1e-2}


@pytest.mark.slow
def test_a_compiled_run_is_the_same_run_to_rounding(small_cache: Path, tmp_path: Path) -> None:
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    config = FuseConfig.of({**TINY, "batch_size": 25})  # which leaves a last batch of another size
    plain = fuse(config, small_cache, tmp_path / "plain")
    assert not torch._dynamo.utils.counters["stats"]
    compiled = fuse(config, small_cache, tmp_path / "compiled", compiled=True)
    assert compiled.record == plain.record
    compiling = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert 2 <= compiling <= 3  # that of the check and the step's, once for all epochs
    assert [row["train_loss"] for row in compiled.history] == pytest.approx(
        [row["train_loss"] for row in plain.history], rel=1e-4
    )
    ours, theirs = (load_file(run.path / BEST) for run in (compiled, plain))
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_without_a_compiler_the_error_says_what_to_do(
    small_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "kernels"))
    torch.compiler.reset()
    missing = inductor.patch({"cpp.cxx": (None, "no-such-compiler")})
    with missing, pytest.raises(ConfigError, match="leave out --compile"):
        fuse(FuseConfig.of(TINY), small_cache, tmp_path / "run", compiled=True)


def test_a_method_without_steps_has_nothing_to_compile(small_cache: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="logistic is fitted as a whole"):
        cm2.fuse(small_cache, out=tmp_path / "run", model="logistic", compiled=True)
    assert not (tmp_path / "run" / INFO).exists()  # nothing was begun


@pytest.mark.slow
def test_a_long_series_is_read_by_onednn_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    specs = (ModalitySpec("ehr", "series", 4), ModalitySpec("cxr", "vector", 6))
    torch.manual_seed(0)
    model = build(specs, FuseConfig.of({"model": "concat", "hidden": 8}))
    random = torch.Generator().manual_seed(0)
    x = {s.name: torch.randn(16, LONG + 1, s.width, generator=random) for s in specs}
    mask = {s.name: torch.rand(16, LONG + 1, generator=random) < 0.7 for s in specs}
    available = torch.ones(16, 2, dtype=torch.bool)
    y = (torch.rand(16, 1, generator=random) < 0.5).float()
    batch = FusionBatch(x, mask, available, pattern_ids(available), y)
    hyper = Hyper.of(model.config)
    lengths: list[int] = []
    onednn = torch.lstm

    def seen(values: torch.Tensor, *rest: object) -> object:
        lengths.append(values.shape[1])
        return onednn(values, *rest)

    torch.compiler.reset()
    compiled = compile_forward(model, torch.device("cpu"))
    monkeypatch.setattr(torch, "lstm", seen)
    found = compiled(batch, hyper)
    assert lengths == 2 * [int(mask["ehr"].sum(1).max())]  # both layers, steps at their front
    monkeypatch.undo()
    torch.testing.assert_close(found.logits, model(batch, hyper).logits)
