"""Every way to stand in for an absent modality, on every cohort it meets."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from cm2.fuse.config import FuseConfig
from cm2.fuse.inference import build
from cm2.fuse.models.cm2 import CM2
from cm2.fuse.models.imputation import RANDOM
from cm2.fuse.models.interface import FusionBatch, FusionOutput, Hyper, ModalitySpec

NAMES = ("ehr", "cxr", "report")
HOW = (
    "skip",
    "zero",
    "mean",
    "learned",
    "marginal",
    "conditional",
    "conditional-median",
    "conditional-mean",
)
PATTERNS = [(True, False, False), (True, True, False), (True, False, True), (True, True, True)]


def make_batch(patterns: list[tuple[bool, ...]], seed: int = 0) -> FusionBatch:
    random = np.random.default_rng(seed)
    n = len(patterns)
    severity = random.normal(size=(n, 1, 1))
    available = torch.tensor(patterns)
    return FusionBatch(
        x={
            name: torch.from_numpy(severity + 0.3 * random.normal(size=(n, 1, 5))).float()
            for name in NAMES
        },
        mask=dict.fromkeys(NAMES, torch.ones(n, 1, dtype=torch.bool)),
        available=available,
        pattern_id=(available * torch.tensor([1, 2, 4])).sum(1),
        y=torch.from_numpy((severity[:, 0] > 0).astype(np.float32)),
    )


def make_model(how: str, **options: object) -> CM2:
    small = {"hidden": 8, "fusion_hidden": 6, "copula_dim": 3, "K": 2, "draws": 4}
    specs = tuple(ModalitySpec(name, "vector", 5) for name in NAMES)
    model = build(specs, FuseConfig.of({**small, "impute": how, **options}))
    assert isinstance(model, CM2)
    batch = make_batch(PATTERNS * 20, seed=5)
    model.start([batch])
    model.refresh(1, [batch])
    return model


def run(model: CM2, batch: FusionBatch, seed: int = 0, training: bool = False) -> FusionOutput:
    random = np.random.default_rng(seed)
    shapes = {k: s for k, s in model.noise(training).items() if not k.startswith("dropout")}
    noise = {k: torch.from_numpy(random.random((len(batch.y), *s))) for k, s in shapes.items()}
    output: FusionOutput = model(dataclasses.replace(batch, noise=noise), Hyper.of(model.config))
    return output


@pytest.mark.parametrize("how", HOW)
def test_film_and_report_may_be_missing_independently(how: str) -> None:
    model, batch = make_model(how), make_batch(PATTERNS * 3)
    output = run(model, batch)
    assert torch.isfinite(output.logits).all()
    swapped = dataclasses.replace(batch, available=batch.available[:, [0, 2, 1]])
    same = (batch.available == swapped.available).all(1)
    changed = (run(model, swapped).logits != output.logits).squeeze(1)
    assert (changed == ~same).all(), "which one is missing matters"


@pytest.mark.parametrize("how", HOW)
def test_on_matched_stays_nothing_is_imputed(how: str) -> None:
    model, batch = make_model(how), make_batch([PATTERNS[3]] * 6)
    first, second = run(model, batch, seed=1), run(model, batch, seed=2)
    torch.testing.assert_close(first.logits, second.logits, rtol=1e-6, atol=1e-7)
    with torch.no_grad():  # neither mixtures, copula nor the learned token are read
        for name, parameter in model.named_parameters():
            if name.startswith(("joint", "imputation")):
                parameter.add_(0.3)
    torch.testing.assert_close(run(model, batch, 1).logits, first.logits, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("how", HOW)
def test_prediction_is_the_same_each_time_with_the_same_draws(how: str) -> None:
    model, batch = make_model(how), make_batch(PATTERNS)
    assert torch.equal(run(model, batch).logits, run(model, batch).logits)
    other = run(model, batch, seed=3).logits != run(model, batch).logits
    incomplete = ~batch.available.all(1, keepdim=True)
    assert torch.equal(other, incomplete if how in RANDOM else torch.zeros_like(other))


@pytest.mark.parametrize("how", RANDOM)
def test_predictions_are_averaged_over_the_draws(how: str) -> None:
    model, batch = make_model(how), make_batch(PATTERNS)
    draws = torch.from_numpy(np.random.default_rng(0).random((4, 4, 3, model.joint.noise_size)))
    hyper = Hyper.of(model.config)

    def probability(noise: torch.Tensor) -> torch.Tensor:
        output = model(dataclasses.replace(batch, noise={"draw": noise}), hyper)
        return torch.sigmoid(output.logits)

    each = torch.stack([probability(draws[:, s : s + 1]) for s in range(4)])
    torch.testing.assert_close(probability(draws), each.mean(0), rtol=1e-5, atol=1e-6)


def moved(model: CM2, patterns: list[tuple[bool, ...]]) -> set[str]:
    run(model, make_batch(patterns), training=True).losses["task"].mean().backward()
    return {
        name
        for name, p in model.named_parameters()
        if p.grad is not None and (p.grad != 0).any() and not name.startswith("head")
    }


def test_conditional_draws_carry_gradient_to_mixtures_copula_and_what_is_present() -> None:
    names = moved(make_model("conditional"), [(True, False, True)] * 8)
    assert {"joint.raw", "joint.marginals.1.means", "joint.marginals.1.logits"} <= names
    assert {"joint.marginals.0.means", "space.projection"} <= names
    assert not any(name.startswith("encoders.parts.1.") for name in names)


def test_marginal_draws_carry_gradient_to_their_own_mixture_alone() -> None:
    names = moved(make_model("marginal"), [(True, False, True)] * 8)
    mixtures = {name for name in names if name.startswith("joint.")}
    assert mixtures == {f"joint.marginals.1.{part}" for part in ("means", "raw_stds", "logits")}


@pytest.mark.parametrize("how", ["skip", "zero", "mean"])
def test_constants_move_no_density(how: str) -> None:
    names = moved(make_model(how), PATTERNS * 2)
    assert all(name.startswith("encoders.") for name in names)
