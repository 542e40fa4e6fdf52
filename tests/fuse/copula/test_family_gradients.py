"""Gradients: equal to differences at all vector points, and the same under torch.func."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cm2.fuse.copula import Copula, get_copula
from cm2.fuse.copula.student_t import Student

FAMILIES = ["clayton", "frank", "gumbel", "gaussian", "student"]


def _from_logit(y: Tensor) -> tuple[Tensor, Tensor]:
    return torch.nn.functional.logsigmoid(y), torch.nn.functional.logsigmoid(-y)


def _params(raw: dict[str, object]) -> dict[str, Tensor]:
    return {
        "correlation" if k == "R" else k: torch.tensor(v, dtype=torch.float64)
        for k, v in raw.items()
    }


def _differences_agree(
    function: Callable[[Tensor], Tensor], x: Tensor, bar: float, what: str
) -> None:
    """Central differences along each coordinate of the last axis of x, (n, k) -> (n,)."""
    x = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(function(x).sum(), x)
    x = x.detach()
    for i in range(x.shape[-1]):
        step = torch.zeros_like(x)
        step[..., i] = 1e-5
        # fourth order
        near = function(x + step) - function(x - step)
        far = function(x + 2 * step) - function(x - 2 * step)
        difference = (8.0 * near - far) / (12.0 * 1e-5)
        scale = difference.abs().clamp(min=1.0) + 1e-4 * function(x).abs()
        worst = ((gradient[..., i] - difference).abs() / scale).max().item()
        assert worst < bar, f"{what}, coordinate {i}: {worst:.1e}"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.slow
def test_gradients_equal_finite_differences_at_all_vector_points(shared: Path, family: str) -> None:
    kind = "elliptical" if family in ("gaussian", "student") else "archimedean"
    copula = get_copula(family)
    name = "student_t" if family == "student" else family
    for group in json.loads((shared / "vectors" / f"copula_{kind}.json").read_text()):
        if group["family"] != name:
            continue
        points = [p for p in group["points"] if p["log_density"] != "-inf"]
        u = torch.tensor([p["u"] for p in points], dtype=torch.float64)
        logit = torch.log(u) - torch.log1p(-u)
        params = _params(group["params"])
        what = f"{family} {group['params']}"

        def density(y: Tensor, params: dict[str, Tensor] = params) -> Tensor:
            return copula.log_density(*_from_logit(y), params)

        def conditional(y: Tensor, params: dict[str, Tensor] = params) -> Tensor:
            h = copula.conditional(*_from_logit(y), params)
            return (h[0] - h[1])[..., -1]

        def quantile(y: Tensor, params: dict[str, Tensor] = params) -> Tensor:
            given, q = y[..., :-1], y[..., -1]
            pair = copula.conditional_inverse(*_from_logit(q), *_from_logit(given), params)
            return pair[0] - pair[1]

        _differences_agree(density, logit, 1e-6, f"log density {what}")
        if family == "clayton" and group["params"]["theta"] < 0:
            continue  # h and its inverse end at the border of the support
        _differences_agree(conditional, logit, 1e-6, f"logit h {what}")
        _differences_agree(quantile, logit, 1e-6, f"logit quantile {what}")
        for key, value in params.items():
            if family == "gumbel" and value == 1.0:
                continue  # the domain ends here; the vectors hold the one-sided derivative
            if key == "correlation":
                direction = 1.0 - torch.eye(len(value), dtype=torch.float64)
            else:
                direction = torch.ones((), dtype=torch.float64)
            direction = direction * min(1.0, 0.3 * float(value.abs().max()), 0.02 + value.std(
                unbiased=False).item() if value.ndim else 1.0)  # fmt: skip

            def moved(
                x: Tensor,
                key: str = key,
                value: Tensor = value,
                direction: Tensor = direction,
                params: dict[str, Tensor] = params,
                logit: Tensor = logit,
            ) -> Tensor:
                x = x[..., 0]
                for _ in range(direction.ndim):
                    x = x.unsqueeze(-1)
                shifted = {**params, key: value + x * direction}
                wide = {
                    k: v if k == key else v.expand((len(logit), *v.shape))
                    for k, v in shifted.items()
                }
                pair = _from_logit(logit)
                h = copula.conditional(*pair, wide)
                back = copula.conditional_inverse(
                    pair[0][:, -1], pair[1][:, -1], pair[0][:, :-1], pair[1][:, :-1], wide
                )
                return (
                    copula.log_density(*pair, wide)
                    + 0.5 * (h[0] - h[1])[..., -1]
                    + 0.25 * (back[0] - back[1])
                )

            zero = torch.zeros(len(logit), 1, dtype=torch.float64)
            _differences_agree(moved, zero, 2e-6, f"{key} {what}")


def _calls(M: int) -> dict[str, Callable[[Copula, Tensor, Tensor, dict[str, Tensor]], Tensor]]:
    available = torch.rand(4, 1, M, generator=torch.Generator().manual_seed(M)) < 0.6
    generator = torch.Generator().manual_seed(1)
    q = torch.randn(4, 3, M, dtype=torch.float64, generator=generator)

    return {
        "log_density": lambda c, a, b, p: c.log_density(a, b, p).sum(),
        "masked log_density": lambda c, a, b, p: c.log_density(a, b, p, available).sum(),
        "conditional": lambda c, a, b, p: sum(c.conditional(a, b, p)).sum(),
        "conditional_inverse": lambda c, a, b, p: sum(
            c.conditional_inverse(*_from_logit(q[..., 0]), a[..., :-1], b[..., :-1], p)
        ).sum(),
        "sample": lambda c, a, b, p: c.sample(torch.sigmoid(q), p)[0].sum(),
        "impute": lambda c, a, b, p: c.impute(a, b, available, *_from_logit(q), p)[1].sum(),
        "kendall_tau": lambda c, a, b, p: c.kendall_tau(p).sum() + 0.0 * a.sum(),
        "from_kendall_tau": lambda c, a, b, p: (
            sum(v.sum() for v in c.from_kendall_tau(c.kendall_tau(p), M).values()) + 0.0 * a.sum()
        ),
        "tail_dependence": lambda c, a, b, p: sum(c.tail_dependence(p)).sum() + 0.0 * a.sum(),
        "unconstrained": lambda c, a, b, p: c.unconstrained(p, M).sum() + 0.0 * a.sum(),
        "marginal": lambda c, a, b, p: (
            sum(v.sum() for v in c.marginal(p, range(M - 1)).values()) + 0.0 * a.sum()
        ),
        "log_cdf": lambda c, a, b, p: c.log_cdf(a, b, p).sum(),
    }


@pytest.mark.parametrize("family", [*FAMILIES, "independence", "student with nu"])
@pytest.mark.parametrize("M", [2, 3])
def test_vmap_of_grad_over_two_members_equals_the_loop(family: str, M: int) -> None:
    copula = Student(nu=None) if family == "student with nu" else get_copula(family)
    generator = torch.Generator().manual_seed(0)
    raw = copula.initial(M, 0.3) + 0.3 * torch.rand(
        2, copula.raw_size(M), dtype=torch.float64, generator=generator
    )
    logit = torch.randn(2, 4, 3, M, dtype=torch.float64, generator=generator)
    for name, call in _calls(M).items():
        if (
            name == "log_cdf"
            and M > 2
            and isinstance(copula, (Student, type(get_copula("gaussian"))))
        ):
            continue
        if family == "independence" and name in ("marginal", "from_kendall_tau"):
            continue  # nothing to differentiate

        def loss(
            raw: Tensor,
            logit: Tensor,
            call: Callable[[Copula, Tensor, Tensor, dict[str, Tensor]], Tensor] = call,
        ) -> Tensor:
            return call(copula, *_from_logit(logit), copula.natural(raw, M)) + 0.0 * raw.sum()

        step = torch.func.grad_and_value(loss, argnums=(0, 1))
        together = torch.func.vmap(step)(raw, logit)
        for e in range(2):
            alone = step(raw[e], logit[e])
            for got, wanted in zip(together[0], alone[0], strict=True):
                torch.testing.assert_close(got[e], wanted, rtol=1e-10, atol=1e-12, msg=name)
            torch.testing.assert_close(together[1][e], alone[1], rtol=1e-12, atol=1e-12, msg=name)
