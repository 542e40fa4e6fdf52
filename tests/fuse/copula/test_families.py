"""What must hold of every family whatever the numbers: laws, limits, masks, draws."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from scipy import stats
from torch import Tensor

from cm2.errors import ConfigError, UnsupportedError
from cm2.fuse.copula import COPULAS, Copula, get_copula
from cm2.fuse.copula.archimedean import Archimedean

torch.set_num_threads(1)

FAMILIES = list(COPULAS)
DEPENDENT = FAMILIES[1:]
NEGATIVE = ["frank", "clayton", "gaussian", "student"]


def _pair(u: Tensor) -> tuple[Tensor, Tensor]:
    return torch.log(u), torch.log1p(-u)


def _from_logit(y: Tensor) -> tuple[Tensor, Tensor]:
    return torch.nn.functional.logsigmoid(y), torch.nn.functional.logsigmoid(-y)


def _member(family: str, M: int, tau: float = 0.35) -> tuple[Copula, dict[str, Tensor]]:
    """A family and parameters; elliptical correlations differ from pair to pair."""
    copula = get_copula(family)
    raw = copula.initial(M, tau)
    if family in ("gaussian", "student"):
        raw = raw + 0.2 * torch.arange(len(raw), dtype=torch.float64) - 0.1
    return copula, copula.natural(raw, M)


def _uniforms(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_registry_finds_families_and_names_the_nearest() -> None:
    assert FAMILIES == ["independence", "clayton", "frank", "gumbel", "gaussian", "student"]
    for name in FAMILIES:
        assert get_copula(name).name == name
    with pytest.raises(ConfigError, match="Did you mean 'gumbel'"):
        get_copula("gumble")


@pytest.mark.parametrize("family", DEPENDENT)
@pytest.mark.parametrize("M", [2, 3, 4, 6])
def test_unconstrained_numbers_and_parameters_are_one_to_one(family: str, M: int) -> None:
    copula = get_copula(family)
    raw = 2.0 * torch.randn(5, copula.raw_size(M), generator=torch.Generator().manual_seed(M))
    raw = raw.double()
    params = copula.natural(raw, M)
    copula.validate(params, M)
    torch.testing.assert_close(copula.unconstrained(params, M), raw, rtol=1e-7, atol=1e-7)
    extreme = copula.natural(raw * 1e3, M)  # saturates, never degenerates
    copula.validate(extreme, M)
    tau = copula.kendall_tau(extreme)
    assert (tau.abs() < 0.96).all() or family in ("gaussian", "student")


@pytest.mark.parametrize("family", ["gaussian", "student"])
def test_saturated_correlations_can_be_conditioned_in_any_order(family: str) -> None:
    copula = get_copula(family)
    M = 6
    patterns = torch.tensor([[(i >> j) & 1 == 1 for j in range(M)] for i in range(2**M)])
    signs = torch.randn(20, copula.raw_size(M), generator=torch.Generator().manual_seed(0)).sign()
    params = copula.natural(1e3 * signs.double().unsqueeze(1), M)
    u, q = _uniforms(2, 2**M, M)
    drawn = copula.impute(*_pair(u), patterns, *_pair(q), params)
    assert all(bool(x.isfinite().all()) for x in drawn)


@pytest.mark.parametrize("family", DEPENDENT)
@pytest.mark.parametrize("M", [2, 3, 5])
def test_start_has_the_tau_asked_for(family: str, M: int) -> None:
    copula = get_copula(family)
    tau = copula.kendall_tau(copula.natural(copula.initial(M, 0.1), M))
    tau = tau if tau.ndim == 0 else tau[0, 1]
    assert tau.item() == pytest.approx(0.1, abs=1e-9)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("M", "tau"), [(2, 0.6), (2, -0.4), (3, 0.4)])
def test_density_integrates_to_one(family: str, M: int, tau: float) -> None:
    if tau < 0 and family not in ("frank", "gaussian", "student"):
        pytest.skip("this family has no negative dependence with full support")
    copula, params = _member(family, M, tau)
    # the trapezoid rule on the logit scale converges exponentially
    step = 0.25 if M == 2 else 0.7
    y = torch.arange(-36.0, 36.01, step, dtype=torch.float64)
    if M == 3:
        y = y[y.abs() < 20]
    grid = torch.stack(torch.meshgrid(*[y] * M, indexing="ij"), -1)
    log_u, log_sf = _from_logit(grid)
    log_term = copula.log_density(log_u, log_sf, params) + (log_u + log_sf).sum(-1)
    integral = torch.exp(torch.logsumexp(log_term.flatten(), 0)) * step**M
    assert integral.item() == pytest.approx(1.0, abs=1e-9 if M == 2 else 1e-6)


@pytest.mark.parametrize("M", [2, 3])
def test_clayton_with_negative_theta_integrates_to_one_over_its_support(M: int) -> None:
    copula = get_copula("clayton")
    params = {"theta": torch.tensor(-0.25, dtype=torch.float64)}
    n = 700 if M == 2 else 60
    u = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    grid = torch.stack(torch.meshgrid(*[u] * M, indexing="ij"), -1)
    density = torch.exp(copula.log_density(*_pair(grid), params))
    assert (density == 0).any()
    assert density.mean().item() == pytest.approx(1.0, abs=2e-3)


@pytest.mark.parametrize("family", DEPENDENT)
@pytest.mark.parametrize("M", [3, 4])
def test_integrating_a_margin_out_leaves_the_smaller_member(family: str, M: int) -> None:
    copula, params = _member(family, M)
    u = _uniforms(20, M)
    y = torch.arange(-40.0, 40.01, 0.2, dtype=torch.float64)
    gone = 1
    log_u, log_sf = (t.unsqueeze(1).expand(-1, len(y), -1).clone() for t in _pair(u))
    log_u[..., gone], log_sf[..., gone] = _from_logit(y)
    terms = copula.log_density(log_u, log_sf, params) + log_u[..., gone] + log_sf[..., gone]
    integral = torch.logsumexp(terms, -1) + math.log(0.2)
    keep = [i for i in range(M) if i != gone]
    smaller = copula.log_density(*_pair(u[:, keep]), copula.marginal(params, keep))
    torch.testing.assert_close(integral, smaller, rtol=1e-8, atol=1e-8)
    available = torch.tensor([i != gone for i in range(M)])
    masked = copula.log_density(*_pair(u), params, available)
    torch.testing.assert_close(masked, smaller, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("M", [1, 2, 3, 4])
def test_masked_rows_equal_gathered_rows_and_never_read_what_is_absent(family: str, M: int) -> None:
    copula, params = _member(family, M)
    u = _uniforms(2**M, 3, M)
    patterns = torch.tensor([[(i >> j) & 1 == 1 for j in range(M)] for i in range(2**M)])
    available = patterns.unsqueeze(1)  # (rows, 1, M): one pattern for all coordinates of a row
    log_u, log_sf = (torch.where(available, t, math.nan).requires_grad_() for t in _pair(u))
    density = copula.log_density(log_u, log_sf, params, available)
    gradient = torch.autograd.grad(density.sum(), log_u) if density.requires_grad else ()
    assert all(bool(g.isfinite().all()) for g in gradient)
    for i in range(2**M):
        keep = [j for j in range(M) if patterns[i, j]]
        if len(keep) < 2:
            assert (density[i] == 0).all()
            continue
        wanted = copula.log_density(*_pair(u[i][:, keep]), copula.marginal(params, keep))
        torch.testing.assert_close(density[i], wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("family", DEPENDENT)
def test_cdf_differentiates_to_conditional_and_density(family: str) -> None:
    copula, params = _member(family, 2)
    u = _uniforms(40, 2, seed=3).clamp(0.01, 0.99).requires_grad_()
    cdf = torch.exp(copula.log_cdf(*_pair(u), params))
    (first,) = torch.autograd.grad(cdf.sum(), u, create_graph=True)
    h = torch.exp(copula.conditional(*_pair(u), params)[0])[:, 0]
    torch.testing.assert_close(first[:, 0], h, rtol=1e-9, atol=1e-10)
    if family not in ("gaussian", "student"):  # the quadrature is differentiable once
        (second,) = torch.autograd.grad(first[:, 0].sum(), u)
        density = torch.exp(copula.log_density(*_pair(u), params))
        torch.testing.assert_close(second[:, 1], density, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("family", ["gaussian", "student"])
def test_elliptical_cdf_has_gradients_to_its_parameters_and_refuses_three_margins(
    family: str,
) -> None:
    copula, params = _member(family, 2)
    u = _uniforms(10, 2, seed=5)
    for key, shift in (("correlation", torch.tensor([[0.0, 1.0], [1.0, 0.0]])), ("nu", 1.0)):
        if key not in params:
            continue
        x = torch.zeros((), dtype=torch.float64, requires_grad=True)

        def value(x: Tensor, key: str = key, shift: Tensor | float = shift) -> Tensor:
            return copula.log_cdf(*_pair(u), {**params, key: params[key] + x * shift}).sum()

        (gradient,) = torch.autograd.grad(value(x), x)
        difference = (value(x + 1e-4) - value(x - 1e-4)) / 2e-4
        assert gradient.item() == pytest.approx(difference.item(), rel=1e-6)
    with pytest.raises(UnsupportedError, match="M = 3"):
        copula.log_cdf(*_pair(_uniforms(2, 3)), _member(family, 3)[1])


@pytest.mark.parametrize("rho", [-0.999999, -0.9, 0.0, 0.5, 0.99, 0.999999])
def test_gaussian_cdf_stays_between_its_bounds_in_the_far_tails(rho: float) -> None:
    copula = get_copula("gaussian")
    correlation = torch.tensor([[1.0, rho], [rho, 1.0]], dtype=torch.float64)
    z = torch.tensor([-30.0, -8.0, -1.0, 0.0, 1e-9, 2.0, 9.0], dtype=torch.float64)
    log_u = torch.special.log_ndtr(torch.cartesian_prod(z, z))
    log_sf = torch.special.log_ndtr(-torch.cartesian_prod(z, z))
    log_c = copula.log_cdf(log_u, log_sf, {"correlation": correlation})
    assert (log_c <= log_u.amin(-1) + 1e-10).all()
    bound = torch.exp(log_u[:, 0]) - torch.exp(log_sf[:, 1])
    assert (torch.exp(log_c) >= bound - 1e-12).all()
    if rho == 0.0:
        torch.testing.assert_close(log_c, log_u.sum(-1), rtol=1e-11, atol=1e-12)
    if rho > 0.9999:
        apart = (log_u[:, 0] - log_u[:, 1]).abs() > 1
        torch.testing.assert_close(log_c[apart], log_u.amin(-1)[apart], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("M", [2, 3, 4])
def test_conditional_and_its_inverse_are_one_identity(family: str, M: int) -> None:
    for tau in (0.02, 0.35, 0.8):
        copula, params = _member(family, M, tau)
        y = 6.0 * torch.randn(200, M, generator=torch.Generator().manual_seed(M)).double()
        y[100:] *= 20.0  # far tails
        log_u, log_sf = _from_logit(y)
        h = copula.conditional(log_u, log_sf, params)
        back = copula.conditional_inverse(
            h[0][:, -1], h[1][:, -1], log_u[:, :-1], log_sf[:, :-1], params
        )
        # where h is next to 0 or 1 rounding of log h itself moves u: compare as h again
        again = copula.conditional(
            torch.cat([log_u[:, :-1], back[0][:, None]], -1),
            torch.cat([log_sf[:, :-1], back[1][:, None]], -1),
            params,
        )
        for got, wanted in zip(again, h, strict=True):
            torch.testing.assert_close(got[:, -1], wanted[:, -1], rtol=1e-8, atol=1e-8)
        middle = (h[0][:, -1] > -20) & (h[1][:, -1] > -20) & (torch.arange(200) < 100)
        assert middle.any()
        torch.testing.assert_close(back[0][middle], log_u[middle, -1], rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(back[1][middle], log_sf[middle, -1], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("tau", [0.001, 0.2, 0.85])
@pytest.mark.parametrize("spread", [2.0, 60.0])
def test_frank_given_two_margins_in_closed_form_equals_the_search(
    tau: float, spread: float
) -> None:
    copula, params = _member("frank", 3, tau)
    generator = torch.Generator().manual_seed(1)
    given = (spread * torch.randn(300, 2, generator=generator)).double().requires_grad_()
    q = (spread * torch.randn(300, generator=generator)).double().requires_grad_()
    theta = params["theta"].clone().requires_grad_()
    known = torch.arange(300)[:, None] % 4 > torch.tensor([0, 2])  # none, the first, both
    found = []
    for inverse in (type(copula)._inverse, Archimedean._inverse):
        log_u, log_sf = inverse(copula, _from_logit(q), _from_logit(given), known, theta)
        logit = log_u - log_sf
        slopes = torch.autograd.grad(torch.asinh(logit).sum(), (given, q, theta))
        found.append((logit, *slopes))
    for closed, searched in zip(*found, strict=True):
        torch.testing.assert_close(closed, searched, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(("family", "M"), [("gumbel", 3), ("frank", 4)])
def test_what_is_searched_for_one_row_does_not_hang_on_the_others(family: str, M: int) -> None:
    copula, params = _member(family, M, 0.5)
    y = torch.randn(64, 2 * M, generator=torch.Generator().manual_seed(2)).double()
    far = torch.cat([y, 300.0 * y])  # these are bisected
    absent = torch.arange(M) < M - 1

    def draw(rows: Tensor) -> Tensor:
        return copula.impute(*_from_logit(rows[:, :M]), absent, *_from_logit(rows[:, M:]), params)[
            0
        ]

    assert draw(far)[:64].equal(draw(y))


@pytest.mark.parametrize("theta", [-0.6, -0.3, -1e-9, 0.0])
def test_clayton_inverts_its_conditional_with_negative_theta(theta: float) -> None:
    copula = get_copula("clayton")
    params = {"theta": torch.tensor(theta, dtype=torch.float64)}
    q, u = _uniforms(2, 100, seed=8)
    q = q.clamp(min=0.05)  # h rises like a power from the border of the support
    back = copula.conditional_inverse(*_pair(q), *(t[:, None] for t in _pair(u)), params)
    h = copula.conditional(*(torch.stack(p, -1) for p in zip(_pair(u), back, strict=True)), params)
    torch.testing.assert_close(h[0][:, 0], torch.log(q), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("M", [1, 2, 3, 4])
def test_imputed_margins_are_conditional_quantiles_in_any_pattern(family: str, M: int) -> None:
    copula, params = _member(family, M)
    patterns = torch.tensor([[(i >> j) & 1 == 1 for j in range(M)] for i in range(2**M)])
    available = patterns.unsqueeze(1)
    u, q = _uniforms(2, 2**M, 3, M, seed=4)
    log_u, log_sf = (torch.where(available, t, math.nan) for t in _pair(u))
    drawn = copula.impute(log_u, log_sf, available, *_pair(q), params)
    assert torch.equal(torch.where(available, drawn[0], 0.0), torch.where(available, log_u, 0.0))
    torch.testing.assert_close(torch.exp(drawn[0]) + torch.exp(drawn[1]), torch.ones_like(u))
    for i in range(2**M):
        present = [j for j in range(M) if patterns[i, j]]
        order = present + [j for j in range(M) if not patterns[i, j]]
        if not present:
            torch.testing.assert_close(drawn[0][i][:, 0], torch.log(q[i][:, 0]))
        if M == 1:
            continue
        h = copula.conditional(
            drawn[0][i][:, order], drawn[1][i][:, order], copula.marginal(params, order)
        )
        for place in range(max(len(present), 1), M):
            wanted = torch.log(q[i][:, order[place]])
            torch.testing.assert_close(h[0][:, place - 1], wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("M", "tau"), [(2, 0.5), (2, -0.5), (3, 0.3)])
def test_samples_have_uniform_margins_and_the_tau_of_their_parameters(
    family: str, M: int, tau: float
) -> None:
    if tau < 0 and family not in NEGATIVE:
        pytest.skip("this family has no negative dependence")
    copula = get_copula(family)
    params = copula.from_kendall_tau(torch.tensor(tau, dtype=torch.float64), M)
    copula.validate(params, M)
    n = 4000
    log_u, log_sf = copula.sample(_uniforms(n, M, seed=M), params)
    u = torch.exp(log_u)
    torch.testing.assert_close(u, -torch.expm1(log_sf), rtol=1e-9, atol=1e-12)
    wanted = 0.0 if family == "independence" else tau
    for i in range(M):
        assert stats.kstest(u[:, i].numpy(), "uniform").pvalue > 1e-3
        for j in range(i):
            got = stats.kendalltau(u[:, i].numpy(), u[:, j].numpy()).statistic
            assert abs(got - wanted) < 4 * 0.67 / math.sqrt(n)  # four standard errors


@pytest.mark.parametrize("family", DEPENDENT)
def test_held_out_likelihood_prefers_the_true_family(family: str) -> None:
    """n = 3,000 to fit each family's tau, another 6,000 to compare them, tau = 0.3."""
    truth = get_copula(family)
    drawn = truth.sample(
        _uniforms(9000, 2, seed=1), truth.from_kendall_tau(torch.tensor(0.3).double(), 2)
    )
    train, test = ([t[s] for t in drawn] for s in (slice(0, 3000), slice(3000, None)))
    taus = torch.linspace(0.05, 0.6, 56, dtype=torch.float64)
    scores = {}
    for name in FAMILIES:
        copula = get_copula(name)
        params = {k: v.unsqueeze(1) for k, v in copula.from_kendall_tau(taus, 2).items()}
        likelihood = copula.log_density(train[0], train[1], params)
        best = int(likelihood.mean(-1).argmax()) if name != "independence" else 0
        chosen = copula.from_kendall_tau(taus[best], 2)
        scores[name] = copula.log_density(test[0], test[1], chosen)
    for name in FAMILIES:
        if name != family:
            gain = scores[family] - scores[name]
            error = gain.std() / math.sqrt(len(gain))
            assert gain.mean() > 2 * error, f"{name} is not separated from the true {family}"


def _limits() -> list[tuple[str, dict[str, float], int]]:
    zero = [("clayton", 0.0), ("frank", 0.0), ("gumbel", 1.0)]
    near = [("clayton", 1e-9), ("frank", 1e-9), ("gumbel", 1.0 + 1e-9)]
    cases = [(f, {"theta": t}, M) for f, t in zero + near for M in (2, 3, 4)]
    return [*cases, ("clayton", {"theta": -1e-9}, 3), ("frank", {"theta": -1e-9}, 2)]


@pytest.mark.parametrize(("family", "params", "M"), _limits())
def test_the_border_of_independence_is_independence(
    family: str, params: dict[str, float], M: int
) -> None:
    copula = get_copula(family)
    theta = torch.tensor(params["theta"], dtype=torch.float64, requires_grad=True)
    u = _uniforms(30, M, seed=9)
    density = copula.log_density(*_pair(u), {"theta": theta})
    assert density.abs().max() < 1e-6
    (gradient,) = torch.autograd.grad(density.sum(), theta)
    assert gradient.isfinite()
    h = copula.conditional(*_pair(u), {"theta": theta})
    torch.testing.assert_close(h[0], torch.log(u[:, 1:]), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("family", "border"), [("clayton", 0.0), ("frank", 0.0)])
def test_the_gradient_passes_smoothly_through_independence(family: str, border: float) -> None:
    copula = get_copula(family)
    u = _uniforms(20, 2, seed=2)
    theta = torch.full((20,), border, dtype=torch.float64, requires_grad=True)
    (at,) = torch.autograd.grad(copula.log_density(*_pair(u), {"theta": theta}).sum(), theta)

    def value(t: float) -> Tensor:
        return copula.log_density(*_pair(u), {"theta": torch.tensor(t, dtype=torch.float64)})

    difference = (value(border + 1e-5) - value(border - 1e-5)) / 2e-5
    torch.testing.assert_close(at, difference, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("M", [2, 3, 4])
def test_gumbel_conditionals_have_their_one_sided_gradient_at_independence(M: int) -> None:
    copula = get_copula("gumbel")
    u = _uniforms(30, M, seed=5)

    def logits(theta: Tensor) -> Tensor:
        h = copula.conditional(*_pair(u), {"theta": theta})
        return (h[0] - h[1]).sum()

    theta = torch.ones((), dtype=torch.float64, requires_grad=True)
    (at,) = torch.autograd.grad(logits(theta), theta)
    step = 1e-5
    one, two = (logits(1.0 + k * torch.full((), step, dtype=torch.float64)) for k in (1, 2))
    forward = (4.0 * one - two - 3.0 * logits(theta.detach())) / (2.0 * step)
    torch.testing.assert_close(at, forward, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family", DEPENDENT)
def test_strong_dependence_puts_the_mass_on_the_diagonal(family: str) -> None:
    copula = get_copula(family)
    params = copula.natural(copula.initial(2, 0.85), 2)
    log_u, _ = copula.sample(_uniforms(500, 2), params)
    assert (torch.exp(log_u[:, 0]) - torch.exp(log_u[:, 1])).abs().median() < 0.06


def test_student_without_correlation_is_dependent_and_with_large_nu_gaussian() -> None:
    student, gaussian = get_copula("student"), get_copula("gaussian")
    unit = torch.eye(2, dtype=torch.float64)
    log_u, log_sf = _pair(_uniforms(50, 2))
    heavy = {"correlation": unit, "nu": torch.tensor(3.0, dtype=torch.float64)}
    assert student.log_density(log_u, log_sf, heavy).abs().max() > 0.1
    assert student.tail_dependence(heavy)[0][0, 1] > 0.1
    params = {"correlation": torch.tensor([[1.0, 0.6], [0.6, 1.0]], dtype=torch.float64)}
    light = {**params, "nu": torch.tensor(1e8, dtype=torch.float64)}
    torch.testing.assert_close(
        student.log_density(log_u, log_sf, light),
        gaussian.log_density(log_u, log_sf, params),
        rtol=1e-6,
        atol=1e-6,
    )


def test_student_learns_nu_on_request() -> None:
    copula = type(get_copula("student"))(nu=None)
    raw = torch.zeros(copula.raw_size(3), dtype=torch.float64, requires_grad=True)
    params = copula.natural(raw, 3)
    copula.validate(params, 3)
    assert raw.shape == (4,)
    density = copula.log_density(*_pair(_uniforms(20, 3)), params).sum()
    (gradient,) = torch.autograd.grad(density, raw)
    assert (gradient != 0).all()
    with pytest.raises(ConfigError, match="positive"):
        type(copula)(nu=-1.0)


@pytest.mark.parametrize(
    ("family", "M", "params", "message"),
    [
        ("clayton", 2, {"theta": -1.0}, "-1 < theta"),
        ("clayton", 3, {"theta": -0.5}, "-0.5 < theta"),
        ("clayton", 2, {"theta": math.nan}, "theta"),
        ("frank", 3, {"theta": -0.1}, "theta >= 0"),
        ("gumbel", 2, {"theta": 0.999}, "theta >= 1"),
        ("gumbel", 2, {"nu": 2.0}, "theta"),
        ("gaussian", 2, {"correlation": [[1.0, 1.0], [1.0, 1.0]]}, "positive definite"),
        ("gaussian", 2, {"correlation": [[1.0, 0.5], [0.4, 1.0]]}, "symmetric"),
        ("gaussian", 3, {"correlation": [[1.0, 0.5], [0.5, 1.0]]}, "shape"),
        ("gaussian", 2, {"correlation": [[2.0, 0.5], [0.5, 2.0]]}, "ones on its diagonal"),
        ("student", 2, {"correlation": [[1.0, 0.5], [0.5, 1.0]], "nu": 0.0}, "nu"),
        ("independence", 2, {"theta": 1.0}, "takes the parameters"),
    ],
)
def test_parameters_outside_the_domain_are_refused(
    family: str, M: int, params: dict[str, float], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        get_copula(family).validate({k: torch.tensor(v) for k, v in params.items()}, M)


@pytest.mark.parametrize(
    ("family", "theta", "M"),
    [("gumbel", 1.0, 3), ("frank", 0.0, 3), ("frank", -9.0, 2), ("clayton", -0.49, 3)],
)
def test_the_border_and_negative_dependence_belong_to_the_domain(
    family: str, theta: float, M: int
) -> None:
    get_copula(family).validate({"theta": torch.tensor(theta)}, M)


@pytest.mark.parametrize(("family", "theta", "M"), [("frank", -1.0, 3), ("gumbel", 0.9, 2)])
def test_parameters_outside_the_domain_never_give_a_number(
    family: str, theta: float, M: int
) -> None:
    value = get_copula(family).log_density(
        *_pair(_uniforms(4, M)), {"theta": torch.tensor(theta, dtype=torch.float64)}
    )
    assert value.isnan().all()


@pytest.mark.parametrize("keep", [[], [0, 0], [-1]])
@pytest.mark.parametrize("family", FAMILIES)
def test_impossible_margins_are_refused(family: str, keep: list[int]) -> None:
    copula, params = _member(family, 3)
    with pytest.raises(ConfigError, match="different indices"):
        copula.marginal(params, keep)


@pytest.mark.parametrize("family", FAMILIES)
def test_parameters_may_differ_by_coordinate(family: str) -> None:
    copula = get_copula(family)
    M, D = 3, 4
    raw = copula.initial(M, 0.3) + 0.1 * torch.randn(
        D, copula.raw_size(M), generator=torch.Generator().manual_seed(0)
    )
    u, q = _uniforms(2, 5, D, M)
    available = _uniforms(5, 1, M) < 0.6
    each = copula.natural(raw, M)
    calls: list[Callable[[dict[str, Tensor], Tensor, Tensor], Tensor]] = [
        lambda p, u, q: copula.log_density(*_pair(u), p),
        lambda p, u, q: copula.log_density(*_pair(u), p, available.expand(5, u.shape[1], M)),
        lambda p, u, q: copula.conditional(*_pair(u), p)[1],
        lambda p, u, q: copula.impute(
            *_pair(u), available.expand(5, u.shape[1], M), *_pair(q), p
        )[0],
        lambda p, u, q: copula.sample(u, p)[1],
        lambda p, u, q: copula.conditional_inverse(
            *_pair(q[..., 0]), *_pair(u[..., :2]), p
        )[0],
    ]  # fmt: skip
    for call in calls:
        together = call(each, u, q)
        for d in range(D):
            alone = call({k: v[d] for k, v in each.items()}, u[:, d : d + 1], q[:, d : d + 1])
            torch.testing.assert_close(together[:, d : d + 1], alone, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("M", [2, 3])
def test_a_start_that_the_family_cannot_reach_is_refused(M: int) -> None:
    with pytest.raises(ConfigError, match="does not reach"):
        get_copula("frank").initial(M, tau=0.95)
