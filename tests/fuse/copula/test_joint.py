from __future__ import annotations

import json
import math
from itertools import product
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from scipy import stats
from torch import Tensor

from cm2.errors import ConfigError
from cm2.fuse.copula import COPULAS
from cm2.fuse.copula.joint import JointModel
from cm2.fuse.copula.mixture import log_prob, rosenblatt

from .conftest import joint_of, some_joint

FAMILIES = tuple(COPULAS)
COUPLED = tuple(name for name in FAMILIES if name != "independence")


def patterns(M: int) -> Tensor:
    """Every availability pattern, (2^M, M)."""
    return torch.tensor(list(product([False, True], repeat=M)))


def draws(joint: JointModel, n: int, seed: int = 0) -> Tensor:
    """Stays drawn from the joint density itself, (n, M, D)."""
    generator = torch.Generator().manual_seed(seed)
    shape = (1, n, joint.M, joint.noise_size)
    uniforms = torch.rand(shape, generator=generator, dtype=torch.float64)
    nobody = torch.zeros(n, joint.M, dtype=torch.bool)
    blank = torch.zeros(n, joint.M, joint.D, dtype=torch.float64)
    return joint.sample_missing(blank, nobody, uniforms)[0].detach()


def test_all_vectors_agree(shared: Path) -> None:
    groups = json.loads((shared / "vectors" / "joint.json").read_text())
    assert len(groups) == 24
    for group in groups:
        joint = joint_of(group, group["M"])
        stays = group["stays"]
        nothing = [math.nan] * group["D"]
        rows = [[nothing if x is None else x for x in stay["x"]] for stay in stays]
        w = torch.tensor(rows, dtype=torch.float64)
        available = torch.tensor([stay["mask"] for stay in stays]).bool()
        terms = joint.log_terms(w, available)
        tolerance = 1e-10 if group["family"] == "student_t" else 1e-11
        for i, stay in enumerate(stays):
            expected = np.array(stay["log_marginals"], dtype=np.float64)
            found = terms.marginal[i][available[i]].detach().numpy()
            assert np.abs(found - expected).max() < tolerance * max(1, np.abs(expected).max())
            per_coordinate = np.array(stay["log_copula_per_coordinate"], dtype=np.float64)
            mean = terms.copula[i].item()
            assert mean == pytest.approx(per_coordinate.mean(), abs=10 * tolerance)
            total = float(stay["log_joint"])
            value = joint.log_prob(w, available)[i].item()
            assert abs(value - total) < tolerance * max(1, abs(total))


@pytest.mark.parametrize("family", COUPLED)
@pytest.mark.parametrize("coupling", ["rosenblatt", "component"])
def test_exact_couplings_integrate_to_one(family: str, coupling: str) -> None:
    """Importance sampling from the margins alone: E[p / prod f] = 1."""
    joint = some_joint(2, 4, 2, family, tau=0.2, coupling=coupling)
    independent = some_joint(2, 4, 2, "independence")
    n = 20_000
    ratio = 4 * joint.log_terms(draws(independent, n), torch.ones(n, 2).bool()).copula
    weight = ratio.exp().detach().numpy()
    assert abs(weight.mean() - 1) < 5 * weight.std() / math.sqrt(n)
    assert weight.std() > 0.3


def test_vector_coupling_does_not_integrate_to_one() -> None:
    joint = some_joint(2, 8, 1, "clayton", tau=0.33, coupling="joint")
    independent = some_joint(2, 8, 1, "independence")
    terms = joint.log_terms(draws(independent, 40_000), torch.ones(40_000, 2).bool())
    assert terms.copula.exp().mean() > 10
    assert joint.describe()["is_density"] is False


@pytest.mark.parametrize("family", COUPLED)
def test_density_of_an_eight_dimensional_pair_equals_brute_force(family: str) -> None:
    """Everything from scratch with numpy and scipy: margins by conditioning, one copula each."""
    joint = some_joint(2, 8, 2, family)
    x = draws(joint, 20)
    mix = joint.mixture()
    weights, means, stds = (part.detach().numpy() for part in mix)
    params = {k: v.detach() for k, v in joint.copula_params().items()}
    found = joint.log_prob(x, torch.ones(20, 2).bool()).detach().numpy()
    for i in range(20):
        total, u = 0.0, np.zeros((2, 8))
        for m in range(2):
            prior = np.exp(weights[m])
            for d in range(8):
                value = x[i, m, d].item()
                u[m, d] = prior @ stats.norm.cdf(value, means[m, :, d], stds[m, :, d])
                density = stats.norm.pdf(value, means[m, :, d], stds[m, :, d])
                total += np.log(prior @ density)
                prior = prior * density / (prior @ density)
        for d in range(8):
            pair = torch.from_numpy(u[:, d])
            total += joint.copula.log_density(pair.log(), (-pair).log1p(), params).item()
        assert found[i] == pytest.approx(total, abs=1e-8)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("coupling", ["rosenblatt", "coordinate", "component"])
def test_absent_modalities_are_integrated_out_whatever_they_hold(
    family: str, coupling: str
) -> None:
    joint = some_joint(3, 4, 2, family, coupling=coupling)
    available = patterns(3)
    w = torch.randn(8, 3, 4, dtype=torch.float64, requires_grad=True)
    garbage = torch.where(available.unsqueeze(-1), w, math.nan)
    terms = joint.log_terms(garbage, available)
    assert torch.equal(terms.copula[available.sum(-1) < 2], torch.zeros(4, dtype=torch.float64))
    assert torch.equal(terms.marginal[~available], torch.zeros(12, dtype=torch.float64))
    learned = [p for p in joint.parameters() if p.numel() and family != "independence"]
    inputs = [w, *learned]
    gradient, *others = torch.autograd.grad(joint.log_prob(garbage, available).sum(), inputs)
    assert all(torch.isfinite(g).all() for g in (gradient, *others))
    assert gradient[~available].abs().max() == 0
    if family == "independence":
        return
    for keep in ([0, 1], [0, 2], [1, 2]):  # the same as the smaller model on its own
        small = JointModel(2, 4, 2, joint.copula, coupling=coupling).double()
        for marginal, m in zip(small.marginals, keep, strict=True):
            marginal.load_state_dict(joint.marginals[m].state_dict())
        params = joint.copula.marginal(joint.copula_params(), keep)
        small.raw.data.copy_(joint.copula.unconstrained(params, 2))
        mask = torch.zeros(1, 3, dtype=torch.bool)
        mask[:, keep] = True
        expected = small.log_prob(w[:, keep], torch.ones(8, 2).bool())
        assert torch.allclose(joint.log_prob(w, mask.expand(8, 3)), expected, atol=1e-6)


def test_every_coupling_is_the_same_with_one_component_except_the_scalar_ones() -> None:
    x = torch.randn(30, 2, 5, dtype=torch.float64)
    everyone = torch.ones(30, 2).bool()
    values = {
        name: some_joint(2, 5, 1, "frank", coupling=name).log_terms(x, everyone).copula
        for name in ("rosenblatt", "coordinate", "component", "kendall", "joint")
    }
    assert torch.allclose(values["rosenblatt"], values["coordinate"])
    assert torch.allclose(values["rosenblatt"], values["component"])
    assert not torch.allclose(values["kendall"], values["joint"])


def test_kendall_coupling_is_exact() -> None:
    joint = some_joint(2, 8, 1, "clayton", tau=0.3, coupling="kendall")
    independent = some_joint(2, 8, 1, "independence")
    weight = joint.log_terms(draws(independent, 40_000), torch.ones(40_000, 2).bool()).copula.exp()
    assert abs(weight.mean().item() - 1) < 5 * weight.std().item() / 200
    one = joint.log_prob(draws(independent, 5), torch.ones(5, 2).bool())
    terms = joint.log_terms(draws(independent, 5), torch.ones(5, 2).bool())
    assert torch.allclose(one, terms.marginal.sum(-1) + terms.copula)


def test_shared_parameters_equal_the_same_number_for_every_coordinate() -> None:
    x = torch.randn(30, 3, 5, dtype=torch.float64)
    everyone = torch.ones(30, 3).bool()
    for family in COUPLED:
        shared, each = (
            some_joint(3, 5, 2, family, params=params) for params in ("shared", "per-dim")
        )
        assert each.raw.shape == (5, *shared.raw.shape)
        found = each.log_terms(x, everyone).copula
        assert torch.allclose(shared.log_terms(x, everyone).copula, found)
        each.raw.data[2] += 0.3
        assert not torch.allclose(each.log_terms(x, everyone).copula, found)


@pytest.mark.parametrize("family", COUPLED)
def test_each_term_trains_what_it_should_and_nothing_else(family: str) -> None:
    joint = some_joint(2, 4, 2, family)
    w = torch.randn(10, 2, 4, dtype=torch.float64, requires_grad=True)
    everyone = torch.ones(10, 2).bool()
    mixtures = [p for name, p in joint.named_parameters() if name != "raw"]

    def moved(term: Tensor, parameters: list[Tensor]) -> list[bool]:
        gradients = torch.autograd.grad(term.sum(), parameters, allow_unused=True)
        return [g is not None and bool(g.abs().sum() > 0) for g in gradients]

    terms = joint.log_terms(w, everyone)
    assert moved(terms.marginal, [w, joint.raw, *mixtures]) == [False, False, *[True] * 6]
    terms = joint.log_terms(w, everyone)
    assert moved(terms.copula, [w, joint.raw, *mixtures]) == [True, True, *[False] * 6]
    everything = [w, joint.raw, *mixtures]
    assert all(moved(joint.log_prob(w, everyone), everything))


@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_of_the_density_equals_finite_differences(family: str) -> None:
    joint = some_joint(3, 2, 2, family)
    available = patterns(3)[3:]
    w = torch.randn(5, 3, 2, dtype=torch.float64, requires_grad=True)
    names = [name for name, _ in joint.named_parameters()]

    def value(w: Tensor, *parameters: Tensor) -> Tensor:
        state = dict(zip(names, parameters, strict=True))
        call = {"w": w, "available": available, "detach": False}
        terms = torch.func.functional_call(Terms(joint), prefixed(state), kwargs=call)
        return terms[0].sum(-1) + 2 * terms[1]

    inputs = (w, *(p.detach().clone().requires_grad_() for p in joint.parameters()))
    assert torch.autograd.gradcheck(value, inputs, atol=1e-5, rtol=1e-4)


class Terms(torch.nn.Module):
    """`log_terms` as a forward pass, for functional_call."""

    def __init__(self, joint: JointModel) -> None:
        super().__init__()
        self.joint = joint

    def forward(self, **inputs: Any) -> tuple[Tensor, ...]:
        return tuple(self.joint.log_terms(**inputs))


def prefixed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"joint.{name}": value for name, value in state.items()}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("coupling", "params", "K"),
    [
        ("rosenblatt", "shared", 2),
        ("rosenblatt", "per-dim", 2),
        ("coordinate", "shared", 2),
        ("coordinate", "per-dim", 2),
        ("component", "shared", 2),
        ("component", "per-dim", 2),
        ("joint", "shared", 2),
        ("kendall", "shared", 1),
    ],
)
def test_terms_equal_their_loop_under_vmap_and_grad(
    family: str, coupling: str, params: str, K: int
) -> None:
    models = [some_joint(3, 3, K, family, 0.3, s, coupling=coupling, params=params) for s in (0, 1)]
    stacked, _ = torch.func.stack_module_state([Terms(m) for m in models])
    base = Terms(models[0])
    w = torch.randn(2, 6, 3, 3, dtype=torch.float64)
    available = torch.stack([patterns(3)[2:], patterns(3)[1:7]])

    def loss(state: dict[str, Tensor], w: Tensor, available: Tensor) -> Tensor:
        call = {"w": w, "available": available}
        terms = torch.func.functional_call(base, state, kwargs=call)
        return terms[0].sum() + terms[1].sum()

    gradient = torch.func.grad(loss, argnums=(0, 1))
    mapped = torch.func.vmap(gradient)(stacked, w, available)
    for e in range(2):
        single = gradient({k: v[e] for k, v in stacked.items()}, w[e], available[e])
        assert torch.allclose(mapped[1][e], single[1], rtol=1e-9, atol=1e-11)
        for name, value in single[0].items():
            assert torch.allclose(mapped[0][name][e], value, rtol=1e-9, atol=1e-11), name


@settings(max_examples=120, deadline=None)
@given(
    family=st.sampled_from(FAMILIES),
    M=st.integers(2, 4),
    K=st.integers(1, 3),
    tau=st.sampled_from([1e-3, 0.1, 0.5, 0.85]),
    far=st.sampled_from([0.0, 3.0, 10.0, 40.0]),
    floor=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_float32_terms_are_finite_forward_and_backward(
    family: str, M: int, K: int, tau: float, far: float, floor: bool, seed: int
) -> None:
    joint = some_joint(M, 4, K, family, tau, seed).float()
    if floor:
        for marginal in joint.marginals:
            marginal.raw_stds.data.fill_(-30.0)  # type: ignore[union-attr]
    mix = joint.mixture()
    side = torch.randn(8, M, 4, generator=torch.Generator().manual_seed(seed)).sign()
    w = (mix.means[:, 0] + far * side * mix.stds[:, 0]).detach().requires_grad_()
    available = torch.rand(8, M, generator=torch.Generator().manual_seed(seed)) > 0.2
    terms = joint.log_terms(w, available)
    total = terms.marginal.sum() + terms.copula.sum()
    inputs = [w, *(p for p in joint.parameters() if p.numel())]
    gradients = torch.autograd.grad(total, inputs, allow_unused=True)
    assert all(torch.isfinite(part).all() for part in terms)
    assert all(torch.isfinite(g).all() for g in gradients if g is not None)


def test_held_out_coordinates_are_uniform_and_pairwise_independent_within_a_modality() -> None:
    joint = some_joint(2, 6, 3, "gumbel")
    n = 5000
    terms = joint.log_terms(draws(joint, n), torch.ones(n, 2).bool())
    u = terms.log_u.exp().detach().numpy()
    for m in range(2):
        for d in range(6):
            assert stats.kstest(u[:, m, d], "uniform").pvalue > 1e-4
        correlation = stats.spearmanr(u[:, m]).statistic - np.eye(6)
        assert np.abs(correlation).max() < 4.5 / math.sqrt(n)
    between = stats.kendalltau(u[:, 0, 0], u[:, 1, 0]).statistic
    assert between == pytest.approx(0.4, abs=0.03)


def test_one_modality_is_legal_and_has_no_copula_term() -> None:
    joint = some_joint(1, 4, 2, "frank")
    w = torch.randn(5, 1, 4, dtype=torch.float64)
    terms = joint.log_terms(w, torch.ones(5, 1).bool())
    assert torch.equal(terms.copula, torch.zeros(5, dtype=torch.float64))
    mix = joint.mixture()
    assert torch.allclose(terms.marginal, log_prob(w, mix))
    assert torch.allclose(terms.log_u, rosenblatt(w, mix)[0])


def test_description_is_plain_json_with_the_dependence() -> None:
    for family in FAMILIES:
        for params in ("shared", "per-dim"):
            facts = json.loads(json.dumps(some_joint(3, 2, 2, family, params=params).describe()))
            assert facts["family"] == family
            tau = np.array(facts["kendall_tau"])
            pair = tau[..., 0, 1] if tau.shape[-2:] == (3, 3) else tau
            assert np.allclose(pair, 0.0 if family == "independence" else 0.4, atol=1e-6)
            assert np.allclose(np.sum(facts["mixture_weights"], -1), 1)


def test_refresh_follows_the_data_of_the_present_stays() -> None:
    joint = some_joint(2, 3, 2, "frank")
    w = draws(joint, 500) + 1.0
    available = torch.rand(500, 2, generator=torch.Generator().manual_seed(0)) > 0.3
    w[~available] = math.nan
    before = joint.log_terms(w, available).marginal.sum()
    joint.refresh(w, available, steps=5)
    assert joint.log_terms(w, available).marginal.sum() > before + 100


def test_impossible_models_are_named() -> None:
    with pytest.raises(ConfigError, match="per-dim"):
        JointModel(2, 4, 1, "frank", coupling="joint", params="per-dim")
    with pytest.raises(ConfigError, match="'each'"):
        JointModel(2, 4, 1, "frank", params="each")
    with pytest.raises(ConfigError, match="gumbell"):
        JointModel(2, 4, 1, "gumbell")
