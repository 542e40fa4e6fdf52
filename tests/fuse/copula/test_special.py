"""Elementary functions against multi-precision values and derivatives, far beyond double range."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath as mp
import pytest
import torch
from torch import Tensor

from cm2.fuse.copula import special, student

mp.mp.dps = 60

Y = [-3000.0, -80.0, -18.1, -17.9, -3.0, -0.6, -0.4, -1e-3, -1e-12, 0.0, 1e-9, 0.3, 0.51, 2.0, 90.0]

FUNCTIONS: list[tuple[str, Callable[[Tensor], Tensor], Callable[[Any], Any], list[float]]] = [
    ("softplus", special.softplus, lambda y: mp.log1p(mp.exp(y)), Y),
    ("log_softplus", special.log_softplus, lambda y: mp.log(mp.log1p(mp.exp(y))), Y),
    (
        "log1mexp_exp",
        special.log1mexp_exp,
        lambda y: mp.log(-mp.expm1(-mp.exp(y))),
        [y for y in Y if y < 5],
    ),
    (
        "log_expm1_ratio",
        special.log_expm1_ratio,
        lambda y: mp.log(mp.expm1(y) / y) if y else mp.mpf(0),
        Y,
    ),
    (
        "expm1_second",
        special.expm1_second,
        lambda y: (mp.expm1(y) - y) / y**2 if y else mp.mpf(1) / 2,
        [y for y in Y if abs(y) < 100],
    ),
    (
        "log1p_second",
        special.log1p_second,
        lambda y: (y - mp.log1p(y)) / y**2 if y else mp.mpf(1) / 2,
        [-0.999, -0.3, -0.2, -1e-9, 0.0, 1e-5, 0.24, 0.26, 50.0],
    ),
]


@pytest.mark.parametrize(("name", "function", "exact", "points"), FUNCTIONS)
def test_value_and_gradient_match_multiprecision(
    name: str,
    function: Callable[[Tensor], Tensor],
    exact: Callable[[Any], Any],
    points: list[float],
) -> None:
    for y in points:
        x = torch.tensor(y, dtype=torch.float64, requires_grad=True)
        value = function(x)
        (slope,) = torch.autograd.grad(value, x)
        wanted = exact(mp.mpf(y))
        assert float(abs(mp.mpf(value.item()) - wanted)) <= 2e-14 * max(1.0, abs(float(wanted))), y
        if y == 0.0 and name not in ("softplus", "log_softplus", "log1mexp_exp"):
            continue  # removable; the neighbours cover it
        derivative = float(mp.diff(exact, mp.mpf(y), h=mp.mpf(10) ** -20))
        assert slope.item() == pytest.approx(derivative, rel=2e-12, abs=1e-13), y


@pytest.mark.parametrize("u", ["1e-400", "1e-40", "1e-9", "0.3", "0.5", "0.51", "0.9", "1-1e-7"])
@pytest.mark.parametrize("mirror", [False, True])
def test_log_neg_log_reads_the_accurate_member(u: str, mirror: bool) -> None:
    exact = 1 - mp.mpf("1e-7") if u.startswith("1-") else mp.mpf(u)
    exact = 1 - exact if mirror else exact
    with mp.workdps(500):
        exact = 1 - mp.mpf(u) if mirror and not u.startswith("1-") else exact
        lower, upper, wanted = mp.log(exact), mp.log1p(-exact), mp.log(-mp.log(exact))
    pair = [torch.tensor(float(x), dtype=torch.float64, requires_grad=True) for x in (lower, upper)]
    value = special.log_neg_log(pair[0], pair[1])
    assert value.item() == pytest.approx(float(wanted), rel=1e-14)
    assert all(g.isfinite() for g in torch.autograd.grad(value, pair, materialize_grads=True))


@pytest.mark.parametrize("theta", [-3.0, -0.2, -1e-9, 0.0, 1e-300, 1e-9, 0.3, 30.0])
@pytest.mark.parametrize("log_x", [-800.0, -20.0, -3.0, -0.4, 0.0, 5.0, 800.0])
def test_log_log1p_over_inverts_the_scaled_exponential(theta: float, log_x: float) -> None:
    exact = mp.mpf(theta) * mp.exp(mp.mpf(log_x))
    got = special.log_log1p_over(
        torch.tensor(theta, dtype=torch.float64), torch.tensor(log_x, dtype=torch.float64)
    ).item()
    if exact <= -1:
        assert got == float("inf")
        return
    wanted = mp.mpf(log_x) if theta == 0 else mp.log(mp.log1p(exact) / mp.mpf(theta))
    assert got == pytest.approx(float(wanted), rel=3e-14, abs=3e-14 * max(1, abs(log_x)))


def test_minus_log_outlives_a_u_that_rounds_to_one() -> None:
    log_sf = torch.tensor([-16.0, -18.0, -900.0], dtype=torch.float64, requires_grad=True)
    log_u = torch.log1p(-torch.exp(log_sf.detach()))
    value = special.minus_log(torch.tensor([log_u[0], 0.0, 0.0], dtype=torch.float64), log_sf)
    assert value[0].item() == -log_u[0].item()
    assert value[1].item() == pytest.approx(float(-mp.log1p(-mp.exp(-18))), rel=1e-15)
    (slope,) = torch.autograd.grad(value.sum(), log_sf)
    assert slope[1].item() == pytest.approx(value[1].item(), rel=1e-7)


def test_log1p_scaled_has_the_one_sided_derivative_at_zero() -> None:
    x = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(special.log1p_scaled(x, torch.tensor(3.0).double()), x)
    assert slope.item() == pytest.approx(float(mp.exp(3)), rel=1e-14)


def _log_t(nu: float, y: float) -> Any:
    """log P(T_nu < sinh y) by the hypergeometric series, y < 0."""
    x, n = mp.sinh(mp.mpf(y)), mp.mpf(nu)
    z = n / (n + x * x)
    series = mp.hyp2f1(n / 2 + 0.5, 1, n / 2 + 1, z)
    return (
        n / 2 * mp.log(z) + mp.log(1 - z) / 2 - mp.log(n) - mp.log(mp.beta(n / 2, 0.5))
        + mp.log(series)
    )  # fmt: skip


@pytest.mark.parametrize("nu", [0.1, 0.5, 1.0, 2.0, 2.5, 5.0, 30.0, 100.0, 1000.0])
def test_student_quantile_and_its_derivatives_match_multiprecision(nu: float) -> None:
    log_p = torch.tensor([-1.0, -13.8, -69.0, -312.0, -374.2, -599.0, -601.0, -45006.6]).double()
    log_p.requires_grad_()
    degrees = torch.tensor(nu, dtype=torch.float64, requires_grad=True)
    y = student.student_quantile(log_p, torch.log1p(-torch.exp(log_p.detach())), degrees)
    for i, p in enumerate(log_p.tolist()):
        wanted = _log_t(nu, y[i].item())
        assert float(abs(wanted - p)) <= 1e-13 * max(1.0, abs(p))
        to_p, to_nu = torch.autograd.grad(y[i], [log_p, degrees], retain_graph=True)
        slope = mp.diff(lambda s: _log_t(nu, s), y[i].item())
        assert to_p[i].item() == pytest.approx(float(1 / slope), rel=1e-9)
        by_nu = -mp.diff(lambda n: _log_t(n, y[i].item()), nu) / slope  # noqa: B023
        assert to_nu.item() == pytest.approx(float(by_nu), rel=1e-8, abs=1e-10)


@pytest.mark.parametrize("nu", [0.3, 2.5, 30.0])
def test_student_pair_inverts_the_quantile_at_both_ends(nu: float) -> None:
    small = torch.tensor([-2000.0, -700.0, -50.0, -3.0, -0.7], dtype=torch.float64)
    large = torch.log1p(-torch.exp(small))
    degrees = torch.tensor(nu, dtype=torch.float64)
    for pair in ((small, large), (large, small)):
        back = student.student_pair(student.student_quantile(*pair, degrees), degrees)
        for got, wanted in zip(back, pair, strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-13, atol=1e-15)


def test_scaled_hyperbolic_functions_survive_arguments_beyond_double_range() -> None:
    y = torch.tensor([-900.0, -2.0, -1e-5, 0.0, 1e-5, 0.5, 2.0, 900.0], dtype=torch.float64)
    shift = -torch.tensor(900.0, dtype=torch.float64)
    scaled = student.scaled_sinh(y, shift)
    assert scaled[-1].item() == pytest.approx(0.5)
    torch.testing.assert_close(student.arcsinh_scaled(scaled[[0, 3, 7]], -shift), y[[0, 3, 7]])
    near = y[1:-1].clone().requires_grad_()
    back = student.arcsinh_scaled(student.scaled_sinh(near, shift * 0 - 3.0), shift * 0 + 3.0)
    torch.testing.assert_close(back, near)
    (slope,) = torch.autograd.grad(back.sum(), near)
    torch.testing.assert_close(slope, torch.ones_like(slope))
