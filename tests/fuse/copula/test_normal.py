from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from cm2.fuse.copula.normal import complete, log1mexp, log_ndtr, ndtri_exp, normal_quantile

BOTH = pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-14), (torch.float32, 1e-6)]
)


def grid(dtype: torch.dtype) -> torch.Tensor:
    edges = [-10.01, -10.0, -9.99, -30.01, -30.0, -29.99, 0.0]  # where formulas meet
    far = [-200.0, -1e3, -1e4]
    return torch.cat([torch.linspace(-60, 8, 1361), torch.tensor(edges + far)]).to(dtype)


@BOTH
def test_log_ndtr_equals_scipy_in_both_tails(dtype: torch.dtype, tolerance: float) -> None:
    x = grid(dtype)
    expected = stats.norm.logcdf(x.double().numpy())
    error = np.abs(log_ndtr(x).double().numpy() - expected)
    assert (error / np.maximum(1.0, np.abs(expected))).max() < tolerance


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_gradient_of_log_ndtr_holds_far_below_where_torch_loses_it(
    dtype: torch.dtype, tolerance: float
) -> None:
    x = grid(dtype).requires_grad_()
    (gradient,) = torch.autograd.grad(log_ndtr(x).sum(), x)
    # phi / Phi through the scaled complementary error function, which neither under- nor overflows
    z = x.detach().double()
    expected = math.sqrt(2 / math.pi) / torch.special.erfcx(-z / math.sqrt(2))
    assert ((gradient.double() - expected).abs() / expected).max() < tolerance


@BOTH
def test_quantile_inverts_log_ndtr_with_its_gradient(dtype: torch.dtype, tolerance: float) -> None:
    x = grid(dtype)
    x = x[x <= 0]
    log_p = log_ndtr(x).requires_grad_()
    back = ndtri_exp(log_p)
    assert ((back - x).abs() / x.abs().clamp_min(1.0)).max() < tolerance
    (gradient,) = torch.autograd.grad(back.sum(), log_p)
    forward = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(log_ndtr(forward).sum(), forward)
    assert (gradient * slope - 1).abs().max() < 1e3 * tolerance


def test_quantile_of_the_pair_is_odd_and_reads_the_smaller_tail() -> None:
    z = torch.tensor([-40.0, -8.0, -1.0, 0.5, 8.0, 40.0], dtype=torch.float64)
    small = log_ndtr(-z.abs())
    log_u, log_sf = complete(small, z > 0)
    assert torch.allclose(normal_quantile(log_u, log_sf), z, rtol=1e-14)
    assert torch.allclose(normal_quantile(log_sf, log_u), -z, rtol=1e-14)


def test_quantile_has_the_right_gradient_at_exactly_one_half() -> None:
    u = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(normal_quantile(torch.log(u), torch.log1p(-u)), u)
    assert gradient.item() == pytest.approx(math.sqrt(2 * math.pi), abs=1e-12)


def test_completed_pair_is_strictly_negative_and_sums_to_one() -> None:
    small = torch.tensor([-800.0, -100.0, -30.0, -1.0, math.log(0.5)], dtype=torch.float32)
    log_u, log_sf = complete(small, torch.tensor([False, True, False, True, False]))
    assert (log_u < 0).all()
    assert (log_sf < 0).all()
    assert torch.allclose(log_u.double().exp() + log_sf.double().exp(), torch.ones(5).double())


def test_log1mexp_has_finite_gradient_at_both_ends() -> None:
    a = torch.tensor([0.0, 1e-30, 1e-8, 0.5, math.log(2), 5.0, 1e4], requires_grad=True)
    value = log1mexp(a)
    (gradient,) = torch.autograd.grad(value[1:].sum(), a)
    assert value[0] == -math.inf
    assert torch.isfinite(value[1:]).all()
    assert torch.isfinite(gradient).all()
    assert value[1].item() == pytest.approx(math.log(1e-30))


def test_functions_run_under_vmap_and_grad() -> None:
    x = torch.randn(2, 3, dtype=torch.float64)
    for function in (log_ndtr, lambda v: ndtri_exp(log_ndtr(-v.abs()) - 1.0)):
        mapped = torch.func.vmap(torch.func.grad(lambda v, f=function: f(v).sum()))(x)
        loop = torch.stack([torch.func.grad(lambda v, f=function: f(v).sum())(row) for row in x])
        assert torch.equal(mapped, loop)
