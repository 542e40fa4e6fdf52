"""Compiled encoders: the same run, the same numbers to rounding, and a plain word without them."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch._inductor import config as inductor

from cm2.errors import ConfigError
from cm2.fuse.inference import predict
from cm2.fuse.rundir import BEST
from cm2.fuse.training.trainer import fuse


@pytest.mark.slow
def test_a_compiled_run_is_the_same_run_to_rounding(
    pixel_cache: Path, stream: ModuleType, tmp_path: Path
) -> None:
    config = stream.options(model="concat", lr_trunk=1e-4, accumulate=2, freeze_trunk_epochs=1)
    plain = fuse(config, pixel_cache, tmp_path / "plain")
    compiled = fuse(config, pixel_cache, tmp_path / "compiled", compiled=True)
    assert compiled.record == plain.record
    ours, theirs = (load_file(run.path / BEST) for run in (compiled, plain))
    assert ours.keys() == theirs.keys()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0  # it was compiled indeed
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-3, atol=1e-4)
    p, q = (predict(run, pixel_cache).column("p").to_numpy() for run in (compiled, plain))
    np.testing.assert_allclose(p, q, atol=1e-4)


@pytest.mark.slow
def test_without_a_compiler_the_error_says_what_to_do(
    pixel_cache: Path, stream: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "kernels"))
    torch.compiler.reset()
    config = stream.options(model="concat")
    missing = inductor.patch({"cpp.cxx": (None, "no-such-compiler")})
    with missing, pytest.raises(ConfigError, match="leave out --compile"):
        fuse(config, pixel_cache, tmp_path / "run", compiled=True)
