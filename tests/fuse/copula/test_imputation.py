from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import Tensor

from cm2.errors import ConfigError, UnsupportedError
from cm2.fuse.copula import COPULAS
from cm2.fuse.copula.joint import DRAWS, JointModel
from cm2.fuse.copula.mixture import Mixture, rosenblatt

from .conftest import joint_of, some_joint

FAMILIES = tuple(COPULAS)
COUPLED = tuple(name for name in FAMILIES if name != "independence")


def uniforms(joint: JointModel, n: int, B: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (n, B, joint.M, joint.noise_size)
    return torch.rand(shape, generator=generator, dtype=torch.float64)


def vectors(shared: Path) -> list[tuple[dict[str, Any], JointModel, Tensor, Tensor]]:
    entries = json.loads((shared / "vectors" / "imputation.json").read_text())
    assert len(entries) == 18
    absent = torch.tensor([[True, False]])
    found = []
    for entry in entries:
        w = torch.tensor([[entry["x_present"], [math.nan] * entry["D"]]], dtype=torch.float64)
        found.append((entry, joint_of(entry, 2), w, absent))
    return found


def test_conditional_draws_equal_the_vectors(shared: Path) -> None:
    for entry, joint, w, available in vectors(shared):
        q = torch.tensor(entry["q"], dtype=torch.float64).expand(1, 1, 2, -1)
        x = joint.sample_missing(w, available, q)[0, 0, 1]
        log_u, _ = rosenblatt(x, Mixture(*(part[1] for part in joint.mixture())))
        for value, name in ((x, "x_absent"), (log_u.exp(), "u_absent")):
            expected = np.array(entry[name], dtype=np.float64)
            error = np.abs(value.detach().numpy() - expected) / np.maximum(1, np.abs(expected))
            assert error.max() < 1e-9, entry["family"]


def test_conditional_means_equal_the_vectors(shared: Path) -> None:
    compared = 0
    for entry, joint, w, available in vectors(shared):
        if "conditional_mean" in entry:
            shape = torch.empty(1, 1, 2, entry["D"], dtype=torch.float64)
            x = joint.sample_missing(w, available, shape, "conditional-mean")[0, 0, 1, 0]
            assert x.item() == pytest.approx(float(entry["conditional_mean"]), abs=1e-8)
            compared += 1
    assert compared == 6


@pytest.mark.parametrize("family", ["frank", "gaussian"])
@pytest.mark.parametrize("how", ["conditional", "conditional-median", "marginal"])
def test_present_rows_are_unchanged_and_absent_ones_filled_whatever_they_hold(
    family: str, how: str
) -> None:
    joint = some_joint(3, 4, 2, family)
    available = torch.tensor([[True, False, True], [False, True, False], [True] * 3, [False] * 3])
    w = torch.randn(4, 3, 4, dtype=torch.float64)
    q = uniforms(joint, 5, 4)
    hidden = torch.where(available.unsqueeze(-1), w, math.nan)
    x = joint.sample_missing(hidden, available, q, how)
    assert x.shape == (5, 4, 3, 4)
    there = available.unsqueeze(-1).expand_as(w)
    assert torch.equal(x[:, there], w[there].expand(5, -1))
    assert torch.isfinite(x).all()
    assert torch.equal(x, joint.sample_missing(w, available, q, how))
    other = q.clone()
    other[:, 1] = uniforms(joint, 5, 1, seed=9)[:, 0]
    changed = joint.sample_missing(w, available, other, how) != x
    assert not changed[:, [0, 2, 3]].any()  # a new draw for one stay changes only that stay
    assert changed[:, 1][:, [0, 2]].all() == (how != "conditional-median")


@pytest.mark.parametrize("family", COUPLED)
def test_conditional_draws_restore_the_joint_distribution(family: str) -> None:
    """Draw all, hide one modality, draw it again: the joint law must be the same."""
    n, joint = 4000, some_joint(2, 3, 2, family, tau=0.5)
    nobody = torch.zeros(n, 2, dtype=torch.bool)
    w = joint.sample_missing(torch.zeros(n, 2, 3).double(), nobody, uniforms(joint, 1, n))[0]
    first = torch.tensor([True, False]).expand(n, 2)
    again = joint.sample_missing(w, first, uniforms(joint, 1, n, seed=1))[0]
    terms = joint.log_terms(again, torch.ones(n, 2).bool())
    u = terms.log_u.exp().detach().numpy()
    for d in range(3):
        assert stats.kstest(u[:, 1, d], "uniform").pvalue > 1e-4
        assert stats.kendalltau(u[:, 0, d], u[:, 1, d]).statistic == pytest.approx(0.5, abs=0.04)
    # the paper's marginal draws carry nothing about the stay, and are the modality's own
    blind = joint.sample_missing(w, first, uniforms(joint, 1, n, seed=1), "marginal")[0]
    own = joint.log_terms(blind, torch.tensor([[False, True]]).expand(n, 2)).log_u.exp()
    for d in range(3):
        assert stats.kstest(own[:, 1, d].detach().numpy(), "uniform").pvalue > 1e-4
    v = joint.log_terms(blind, torch.ones(n, 2).bool()).log_u.exp().detach().numpy()
    assert abs(stats.kendalltau(v[:, 0, 0], v[:, 1, 0]).statistic) < 0.04


def conditional_moment(joint: JointModel, x_present: float, power: int) -> float:
    """E[x_absent^power | x_present] for D = 1 by adaptive quadrature of the joint density."""
    everyone = torch.ones(1, 2, dtype=torch.bool)

    def density(x: float) -> float:
        w = torch.tensor([[[x_present], [x]]], dtype=torch.float64)
        return float(joint.log_prob(w, everyone).exp().detach())

    mass = integrate.quad(density, -12, 12, limit=200)[0]
    return float(integrate.quad(lambda x: x**power * density(x), -12, 12, limit=200)[0] / mass)


@pytest.mark.parametrize("coupling", ["rosenblatt", "component"])
def test_conditional_draws_have_the_moments_of_the_conditional_density(coupling: str) -> None:
    joint = some_joint(2, 1, 2, "clayton", coupling=coupling)
    w = torch.full((1, 2, 1), 0.3, dtype=torch.float64)
    n = 20_000
    x = joint.sample_missing(w, torch.tensor([[True, False]]), uniforms(joint, n, 1))[:, 0, 1, 0]
    values = x.detach().numpy()
    for power in (1, 2):
        expected = conditional_moment(joint, 0.3, power)
        error = (values**power).std() / math.sqrt(n)
        assert abs((values**power).mean() - expected) < 4 * error


@pytest.mark.parametrize(("K", "D", "tolerance"), [(1, 4, 0.03), (3, 1, 0.03), (3, 4, 0.08)])
def test_conditional_mean_is_the_mean_of_conditional_draws(
    K: int, D: int, tolerance: float
) -> None:
    joint = some_joint(3, D, K, "clayton", tau=0.5)
    w = torch.randn(3, 3, D, dtype=torch.float64)
    available = torch.tensor([[True, False, False], [False, True, True], [False, False, True]])
    draws = joint.sample_missing(w, available, uniforms(joint, 3000, 3)).mean(0)
    mean = joint.sample_missing(w, available, uniforms(joint, 2, 3), "conditional-mean")
    assert mean.shape == (2, 3, 3, D)
    assert torch.equal(mean[0], mean[1])
    assert (mean[0] - draws)[~available].square().mean().sqrt() < tolerance


def test_median_is_the_draw_at_one_half() -> None:
    joint = some_joint(2, 4, 2, "frank")
    w, available = torch.randn(3, 2, 4, dtype=torch.float64), torch.tensor([[True, False]] * 3)
    half = torch.full((1, 3, 2, 4), 0.5, dtype=torch.float64)
    median = joint.sample_missing(w, available, uniforms(joint, 2, 3), "conditional-median")
    assert torch.equal(median, joint.sample_missing(w, available, half).expand(2, -1, -1, -1))


@pytest.mark.parametrize("family", COUPLED)
@pytest.mark.slow
def test_gradient_reaches_marginals_copula_and_present_modalities(family: str) -> None:
    joint = some_joint(2, 3, 2, family)
    q = uniforms(joint, 2, 4)
    available = torch.tensor([[True, False], [False, True], [True, False], [False, True]])
    names = [name for name, _ in joint.named_parameters()]

    class Draw(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.joint = joint

        def forward(self, w: Tensor) -> Tensor:
            return self.joint.sample_missing(w, available, q)

    def value(w: Tensor, *parameters: Tensor) -> Tensor:
        state = {f"joint.{name}": p for name, p in zip(names, parameters, strict=True)}
        found: Tensor = torch.func.functional_call(Draw(), state, (w,))
        return found

    w = torch.randn(4, 2, 3, dtype=torch.float64, requires_grad=True)
    inputs = (w, *(p.detach().clone().requires_grad_() for p in joint.parameters()))
    assert torch.autograd.gradcheck(value, inputs, atol=2e-5, rtol=1e-4)
    gradients = torch.autograd.grad(value(*inputs).square().sum(), inputs)
    assert all(g.abs().sum() > 0 for g in gradients)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("how", DRAWS)
def test_draws_equal_their_loop_under_vmap_and_grad(family: str, how: str) -> None:
    models = [some_joint(2, 2, 2, family, 0.3, seed) for seed in (0, 1)]

    class Draw(torch.nn.Module):
        def __init__(self, joint: JointModel) -> None:
            super().__init__()
            self.joint = joint

        def forward(self, w: Tensor, available: Tensor, q: Tensor) -> Tensor:
            return self.joint.sample_missing(w, available, q, how)

    base = Draw(models[0])
    state, _ = torch.func.stack_module_state([Draw(m) for m in models])
    w = torch.randn(2, 3, 2, 2, dtype=torch.float64)
    available = torch.tensor([[True, False], [False, True], [True, True]]).expand(2, 3, 2)
    q = torch.stack([uniforms(m, 1, 3) for m in models])

    def loss(state: dict[str, Tensor], *inputs: Tensor) -> Tensor:
        found: Tensor = torch.func.functional_call(base, state, inputs)
        return found.square().sum()

    gradient = torch.func.grad(loss, argnums=(0, 1))
    mapped = torch.func.vmap(gradient)(state, w, available, q)
    for e in range(2):
        single = gradient({k: v[e] for k, v in state.items()}, w[e], available[e], q[e])
        assert torch.allclose(mapped[1][e], single[1], rtol=1e-8, atol=1e-10)
        for name, value in single[0].items():
            assert torch.allclose(mapped[0][name][e], value, rtol=1e-8, atol=1e-10), name


def test_float32_draws_given_a_modality_far_out_are_finite_with_their_gradient() -> None:
    for family in FAMILIES:
        joint = some_joint(2, 3, 2, family, tau=0.8).float()
        w = torch.full((1, 2, 3), 40.0, requires_grad=True)
        q = torch.tensor([1e-7, 0.5, 1 - 1e-7]).expand(1, 1, 2, 3)
        x = joint.sample_missing(w, torch.tensor([[True, False]]), q)
        (gradient,) = torch.autograd.grad(x.sum(), w)
        assert torch.isfinite(x).all(), family
        assert torch.isfinite(gradient).all(), family


def test_what_a_coupling_cannot_draw_is_refused_with_what_it_can() -> None:
    w, available = torch.zeros(1, 2, 4), torch.tensor([[True, False]])
    for coupling in ("joint", "kendall"):
        joint = some_joint(2, 4, 1, "frank", coupling=coupling)
        with pytest.raises(UnsupportedError, match="`marginal`"):
            joint.sample_missing(w, available, uniforms(joint, 1, 1))
        assert joint.sample_missing(w, available, uniforms(joint, 1, 1), "marginal").shape[0] == 1
    joint = some_joint(2, 4, 2, "frank", coupling="component")
    with pytest.raises(UnsupportedError, match="conditional-mean"):
        joint.sample_missing(w, available, uniforms(joint, 1, 1), "conditional-mean")
    with pytest.raises(ConfigError, match="'guess'"):
        joint.sample_missing(w, available, uniforms(joint, 1, 1), "guess")


def test_the_median_of_one_modality_alone_is_that_of_its_mixture() -> None:
    joint = some_joint(1, 2, 3, "frank")
    nobody = torch.zeros(1, 1, dtype=torch.bool)
    x = joint.sample_missing(
        torch.zeros(1, 1, 2).double(), nobody, uniforms(joint, 4, 1), "conditional-median"
    )
    u = joint.log_terms(x[0], torch.ones(1, 1).bool()).log_u.exp()
    torch.testing.assert_close(u, torch.full_like(u, 0.5))
