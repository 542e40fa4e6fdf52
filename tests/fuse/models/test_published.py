"""Each published defect by its name: the preset `reference` shows it, the default does not."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cm2.errors import ConfigError
from cm2.fuse.config import FuseConfig
from cm2.fuse.copula import get_copula
from cm2.fuse.copula.family import Copula
from cm2.fuse.copula.mixture import Mixture
from cm2.fuse.copula.normal import ndtri_exp
from cm2.fuse.inference import build
from cm2.fuse.models.cm2 import CM2
from cm2.fuse.models.interface import FusionBatch, FusionOutput, Hyper, ModalitySpec
from cm2.fuse.models.published import (
    PublishedFrank,
    PublishedGumbel,
    PublishedJoint,
    _standardised,
)

SPECS = tuple(ModalitySpec(name, "vector", 4) for name in ("ehr", "cxr", "report"))
SMALL = {"hidden": 6, "fusion_hidden": 5, "dropout": 0.0}


def make_batch(n: int = 40, m: int = 3, seed: int = 0) -> FusionBatch:
    random = np.random.default_rng(seed)
    x = {
        s.name: torch.from_numpy(random.normal(size=(n, 1, 4)).astype(np.float32))
        for s in SPECS[:m]
    }
    available = torch.from_numpy(random.random((n, m)) < 0.6)
    available[:, 0] = True
    return FusionBatch(
        x=x,
        mask={name: torch.ones(n, 1, dtype=torch.bool) for name in x},
        available=available,
        pattern_id=(available * (1 << torch.arange(m))).sum(1),
        y=torch.from_numpy((random.random((n, 1)) < 0.5).astype(np.float32)),
    )


def make_model(m: int = 3, **options: Any) -> CM2:
    model = build(SPECS[:m], FuseConfig.of({"preset": "reference", **SMALL, **options}))
    assert isinstance(model, CM2)
    batch = make_batch(60, m, seed=7)
    model.start([batch])
    model.refresh(1, [batch])
    return model


def off(*names: str) -> dict[str, bool]:
    return dict.fromkeys(names, False)


def noisy(model: CM2, batch: FusionBatch, seed: int = 0) -> FusionBatch:
    random = np.random.default_rng(seed)
    shapes = model.noise(training=True)
    noise = {k: torch.from_numpy(random.random((len(batch.y), *s))) for k, s in shapes.items()}
    return dataclasses.replace(batch, noise=noise)


def run(model: CM2, batch: FusionBatch, seed: int = 0) -> FusionOutput:
    output: FusionOutput = model(noisy(model, batch, seed), Hyper.of(model.config))
    return output


def train(model: CM2, batch: FusionBatch, steps: int = 30) -> None:
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for step in range(steps):
        optimizer.zero_grad()
        loss = model.objectives(Hyper.of(model.config))[0].total(run(model, batch, step).losses)
        loss.backward()
        optimizer.step()


def test_k_has_no_effect() -> None:
    batch = make_batch(m=2)
    likelihood = {}
    for K in (1, 3, 6):
        model = make_model(2, K=K, impute="zero", published=off(*DRAWS))
        likelihood[K] = run(model, batch).losses["likelihood"].value
        train(model, batch)
        for marginal in model.joint.marginals:
            for part in (marginal.means, marginal.raw_stds, marginal.logits):
                # Up to the last digit: Adam's vectorised and scalar loops round differently.
                torch.testing.assert_close(part, part[:1].expand_as(part), rtol=1e-6, atol=1e-6)
    for K in (3, 6):
        gap = torch.where(batch.available.all(1), math.log(K), 0.0).double() / 6
        torch.testing.assert_close(likelihood[K] - likelihood[1], gap, rtol=0, atol=1e-7)
    means = make_model(2, K=3, published=off("constant_start")).joint.mixture().means
    assert (means[:, 0] - means[:, 1]).abs().amax() > 0.01


DRAWS = ("averaged_draws", "detached_draws", "imputed_likelihood")


def test_components_meet_on_the_diagonal_and_a_part_of_the_mass_is_lost() -> None:
    grid = torch.linspace(-9, 9, 361, dtype=torch.float64)
    w = torch.cartesian_prod(grid, grid).unsqueeze(-1)
    everyone = torch.ones(len(w), 2, dtype=torch.bool)
    mass = {}
    for diagonal in (True, False):
        switches = {"diagonal_components": diagonal, "two_tokens": True}
        config = FuseConfig.of({"K": 3, "copula": "frank", "published": switches})
        joint = PublishedJoint(2, 1, config).double()
        with torch.no_grad():
            for marginal in joint.marginals:
                marginal.means.copy_(torch.tensor([[-3.0], [0.0], [3.0]]))
            mass[diagonal] = (joint.log_prob(w, everyone).exp().sum() * 0.05**2).item()
    assert mass[True] == pytest.approx(1 / 3, abs=1e-3)
    assert mass[False] == pytest.approx(1, abs=1e-3)


def test_what_was_imputed_is_not_read() -> None:
    batch = make_batch()
    complete = batch.available.all(1)
    published = make_model(published=off("two_tokens"))
    first, second = (run(published, batch, seed) for seed in (1, 2))
    assert torch.equal(first.logits, second.logits)
    read = make_model(published=off("two_tokens", "imputed_unread"))
    first, second = (run(read, batch, seed) for seed in (1, 2))
    assert ((first.logits != second.logits).squeeze(1) == ~complete).all()


def test_the_report_is_not_read() -> None:
    batch = make_batch()
    batch = dataclasses.replace(batch, available=torch.ones_like(batch.available))
    other = dataclasses.replace(batch, x={**batch.x, "report": batch.x["report"] + 1})

    def read(model: CM2) -> bool:
        before, after = run(model, batch), run(model, other)
        before.losses["task"].mean().backward()
        gradient = model.encoders.parts[2].projection.weight.grad
        return bool((before.logits != after.logits).all() and gradient.abs().sum() > 0)

    assert not read(make_model())
    assert read(make_model(published=off("two_tokens")))


def uniform_pairs(n: int, rho: float) -> tuple[Tensor, Tensor]:
    random = np.random.default_rng(0)
    z = random.multivariate_normal([0, 0], [[1, rho], [rho, 1]], size=n)
    u = torch.special.ndtr(torch.from_numpy(z))
    return torch.log(u), torch.log1p(-u)


@pytest.mark.parametrize("rho", [-0.95, 0.0, 0.95])
def test_the_parameter_of_gumbel_rises_whatever_the_data_are(rho: float) -> None:
    def fitted(family: Copula) -> float:
        raw = family.initial(2).double().requires_grad_()
        optimizer = torch.optim.Adam([raw], 0.05)
        for _ in range(150):
            optimizer.zero_grad()
            params = family.natural(raw, 2)
            (-family.log_density(*uniform_pairs(500, rho), params).mean()).backward()
            optimizer.step()
        return float(family.natural(raw.detach(), 2)["theta"])

    assert fitted(PublishedGumbel()) > 2.5
    expected = {-0.95: (1.0, 1.05), 0.0: (1.0, 1.06), 0.95: (3.0, 6.0)}[rho]
    assert expected[0] <= fitted(get_copula("gumbel")) <= expected[1]


@pytest.mark.parametrize(("theta", "mass"), [(1.0, 0.059), (5.0, 0.568), (-5.0, 0.568)])
def test_the_density_of_frank_is_none(theta: float, mass: float) -> None:
    x, weight = np.polynomial.legendre.leggauss(80)
    u = torch.cartesian_prod(*[torch.from_numpy((x + 1) / 2)] * 2)
    share = torch.cartesian_prod(*[torch.from_numpy(weight / 2)] * 2).prod(1)
    params = {"theta": torch.tensor(theta).double()}

    def integral(family: Copula) -> float:
        return float((family.log_density(u.log(), (-u).log1p(), params).exp() * share).sum())

    assert integral(PublishedFrank()) == pytest.approx(mass, abs=1e-3)
    assert integral(get_copula("frank")) == pytest.approx(1.0, abs=1e-6)


def test_arguments_are_standardised_over_the_batch() -> None:
    log_f = torch.tensor([-900.0, -1000.0, -1100.0, -1200.0]).double()
    x = ndtri_exp(log_f).unsqueeze(-1)
    one = Mixture(torch.zeros(1).double(), torch.zeros(1, 1).double(), torch.ones(1, 1).double())
    u = _standardised(x, one)[0].exp().squeeze()
    expected = torch.exp(-0.5 * torch.tensor([1.8, 0.2, 0.2, 1.8]).double())
    torch.testing.assert_close(u, expected)  # neither monotone nor uniform
    assert _standardised(x[:3], one)[0][0] != _standardised(x, one)[0][0], "batch mates count"
    assert torch.isfinite(_standardised(x[:1], one)[0]).all()


@pytest.mark.parametrize("copula", ["frank", "gaussian"])
def test_three_modalities_and_other_families_end_with_an_error(copula: str) -> None:
    make_model(2, copula=copula)
    with pytest.raises(ConfigError, match="3 modalities; it computes gumbel there"):
        make_model(3, copula=copula)


def test_a_draw_is_the_mean_of_the_components() -> None:
    uniforms = torch.from_numpy(np.random.default_rng(0).random((4000, 1, 2, 3)))
    available = torch.tensor([[True, False]])
    draws = {}
    for averaged in (True, False):
        switches = {"averaged_draws": averaged, "two_tokens": True}
        config = FuseConfig.of({"K": 3, "impute": "marginal", "published": switches})
        joint = PublishedJoint(2, 1, config).double()
        with torch.no_grad():
            for marginal in joint.marginals:
                marginal.assign(
                    Mixture(
                        torch.full((3,), -math.log(3)),
                        torch.tensor([[-1.0], [0.0], [3.0]]),
                        torch.full((3, 1), 0.0182),
                    )
                )
        need = uniforms[..., : joint.noise_size]
        w = joint.sample_missing(torch.zeros(1, 2, 1).double(), available, need, "marginal")
        assert (w[:, :, 0] == 0).all()
        draws[averaged] = w[:, 0, 1].detach()
    assert draws[True].mean().item() == pytest.approx(2 / 3, abs=1e-2)
    assert draws[True].std().item() == pytest.approx(0.0105, rel=0.05)
    assert draws[False].std().item() == pytest.approx(1.70, rel=0.03)


def test_draws_carry_no_gradient() -> None:
    batch = make_batch()
    for detached in (True, False):
        switches = off("imputed_unread", "two_tokens") | {"detached_draws": detached}
        model = make_model(published=switches)
        run(model, batch).losses["task"].mean().backward()
        moved = [p.grad is not None and bool((p.grad != 0).any()) for p in mixtures(model)]
        assert any(moved) is not detached


def mixtures(model: CM2) -> list[Tensor]:
    return [p for name, p in model.named_parameters() if name.startswith("joint.marginals.")]


def test_imputed_values_enter_the_likelihood() -> None:
    batch = make_batch()
    incomplete = ~batch.available.all(1)
    for entered in (True, False):
        model = make_model(published={"imputed_likelihood": entered})
        first, second = (run(model, batch, s).losses["likelihood"] for s in (1, 2))
        changed = first.value != second.value
        assert (changed == (incomplete & entered)).all()
        assert first.rows.all()
        copula = run(model, batch).losses["copula"].rows
        assert (copula == (batch.available.sum(1) >= 2) | entered).all()


def test_the_copula_reads_the_embedding_itself() -> None:
    batch = make_batch()
    raw = make_model()
    output = run(raw, batch)
    z = torch.where(batch.available.unsqueeze(-1), output.z.double(), 0.0)
    w = raw.coordinates(output.z, batch.available)
    torch.testing.assert_close(w, z / math.sqrt(6))
    torch.testing.assert_close(raw.space.decode(w), z)
    before = raw.space.whitening.transform.clone()
    raw.track(batch, output)
    raw.refresh(2, [batch])
    assert torch.equal(raw.space.whitening.transform, before)
    white, seen = make_model(published=off("raw_space")), make_batch(60, seed=7)
    rows = white.coordinates(run(white, seen).z, seen.available)[:, 0]  # always there
    covariance = torch.cov(rows.T, correction=0)[:4, :4]  # embeddings of rank 4
    torch.testing.assert_close(covariance, torch.eye(4).double(), rtol=0, atol=0.02)


def test_everything_moves_everything() -> None:
    batch = make_batch()

    def moved(objective: str) -> set[str]:
        model = make_model(objective=objective, published=off(*DRAWS, "imputed_unread"))
        losses = run(model, batch).losses
        losses["likelihood" if objective == "paper" else "marginal"].mean().backward()
        return {n.partition(".")[0] for n, p in model.named_parameters() if p.grad is not None}

    assert moved("paper") == {"encoders", "joint"}
    assert moved("penalised") == {"joint"}


def test_the_numbers_at_the_start_are_those_that_were_seen() -> None:
    """About 3,460 nats for unit vectors of 256 numbers at K = 3 (Gumbel)."""
    config = FuseConfig.of({"preset": "reference"})
    joint = PublishedJoint(2, 256, config).double()
    with torch.no_grad():
        params = {"theta": torch.tensor(1.0001).double()}
        joint.raw.copy_(joint.copula.unconstrained(params, 2))
    z = torch.from_numpy(np.random.default_rng(0).normal(size=(16, 2, 256)))
    w = z / z.norm(dim=-1, keepdim=True)
    value = -joint.log_prob(w, torch.ones(16, 2, dtype=torch.bool)).mean().item()
    assert value == pytest.approx(3460, rel=0.02)
