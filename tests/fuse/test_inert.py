"""What is called inert changes no bit of what is learned; what is not, does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from cm2.cache import checkpoint
from cm2.fuse.config import FuseConfig
from cm2.fuse.inert import canonical, inert
from cm2.fuse.rundir import BEST
from cm2.fuse.training.trainer import fuse

TINY = {"hidden": 8, "fusion_hidden": 8, "epochs": 2, "copula_dim": 4, "K": 2, "lr": 1e-2}
OTHER: dict[str, Any] = {
    "lambda_cop": 0.5,
    "copula_params": "per-dim",
    "lr_copula": 0.3,
    "draws": 3,
}


def learned(cache: Path, out: Path, options: dict[str, Any]) -> dict[str, torch.Tensor]:
    run = fuse(FuseConfig.of({**TINY, **options}), cache, out, device="cpu")
    return checkpoint.load(run.path / BEST, "")[0]


@pytest.mark.parametrize(
    "options",
    [
        {"copula": "independence"},
        {"align": "none", "clip": 0.0},
        {"align": "cosine", "clip": 0.0},
    ],
)
def test_inert_options_change_no_bit_of_what_is_learned(
    small_cache: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    names = inert(FuseConfig.of({**TINY, **options}))
    assert "lambda_cop" in names
    plain = learned(small_cache, tmp_path / "a", options)
    changed = {name: OTHER[name] for name in names}
    other = learned(small_cache, tmp_path / "b", options | changed)
    encoders = {n for n in plain if not n.startswith("joint.raw")}  # what nothing else reads
    assert encoders <= other.keys()
    assert all(torch.equal(plain[name], other[name]) for name in encoders)


def test_the_weight_of_a_copula_that_aligns_nothing_acts_through_the_clipped_norm(
    small_cache: Path, tmp_path: Path
) -> None:
    options = {"align": "none", "clip": 0.05}
    assert "lambda_cop" not in inert(FuseConfig.of({**TINY, **options}))
    plain = learned(small_cache, tmp_path / "a", options)
    other = learned(small_cache, tmp_path / "b", options | {"lambda_cop": 5.0})
    assert not torch.equal(plain["head.linear.weight"], other["head.linear.weight"])


def test_a_canonical_configuration_is_one_spelling_of_what_is_the_same() -> None:
    first = FuseConfig.of({"copula": "independence", "lambda_cop": 0.5})
    second = FuseConfig.of({"copula": "independence", "lr_copula": 0.1, "draws": 3})
    assert canonical(first) == canonical(second)
    acting = FuseConfig.of({"lambda_cop": 0.5, "impute": "conditional", "draws": 3})
    assert canonical(acting) == acting
