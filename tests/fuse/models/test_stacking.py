"""Stacking gives back known weights, keeps patients apart, and is fitted to validation alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from cm2.fuse.config import FuseConfig
from cm2.fuse.inference import predict
from cm2.fuse.models.interface import pattern_ids
from cm2.fuse.models.stacking import FOLDS, Stacking
from cm2.fuse.training.finish import FITTED
from cm2.fuse.training.trainer import fuse

CacheMaker = Callable[..., Path]


def stays(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits of two modalities, availability in three patterns, and targets that follow both."""
    g = torch.Generator().manual_seed(seed)
    alone = torch.randn(2, n, 1, generator=g).double()
    pattern = torch.arange(n) % 3 + 1
    available = (pattern.unsqueeze(1) >> torch.arange(2) & 1).bool()
    said = torch.where(available, alone[:, :, 0].T, 0.0)
    logits = said @ torch.tensor([2.0, -1.0]).double() - 0.5 * available[:, 1]
    y = (torch.rand(n, generator=g) < logits.sigmoid()).double().unsqueeze(1)
    return alone, available, y


def test_a_pattern_with_events_has_the_weights_of_scikit_learn_on_its_stays() -> None:
    alone, available, y = stays(600)
    stacking = Stacking(2, 1, events=10).double()
    stacking.fit(alone, available, y)
    for pattern in (1, 2, 3):
        rows = pattern_ids(available) == pattern
        bits = (pattern >> np.arange(2) & 1).astype(bool)
        oracle = LogisticRegression(tol=1e-10, max_iter=1000)
        oracle.fit(alone[:, rows, 0].T.numpy()[:, bits], y[rows, 0].numpy())
        assert np.allclose(stacking.weight[pattern, 0].numpy()[bits], oracle.coef_[0], atol=1e-4)
        assert (stacking.weight[pattern, 0].numpy()[~bits] == 0).all()
        assert np.isclose(stacking.bias[pattern, 0], oracle.intercept_[0], atol=1e-4)
        assert stacking.record[pattern - 1]["source"] == "own"


def test_patterns_with_too_few_events_share_weights_and_have_their_own_level() -> None:
    alone, available, y = stays(600)
    stacking = Stacking(2, 1, events=1000).double()
    stacking.fit(alone, available, y)
    assert {entry["source"] for entry in stacking.record} == {"shared"}
    assert stacking.weight[1, 0, 0] == stacking.weight[3, 0, 0]
    assert len({float(v) for v in stacking.bias[1:, 0]}) == 3


def test_targets_that_are_all_equal_or_unknown_leave_the_mean_logit_and_say_so() -> None:
    alone, available, y = stays(60)
    stacking = Stacking(2, 2, events=5).double()
    stacking.fit(alone.repeat(1, 1, 2), available, torch.cat([y * 0, y * torch.nan], 1))
    assert {entry["source"] for entry in stacking.record} == {"mean"}
    said = stacking(alone.repeat(1, 1, 2), available, pattern_ids(available))
    both = available.all(1)
    assert torch.allclose(said[both], alone.repeat(1, 1, 2).mean(0)[both])


def test_what_an_absent_modality_says_changes_nothing() -> None:
    alone, available, y = stays(300)
    changed = torch.where(available.T.unsqueeze(-1), alone, 1e6)
    results = []
    for values in (alone, changed):
        stacking = Stacking(2, 1, events=10).double()
        stacking.fit(values, available, y)
        results.append(stacking(values, available, pattern_ids(available)))
    assert torch.equal(*results)


def test_no_stay_is_predicted_by_a_fit_that_saw_its_patient() -> None:
    alone, available, y = stays(300)
    patients = np.repeat(np.arange(100), 3)
    first = Stacking(2, 1, events=10).double().cross_fit(alone, available, y, patients)
    changed = y.clone()
    changed[:3] = 1 - changed[:3]  # the stays of one patient
    second = Stacking(2, 1, events=10).double().cross_fit(alone, available, changed, patients)
    assert torch.equal(first[:3], second[:3])
    same_fold = patients % FOLDS == 0
    assert torch.equal(first[same_fold], second[same_fold])
    assert (first[~same_fold] != second[~same_fold]).any()


def test_a_run_trains_as_the_mean_does_and_fits_the_stacking_to_validation_at_its_end(
    make_cache: CacheMaker, tmp_path: Path
) -> None:
    cache = make_cache(tmp_path / "cache", stays=240)
    common = {"task": "ihm", "model": "late", "hidden": 4, "epochs": 2}
    stacked = FuseConfig.model_validate(common | {"options": {"combine": "stacking", "events": 3}})
    run, plain = (fuse(c, cache) for c in (stacked, FuseConfig.model_validate(common)))
    assert run.history == plain.history
    assert FITTED in run.info["warnings"]
    assert FITTED not in plain.info["warnings"]
    assert run.learned is not None
    assert {entry["source"] for entry in run.learned["stacking"]} <= {"own", "shared"}
    assert run.predictions("val")["p"] != predict(run, cache, "val")["p"]  # fitted to these stays
    assert plain.predictions("val")["p"] == predict(plain, cache, "val")["p"]
    assert predict(run, cache, "test")["p"] != predict(plain, cache, "test")["p"]
