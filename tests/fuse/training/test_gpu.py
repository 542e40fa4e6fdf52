"""Training on a GPU, where there is one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cm2.fuse.config import FuseConfig
from cm2.fuse.training.trainer import fuse

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU, none is present")


@gpu
@pytest.mark.parametrize("options", [{}, {"objective": "elbo"}, {"copula": "student"}], ids=str)
def test_a_gpu_trains_cm2_to_the_losses_of_the_cpu(
    make_cache: Callable[..., Path], tmp_path: Path, options: dict[str, str]
) -> None:
    cache = make_cache(tmp_path / "cache")
    sizes = {"hidden": 8, "fusion_hidden": 8, "copula_dim": 4, "K": 2, "epochs": 3}
    config = FuseConfig.of({**sizes, **options})
    ends = [
        fuse(config, cache, tmp_path / device, device=device).history[-1]["train_loss"]
        for device in ("cpu", "cuda")
    ]
    assert ends[1] == pytest.approx(ends[0], rel=1e-2)
