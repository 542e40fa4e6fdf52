"""The objective `elbo` is a bound: never below what it bounds, and it cannot run away."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from cm2.fuse.copula.joint import JointModel
from cm2.fuse.models.posterior import Posterior, divergence

DRAWS = 20_000


def prior(family: str, K: int = 2, D: int = 1) -> JointModel:
    joint = JointModel(2, D, K, family).double()
    with torch.no_grad():
        for m, marginal in enumerate(joint.marginals):
            marginal.means.copy_(torch.linspace(-1.5 + m, 1.0, K).unsqueeze(-1).expand(K, D))
        params = joint.copula.from_kendall_tau(torch.tensor(0.5).double(), 2)
        joint.raw.copy_(joint.copula.unconstrained(params, 2).reshape(joint.raw.shape))
    return joint


def uniforms(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).random(shape)).clamp(1e-12, 1 - 1e-12)


def logits(w: Tensor) -> Tensor:
    return 1.5 * w[..., 0, 0] - 2.0 * w[..., 1, 0] + 0.3


def exact_log_p(joint: JointModel) -> Tensor:
    """log p(y = 1) by quadrature over the two latents."""
    grid = torch.linspace(-8, 8, 801, dtype=torch.float64)
    w = torch.cartesian_prod(grid, grid).unsqueeze(-1)
    log_p = joint.log_prob(w, torch.ones(len(w), 2, dtype=torch.bool))
    log_cell = 2 * math.log(16 / 800)
    assert torch.logsumexp(log_p + log_cell, 0).item() == pytest.approx(0, abs=1e-3)
    return torch.logsumexp(log_p + log_cell + torch.nn.functional.logsigmoid(logits(w)), 0)


@pytest.mark.parametrize("family", ["frank", "clayton", "gaussian"])
@pytest.mark.parametrize("present", [(True, True), (True, False), (False, True)])
@torch.no_grad()
def test_it_is_never_below_the_exact_value(family: str, present: tuple[bool, bool]) -> None:
    joint = prior(family)
    exact = -exact_log_p(joint)
    available = torch.tensor([present])
    gaps = []
    for seed, (place, noise) in enumerate([(0.0, 1.0), (0.5, 0.3), (-1.0, 2.0), (1.0, 0.05)]):
        posterior = Posterior(2, 1).double()
        posterior.log_noise.fill_(math.log(noise))
        mean = torch.tensor([[[place], [-place]]]).double()
        w = posterior.sample(mean, uniforms(DRAWS, 1, 2, 1, seed=seed)).flatten(0, 1)
        everyone = available.expand(DRAWS, 2)
        kl = divergence(
            posterior, joint, joint.log_terms(w, everyone), available, torch.ones(())
        ).value
        w = joint.sample_missing(w, everyone, uniforms(1, DRAWS, 2, 1, seed=9 + seed))[0]
        cross_entropy = -torch.nn.functional.logsigmoid(logits(w)).mean()
        gaps.append((cross_entropy + kl - exact).item())
    assert min(gaps) > -0.02, "Monte Carlo error of 20,000 draws"
    assert min(gaps) < 1.0 < max(gaps), "neither always tight nor always loose"


@torch.no_grad()
def test_the_divergence_of_gaussians_is_exact() -> None:
    joint = prior("independence", K=1, D=3)
    mix = joint.mixture()
    posterior = Posterior(2, 3).double()
    posterior.log_noise.copy_(torch.tensor([[-1.0, 0.2, -0.5], [0.1, -2.0, 0.0]]))
    mean = torch.from_numpy(np.random.default_rng(1).normal(size=(1, 2, 3)))
    available = torch.tensor([[True, True]])
    w = posterior.sample(mean, uniforms(DRAWS, 1, 2, 3)).flatten(0, 1)
    found = divergence(
        posterior, joint, joint.log_terms(w, available.expand(DRAWS, 2)), available, torch.ones(())
    )
    t, s = posterior.log_noise.exp(), mix.stds[:, 0]
    kl = (s / t).log() + (t.square() + (mean[0] - mix.means[:, 0]).square()) / (2 * s**2) - 0.5
    assert found.value.item() == pytest.approx(kl.sum().item() / 3, rel=0.03)


@pytest.mark.parametrize("objective", ["elbo", "paper"])
def test_it_does_not_run_away_where_the_objective_of_the_paper_does(objective: str) -> None:
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(200, 2, 4)))
    everyone = torch.ones(200, 2, dtype=torch.bool)
    torch.manual_seed(0)
    encoder = torch.nn.Parameter(torch.randn(2, 4, 3).double() / 2)
    posterior, joint = Posterior(2, 3).double(), JointModel(2, 3, 2, "frank", floor=1e-6).double()
    optimizer = torch.optim.Adam([encoder, *posterior.parameters(), *joint.parameters()], 2e-2)
    values = []
    for step in range(400):
        w = torch.einsum("nmi,mij->nmj", x, encoder)
        if objective == "elbo":
            w = posterior.sample(w, uniforms(1, 200, 2, 3, seed=step)).flatten(0, 1)
        terms = joint.log_terms(w, everyone, detach=False)
        if objective == "elbo":
            loss = divergence(posterior, joint, terms, everyone, torch.ones(())).mean()
        else:
            loss = -(terms.marginal.sum(1) / 3 + terms.copula).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert np.isfinite(values).all()
    if objective == "elbo":
        assert min(values) > -0.3, "four standard deviations of one draw"
        assert abs(np.mean(values[-20:])) < 0.1
    else:
        assert values[-1] < -2, "no lower bound"
        assert values[-1] < values[-50] - 0.1, "and still falling"
