from __future__ import annotations

import json
import math
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from scipy import stats
from sklearn.mixture import GaussianMixture
from torch import Tensor

from cm2.fuse.copula import mixture as functions
from cm2.fuse.copula.mixture import (
    Mixture,
    coordinate_cdf,
    coordinate_inverse,
    em_step,
    log_cdf,
    log_prob,
    responsibilities,
    rosenblatt,
    rosenblatt_inverse,
    sample,
    separate,
)
from cm2.fuse.copula.normal import normal_quantile


def some_mixture(
    K: int,
    D: int,
    *lead: int,
    seed: int = 0,
    apart: float = 1.0,
    dtype: torch.dtype = torch.float64,
) -> Mixture:
    g = torch.Generator().manual_seed(seed)
    return Mixture(
        torch.log_softmax(torch.randn(*lead, K, generator=g, dtype=dtype), -1),
        apart * torch.randn(*lead, K, D, generator=g, dtype=dtype),
        0.2 + torch.rand(*lead, K, D, generator=g, dtype=dtype),
    )


def some_uniforms(*shape: int, seed: int = 1) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def vectors(shared: Path) -> list[tuple[Mixture, Tensor, dict[str, Tensor]]]:
    groups = []
    for group in json.loads((shared / "vectors" / "gmm.json").read_text()):
        parts = {k: torch.tensor(v, dtype=torch.float64) for k, v in group["mixture"].items()}
        weights = parts["weights"]
        mix = Mixture(torch.log(weights / weights.sum()), parts["means"], parts["stds"])
        points = group["points"]
        x = torch.tensor([p["x"] for p in points], dtype=torch.float64)
        expected = {
            key: torch.from_numpy(np.array([p[key] for p in points], dtype=np.float64))
            for key in points[0]
            if key != "x"
        }
        groups.append((mix, x, expected))
    return groups


def error(value: Tensor, expected: Tensor) -> float:
    return float(((value.double() - expected).abs() / expected.abs().clamp_min(1.0)).max())


def quantities(x: Tensor, mix: Mixture) -> dict[str, Tensor]:
    log_u, log_sf = rosenblatt(x, mix)
    log_cdfs, log_sfs = coordinate_cdf(x, mix)
    return {
        "log_pdf": log_prob(x, mix),
        "joint_log_cdf": log_cdf(x, mix),
        "rosenblatt_log_u": log_u,
        "rosenblatt_log1m_u": log_sf,
        "rosenblatt_z": normal_quantile(log_u, log_sf),
        "coordinate_log_cdf": log_cdfs,
        "coordinate_log_sf": log_sfs,
        "coordinate_z": normal_quantile(log_cdfs, log_sfs),
        "log_responsibilities": responsibilities(x, mix),
    }


def test_all_vectors_agree_in_float64(shared: Path) -> None:
    for mix, x, expected in vectors(shared):
        found = quantities(x, mix)
        assert set(found) == set(expected)
        for name, value in found.items():
            assert error(value, expected[name]) < 1e-13, name


def test_vectors_agree_in_float32_at_interior_points(shared: Path) -> None:
    compared = 0
    for mix, x, expected in vectors(shared):
        inside = (((x.unsqueeze(-2) - mix.means) / mix.stds).abs() < 6).flatten(1).all(1)
        small = Mixture(*(part.float() for part in mix))
        found = quantities(x[inside].float(), small)
        compared += int(inside.sum())
        for name, value in found.items():
            if inside.any():
                assert error(value, expected[name][inside]) < 1e-4, name
    assert compared > 30


def test_inverses_return_the_vector_points(shared: Path) -> None:
    for mix, x, _ in vectors(shared):
        assert error(rosenblatt_inverse(*rosenblatt(x, mix), mix), x) < 1e-11
        assert error(coordinate_inverse(*coordinate_cdf(x, mix), mix), x) < 1e-11


def test_density_equals_scikit_learn() -> None:
    x = np.random.default_rng(0).normal(size=(500, 6))
    fit = GaussianMixture(3, covariance_type="diag", random_state=0).fit(x)
    mix = Mixture(
        torch.from_numpy(fit.weights_).log(),
        torch.from_numpy(fit.means_),
        torch.from_numpy(fit.covariances_).sqrt(),
    )
    assert np.allclose(log_prob(torch.from_numpy(x), mix).numpy(), fit.score_samples(x), atol=1e-12)


@pytest.mark.parametrize("apart", [1.0, 10.0, 100.0])
def test_inverse_holds_for_far_components_and_deep_tails(apart: float) -> None:
    mix = some_mixture(5, 6, apart=apart)
    z = torch.linspace(-30, 30, 601, dtype=torch.float64).unsqueeze(-1).expand(-1, 6)
    small = torch.special.log_ndtr(-z.abs())
    log_u, log_sf = functions.complete(small, z > 0)
    again = rosenblatt(rosenblatt_inverse(log_u, log_sf, mix), mix)
    assert error(again[0], log_u) < 1e-8
    assert error(again[1], log_sf) < 1e-8


def test_inverse_takes_a_point_alone_where_plain_newton_does_not_settle() -> None:
    mix = some_mixture(5, 6, apart=100.0)
    z = torch.linspace(-30, 30, 601, dtype=torch.float64).unsqueeze(-1).expand(-1, 6)
    log_u, log_sf = functions.complete(torch.special.log_ndtr(-z.abs()), z > 0)
    together = rosenblatt_inverse(log_u, log_sf, mix)
    for row in range(0, 601, 50):
        assert torch.equal(rosenblatt_inverse(log_u[row], log_sf[row], mix), together[row])


@pytest.mark.parametrize(("K", "apart", "narrow"), [(3, 5.0, 0.1), (6, 3.0, 0.01), (4, 30.0, 0.05)])
def test_inverse_converges_for_thousands_of_awkward_mixtures(
    K: int, apart: float, narrow: float
) -> None:
    n, g = 60_000, torch.Generator().manual_seed(0)
    normal = torch.randn(3, n, K, generator=g, dtype=torch.float64)
    width = torch.where(torch.rand(n, 1, generator=g) > 0.5, 1.0, 0.05)
    stds = narrow + torch.rand(n, K, generator=g, dtype=torch.float64) * width
    mix = Mixture(
        torch.log_softmax((2.0 + 18.0 * (width < 1)) * normal[0], -1),
        apart * normal[1].unsqueeze(-1),
        stds.unsqueeze(-1),
    )
    z = torch.tensor([1.0, 5.0, 20.0]).repeat(n // 3).unsqueeze(-1) * normal[2, :, :1]
    log_u, log_sf = functions.complete(torch.special.log_ndtr(-z.abs()), z > 0)
    again = rosenblatt(rosenblatt_inverse(log_u, log_sf, mix), mix)
    assert error(torch.minimum(*again), torch.minimum(log_u, log_sf)) < 1e-9


@pytest.mark.parametrize("apart", [1.0, 8.0, 40.0])
def test_roots_of_plain_newton_and_of_the_bracket_agree(
    apart: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(0)
    shape = (400, 3, 4)
    means = apart * torch.randn(shape, generator=generator, dtype=torch.float64)
    stds = torch.exp(0.7 * torch.randn(shape, generator=generator, dtype=torch.float64))
    logits = 2.0 * torch.randn(shape[:2], generator=generator, dtype=torch.float64)
    mix = Mixture(torch.log_softmax(logits, -1), means, stds)
    log_u = -60.0 * torch.rand(400, 4, generator=generator, dtype=torch.float64).square() - 1e-3
    pair = log_u, torch.log(-torch.expm1(log_u))
    shares = []

    def watched(*arguments: Tensor) -> tuple[Tensor, Tensor]:
        x, settled = newton(*arguments)
        shares.append(settled.double().mean())
        return x, settled

    newton = functions._newton
    monkeypatch.setattr(functions, "_newton", watched)
    quick = rosenblatt_inverse(*pair, mix)
    assert float(torch.stack(shares).mean()) > (0.95 if apart == 1.0 else 0.5)
    monkeypatch.setattr(functions, "readable", lambda _: False)  # as under torch.func
    torch.testing.assert_close(quick, rosenblatt_inverse(*pair, mix), rtol=1e-11, atol=1e-11)
    assert len(shares) == 4, "the second way brackets every root"


def test_mixtures_may_be_mapped_over_points_that_are_not() -> None:
    mix = some_mixture(3, 4)
    u = torch.rand(5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pair = torch.log(u), torch.log1p(-u)
    shifted = mix._replace(means=torch.stack([mix.means, mix.means + 1.0]))
    axes = Mixture(None, 0, None)  # type: ignore[arg-type]
    found = torch.func.vmap(lambda m: rosenblatt_inverse(*pair, m), in_dims=(axes,))(shifted)
    torch.testing.assert_close(found[1] - found[0], torch.ones_like(u), rtol=0, atol=1e-10)


def test_gradient_stays_finite_in_the_gap_between_two_components() -> None:
    mix = Mixture(
        torch.log(torch.tensor([0.5, 0.5])),
        torch.tensor([[-50.0], [50.0]]).requires_grad_(),
        torch.ones(2, 1),
    )
    u = torch.tensor([0.5 - 1e-7, 0.5, 0.5 + 1e-7]).unsqueeze(-1).requires_grad_()
    x = rosenblatt_inverse(torch.log(u), torch.log1p(-u), mix)
    gradients = torch.autograd.grad(x.sum(), (u, mix.means))
    assert all(torch.isfinite(g).all() for g in gradients)


def test_inverse_gradient_equals_finite_differences() -> None:
    mix = some_mixture(3, 4, 2)

    def inverse(logits: Tensor, means: Tensor, stds: Tensor, u: Tensor) -> Tensor:
        parts = Mixture(torch.log_softmax(logits, -1), means, stds)
        return rosenblatt_inverse(torch.log(u), torch.log1p(-u), parts)

    inputs = [part.clone().requires_grad_() for part in (*mix, some_uniforms(5, 2, 4))]
    assert torch.autograd.gradcheck(inverse, inputs, atol=1e-6)


def test_density_and_transform_gradients_equal_finite_differences() -> None:
    mix = some_mixture(3, 4, 2)
    x = torch.randn(5, 2, 4, dtype=torch.float64)
    inputs = [part.clone().requires_grad_() for part in (x, *mix)]
    for function in (log_prob, rosenblatt, coordinate_cdf, log_cdf):
        assert torch.autograd.gradcheck(
            lambda x, *parts, f=function: f(x, Mixture(*parts)), inputs, atol=1e-6
        )


def test_jacobian_of_the_rosenblatt_transform_is_the_density() -> None:
    mix = some_mixture(3, 5)
    x = torch.randn(5, dtype=torch.float64)
    jacobian = torch.func.jacrev(lambda v: rosenblatt(v, mix)[0].exp())(x)
    assert torch.linalg.slogdet(jacobian)[1] == pytest.approx(log_prob(x, mix).item(), abs=1e-10)
    assert jacobian.triu(1).abs().max() == 0  # each coordinate reads the earlier ones only


def test_draws_are_uniform_and_pairwise_independent_after_the_transform() -> None:
    n, D = 20_000, 6
    mix = some_mixture(3, D, apart=2.0)
    x = sample(some_uniforms(n, D + 1), mix)
    u = rosenblatt(x, mix)[0].exp().numpy()
    for d in range(D):
        assert stats.kstest(u[:, d], "uniform").pvalue > 1e-3
    assert np.abs(stats.spearmanr(u).statistic - np.eye(D)).max() < 4 / math.sqrt(n)
    # the coordinates on their own would not do: same data, clearly dependent
    v = coordinate_cdf(x, mix)[0].exp().numpy()
    assert np.abs(stats.spearmanr(v).statistic - np.eye(D)).max() > 20 / math.sqrt(n)


def test_gradient_of_draws_reaches_weights_means_and_deviations() -> None:
    weights = torch.tensor([0.3, -0.2], dtype=torch.float64, requires_grad=True)
    means = torch.tensor([[-2.0, 1.0], [1.0, -1.0]], dtype=torch.float64, requires_grad=True)
    stds = torch.tensor([[0.5, 1.0], [0.8, 0.3]], dtype=torch.float64, requires_grad=True)
    mix = Mixture(torch.log_softmax(weights, -1), means, stds)
    x = sample(some_uniforms(100_000, 3), mix)
    moment = (x[:, 0] ** 2 * x[:, 1]).mean()
    pi = torch.softmax(weights, -1)
    exact = (pi * (means[:, 0] ** 2 + stds[:, 0] ** 2) * means[:, 1]).sum()
    assert moment.item() == pytest.approx(exact.item(), abs=0.05)
    found = torch.autograd.grad(moment, (weights, means, stds))
    expected = torch.autograd.grad(exact, (weights, means, stds))
    for a, b in zip(found, expected, strict=True):
        assert (a - b).abs().max() < 0.05
    assert expected[0].abs().min() > 1  # the weights do matter here


@settings(max_examples=300, deadline=None)
@given(
    K=st.integers(1, 5),
    D=st.sampled_from([1, 2, 7, 64]),
    seed=st.integers(0, 10_000),
    far=st.sampled_from([0.0, 6.0, 40.0, 400.0]),
    floor=st.booleans(),
)
def test_float32_is_finite_at_the_floor_and_far_out(
    K: int, D: int, seed: int, far: float, floor: bool
) -> None:
    mix = some_mixture(K, D, seed=seed, dtype=torch.float32)
    stds = torch.full_like(mix.stds, 1e-2) if floor else mix.stds
    parts = [part.clone().requires_grad_() for part in (mix.log_weights, mix.means, stds)]
    side = torch.randn(8, D, generator=torch.Generator().manual_seed(seed)).sign()
    x = (mix.means[0] + far * side * stds[0]).requires_grad_()
    log_u, log_sf = rosenblatt(x, Mixture(*parts))
    total = log_prob(x, Mixture(*parts)).sum() + normal_quantile(log_u, log_sf).sum()
    total = total + log_u.clamp_min(-1e3).sum() - log_sf.clamp_min(-1e3).sum()
    values = (log_u, log_sf, total, *torch.autograd.grad(total, (x, *parts)))
    assert all(torch.isfinite(value).all() for value in values)
    assert (log_u < 0).all()
    assert (log_sf < 0).all()


def test_float32_transform_is_usable_at_1024_coordinates() -> None:
    mix = some_mixture(3, 1024, apart=0.05)
    x = sample(some_uniforms(16, 1025), mix)
    exact = rosenblatt(x, mix)
    small = rosenblatt(x.float(), Mixture(*(part.float() for part in mix)))
    for a, b in zip(small, exact, strict=True):
        assert error(a, b) < 1e-3


def test_component_without_weight_changes_nothing() -> None:
    mix = some_mixture(2, 3)
    padded = Mixture(
        torch.cat([mix.log_weights, torch.tensor([-math.inf], dtype=torch.float64)]),
        torch.cat([mix.means, torch.full((1, 3), 50.0, dtype=torch.float64)]),
        torch.cat([mix.stds, torch.ones(1, 3, dtype=torch.float64)]),
    )
    x = torch.randn(20, 3, dtype=torch.float64)
    means = padded.means.clone().requires_grad_()
    live = padded._replace(means=means)
    assert torch.allclose(log_prob(x, live), log_prob(x, mix))
    pair = rosenblatt(x, live)
    assert torch.allclose(pair[0], rosenblatt(x, mix)[0])
    back = rosenblatt_inverse(*pair, live)
    assert torch.allclose(back, x)
    (gradient,) = torch.autograd.grad(pair[0].sum() + back.sum(), means)
    assert torch.isfinite(gradient).all()
    assert gradient[-1].abs().max() == 0


def test_em_step_never_lowers_the_likelihood_and_finds_the_mixture() -> None:
    truth = some_mixture(3, 4, apart=3.0)
    x = sample(some_uniforms(4000, 5), truth)
    weights = (some_uniforms(4000) > 0.2).double()
    x[weights == 0] = math.nan  # absent rows are not read
    mix = truth._replace(means=truth.means + 1.0, stds=torch.ones_like(truth.stds))
    rows = x[weights > 0]
    before = log_prob(rows, mix).mean()
    for _ in range(60):
        mix = em_step(x, weights, mix, 1e-2)
        after = log_prob(rows, mix).mean()
        assert after >= before - 1e-12
        before = after
    assert before > log_prob(rows, truth).mean()


def test_em_step_equals_scikit_learn() -> None:
    x = np.random.default_rng(1).normal(size=(300, 3))
    options = {"covariance_type": "diag", "reg_covar": 0.0, "init_params": "random_from_data"}
    start = some_mixture(2, 3)
    fit = GaussianMixture(
        2,
        max_iter=1,
        weights_init=start.log_weights.exp().numpy(),
        means_init=start.means.numpy(),
        precisions_init=start.stds.pow(-2).numpy(),
        **options,
    )
    with pytest.warns(UserWarning, match="converge"):
        fit.fit(x)
    mix = em_step(torch.from_numpy(x), torch.ones(300, dtype=torch.float64), start, 1e-6)
    assert np.allclose(mix.log_weights.exp().numpy(), fit.weights_)
    assert np.allclose(mix.means.numpy(), fit.means_)
    assert np.allclose(mix.stds.square().numpy(), fit.covariances_)


def test_unclaimed_component_keeps_its_place() -> None:
    mix = some_mixture(2, 2)
    mix.means[1] = 1e3
    x = torch.randn(50, 2, dtype=torch.float64)
    moved = em_step(x, torch.ones(50, dtype=torch.float64), mix, 1e-2)
    assert torch.equal(moved.means[1], mix.means[1])
    assert torch.equal(moved.stds[1], mix.stds[1])
    assert all(torch.isfinite(part).all() for part in moved)


def test_equal_components_are_moved_apart_and_others_stay() -> None:
    mix = some_mixture(4, 3)
    mix.means[2], mix.stds[2] = mix.means[0], mix.stds[0]
    mix.means[3], mix.stds[3] = mix.means[0], mix.stds[0]
    moved = separate(mix)
    distances = torch.cdist(moved.means, moved.means) + torch.eye(4)
    assert distances.min() > 0.05
    assert torch.equal(moved.means[:2], mix.means[:2])


def test_every_function_equals_its_loop_under_vmap_and_grad() -> None:
    E, B, K, D = 2, 5, 3, 4
    mix = some_mixture(K, D, E)
    x = torch.randn(E, B, D, dtype=torch.float64)
    u = some_uniforms(E, B, D + 1)
    pick = torch.randn(B, D, dtype=torch.float64)
    calls = {
        "log_prob": lambda x, u, m: log_prob(x, m).sum(),
        "responsibilities": lambda x, u, m: (responsibilities(x, m)[:, 0] * pick[:, 0]).sum(),
        "rosenblatt": lambda x, u, m: (rosenblatt(x, m)[0] * pick).sum(),
        "coordinate": lambda x, u, m: (coordinate_cdf(x, m)[1] * pick).sum(),
        "log_cdf": lambda x, u, m: log_cdf(x, m).sum(),
        "inverse": lambda x, u, m: (
            rosenblatt_inverse(torch.log(u[:, 1:]), torch.log1p(-u[:, 1:]), m) * pick
        ).sum(),
        "coordinate_inverse": lambda x, u, m: (
            coordinate_inverse(torch.log(u[:, 1:]), torch.log1p(-u[:, 1:]), m) * pick
        ).sum(),
        "sample": lambda x, u, m: (sample(u, m) * pick).sum(),
        "em_step": lambda x, u, m: em_step(x, u[:, 0], separate(m), 1e-2).means.sum(),
    }
    for name, call in calls.items():
        derivative = torch.func.grad(call, argnums=2)
        mapped = torch.func.vmap(derivative)(x, u, mix)
        loop = [derivative(x[e], u[e], Mixture(*(part[e] for part in mix))) for e in range(E)]
        for found, *single in zip(mapped, *loop, strict=True):
            assert torch.allclose(found, torch.stack(single), rtol=1e-10, atol=1e-12), name
            assert found.abs().max() > 0 or name == "em_step"
