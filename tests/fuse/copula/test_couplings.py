from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import special, stats

from cm2.errors import ConfigError
from cm2.fuse.copula.couplings import COUPLINGS, gamma_pair, get_coupling
from cm2.fuse.copula.joint import JointModel
from cm2.fuse.copula.mixture import Mixture, log_cdf, sample


def normal_mixture(D: int) -> Mixture:
    zero = torch.zeros(1, D, dtype=torch.float64)
    return Mixture(torch.zeros(1, dtype=torch.float64), zero, torch.ones_like(zero))


@pytest.mark.parametrize("n", [1, 2, 8, 64, 256, 1024])
def test_gamma_tails_equal_scipy_and_stay_finite_where_it_underflows(n: int) -> None:
    shares = [1e-3, 0.1, 0.5, 0.9, 0.999, 1.0, 1.001, 1.2, 2.0]
    x = (n * torch.tensor(shares, dtype=torch.float64)).requires_grad_()
    log_q, log_p = gamma_pair(x, n)
    values = x.detach().numpy()
    for found, expected in (
        (log_q, special.gammaincc(n, values)),
        (log_p, special.gammainc(n, values)),
    ):
        safe = expected > 1e-290
        error = np.abs(found.detach().numpy()[safe] - np.log(expected[safe]))
        assert (error / np.maximum(1, np.abs(np.log(expected[safe])))).max() < 1e-11
    (gradient,) = torch.autograd.grad(log_q.sum() - log_p.sum(), x)
    assert torch.isfinite(gradient).all()
    assert (gradient < 0).all()
    far_q, far_p = gamma_pair(torch.tensor([1e-9, 5e3 + n], dtype=torch.float64), n)
    assert torch.isfinite(far_q).all()
    assert torch.isfinite(far_p).all()


def test_gamma_tails_equal_finite_differences() -> None:
    x = torch.tensor([0.5, 5.0, 7.9, 8.1, 20.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: gamma_pair(v, 8), (x,))


def test_kendall_arguments_of_one_coordinate_are_its_distribution_in_both_tails() -> None:
    z = torch.linspace(-35, 35, 141, dtype=torch.float64).unsqueeze(-1)
    found, expected = (
        COUPLINGS[name].transform(z, normal_mixture(1)) for name in ("kendall", "rosenblatt")
    )
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=0)


@pytest.mark.parametrize("family", ["clayton", "frank", "gumbel", "gaussian", "student"])
@pytest.mark.parametrize("D", [1, 2, 16])
def test_kendall_terms_are_finite_far_above_the_mean_with_their_gradient(
    D: int, family: str
) -> None:
    joint = JointModel(2, D, 1, family, "kendall").double()
    place = torch.tensor([-1e4, -40.0, 0.5, 8.5, 9.0, 40.0, 1e4], dtype=torch.float64)
    w = torch.cartesian_prod(place, place).unsqueeze(-1).expand(-1, 2, D).clone().requires_grad_()
    terms = joint.log_terms(w, torch.ones(len(w), 2, dtype=torch.bool), detach=False)
    assert terms.copula.isfinite().all()
    assert (terms.log_u < 0).all()
    assert (terms.log_sf < 0).all()
    for gradient in torch.autograd.grad(terms.copula.sum(), [w, joint.raw]):
        assert gradient.isfinite().all()


@pytest.mark.parametrize("D", [2, 8, 64])
def test_vector_distribution_is_far_from_uniform_and_its_kendall_transform_is_uniform(
    D: int,
) -> None:
    n, mix = 5000, normal_mixture(D)
    generator = torch.Generator().manual_seed(0)
    x = sample(torch.rand(n, D + 1, generator=generator, dtype=torch.float64), mix)
    u = COUPLINGS["joint"].transform(x, mix)[0].exp().flatten().numpy()
    v = COUPLINGS["kendall"].transform(x, mix)[0].exp().flatten().numpy()
    expected = {2: 0.368, 8: 0.944, 64: 1.0}[D]  # max_w K(w) - w, from the Kendall function
    assert stats.kstest(u, "uniform").statistic == pytest.approx(expected, abs=0.02)
    assert stats.kstest(v, "uniform").pvalue > 1e-3
    # -log F is Gamma(D, 1) for independent coordinates
    assert stats.kstest(-log_cdf(x, mix).numpy(), stats.gamma(D).cdf).pvalue > 1e-3


def test_only_exact_couplings_call_themselves_densities() -> None:
    exact = {name for name, coupling in COUPLINGS.items() if coupling.density}
    assert exact == {"rosenblatt", "component", "kendall"}


def test_unknown_and_impossible_couplings_are_named() -> None:
    with pytest.raises(ConfigError, match=r"'rosenblat'.*rosenblatt, coordinate"):
        get_coupling("rosenblat", 3)
    with pytest.raises(ConfigError, match="K = 3"):
        get_coupling("kendall", 3)
