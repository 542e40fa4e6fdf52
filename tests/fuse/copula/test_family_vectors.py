"""Every family against the independent multi-precision vectors, at all their points."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cm2.fuse.copula import Copula, get_copula

FAMILIES = ["independence", "clayton", "frank", "gumbel", "gaussian", "student"]
NAME = {"student": "student_t"}


def _groups(shared: Path, file: str, family: str) -> list[dict[str, Any]]:
    groups = json.loads((shared / "vectors" / file).read_text())
    chosen = [g for g in groups if g["family"] == NAME.get(family, family)]
    assert chosen, f"no vectors of {family} in {file}"
    return chosen


def _params(group: dict[str, Any], dtype: torch.dtype) -> dict[str, Tensor]:
    params = {}
    for key, value in group["params"].items():
        if key == "rho":
            key, value = "correlation", [[1.0, value], [value, 1.0]]
        params["correlation" if key == "R" else key] = torch.tensor(value, dtype=dtype)
    return params


def _points(group: dict[str, Any], dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    u = torch.tensor([p["u"] for p in group["points"]], dtype=torch.float64)
    return u, torch.log(u).to(dtype), torch.log1p(-u).to(dtype)


def _column(group: dict[str, Any], key: str) -> Tensor:
    return _numbers([p[key] for p in group["points"]])


def _numbers(text: Any) -> Tensor:
    def parse(x: Any) -> Any:
        return [parse(y) for y in x] if isinstance(x, list) else float(x)

    return torch.tensor(parse(text), dtype=torch.float64)


def _agree(got: Tensor, wanted: Tensor, tolerance: float, what: str) -> None:
    """|a - b| <= tolerance max(1, |b|), infinities equal."""
    got = got.detach().double()
    infinite = wanted.isinf()
    assert torch.equal(got[infinite], wanted[infinite]), what
    error = (got - wanted).abs() / wanted.abs().clamp(min=1.0)
    worst = error[~infinite].max().item() if (~infinite).any() else 0.0
    assert worst <= tolerance, f"{what}: {worst:.2e} > {tolerance:.0e}"


def _files(family: str) -> str:
    return f"copula_{'elliptical' if family in ('gaussian', 'student') else 'archimedean'}.json"


@pytest.mark.parametrize("family", FAMILIES)
def test_density_and_conditionals_match_in_float64(shared: Path, family: str) -> None:
    copula = get_copula(family)
    bar = 1e-10 if family == "student" else 1e-11
    for group in _groups(shared, _files(family), family):
        params = _params(group, torch.float64)
        what = f"{family} M={group['M']} {group['params']}"
        _, log_u, log_sf = _points(group, torch.float64)
        density = copula.log_density(log_u, log_sf, params)
        wanted = _column(group, "log_density")
        _agree(density, wanted, bar, f"log density {what}")
        inside = ~wanted.isinf()
        h = copula.conditional(log_u, log_sf, params)
        known = [p["log_h"] is not None and None not in p["log_h"] for p in group["points"]]
        rows = torch.tensor(known) & inside
        kept = {"points": [p for p, k in zip(group["points"], rows.tolist(), strict=True) if k]}
        _agree(h[0][rows], _column(kept, "log_h"), bar, f"log h {what}")
        _agree(h[1][rows], _column(kept, "log1m_h"), bar, f"log(1 - h) {what}")


@pytest.mark.parametrize("family", FAMILIES)
def test_cdf_matches_wherever_it_is_offered(shared: Path, family: str) -> None:
    copula = get_copula(family)
    compared = 0
    for group in _groups(shared, _files(family), family):
        if family in ("gaussian", "student") and group["M"] > 2:
            continue
        params = _params(group, torch.float64)
        _, log_u, log_sf = _points(group, torch.float64)
        cdf = torch.exp(copula.log_cdf(log_u, log_sf, params))
        _agree(cdf, _column(group, "cdf"), 1e-11, f"cdf {group['params']}")
        compared += len(cdf)
    assert compared >= 36


@pytest.mark.parametrize("family", FAMILIES[1:])
def test_gradients_match_in_float64(shared: Path, family: str) -> None:
    copula = get_copula(family)
    for group in _groups(shared, _files(family), family):
        what = f"{family} M={group['M']} {group['params']}"
        points = [p for p in group["points"] if p["log_density"] != "-inf"]
        group = {**group, "points": points}
        u, log_u, log_sf = _points(group, torch.float64)
        n, M = u.shape
        # one copy of the parameters per point, so that one backward pass serves all points
        params = {
            k: v.expand((n, *v.shape)).clone().requires_grad_()
            for k, v in _params(group, torch.float64).items()
        }
        log_u.requires_grad_()
        log_sf.requires_grad_()
        density = copula.log_density(log_u, log_sf, params).sum()
        gradients = torch.autograd.grad(density, [log_u, log_sf, *params.values()])
        # the pair is one variable: the derivative to u runs through both members
        to_u = gradients[0] / u - gradients[1] / (1.0 - u)
        _agree(to_u, _column(group, "d_log_density_d_u"), 1e-9, f"d/du {what}")
        by_name = dict(zip(params, gradients[2:], strict=True))
        if "theta" in by_name:
            _agree(by_name["theta"], _column(group, "d_log_density_d_theta"), 1e-9, f"theta {what}")
            continue
        for i in range(M):
            for j in range(i + 1, M):
                wanted = _numbers([p["d_log_density_d_R"][f"{i},{j}"] for p in points])
                got = by_name["correlation"][:, i, j] + by_name["correlation"][:, j, i]
                _agree(got, wanted, 1e-9, f"R[{i},{j}] {what}")
        if "nu" in by_name:
            _agree(by_name["nu"], _column(group, "d_log_density_d_nu"), 1e-7, f"nu {what}")


@pytest.mark.parametrize("family", FAMILIES)
def test_float32_agrees_at_interior_points_and_keeps_its_sign_everywhere(
    shared: Path, family: str
) -> None:
    copula = get_copula(family)
    for group in _groups(shared, _files(family), family):
        params = _params(group, torch.float32)
        what = f"{family} M={group['M']} {group['params']}"
        u, log_u, log_sf = _points(group, torch.float32)
        density = copula.log_density(log_u, log_sf, params)
        assert density.dtype == torch.float32
        wanted = _column(group, "log_density")
        interior = ((u > 1e-3) & (u < 1 - 1e-3)).all(-1)
        _agree(density[interior], wanted[interior], 1e-4, f"log density {what}")
        on_support = ~wanted.isinf()
        assert density[on_support].isfinite().all(), what
        clear = on_support & (wanted.abs() > 1e-4)
        assert torch.equal(density[clear].sign().double(), wanted[clear].sign()), what
        h = copula.conditional(log_u, log_sf, params)
        assert h[0].dtype == h[1].dtype == torch.float32
        rows = interior & on_support
        kept = {"points": [p for p, k in zip(group["points"], rows.tolist(), strict=True) if k]}
        if kept["points"]:
            _agree(h[0][rows], _column(kept, "log_h"), 1e-4, f"log h {what}")
            _agree(h[1][rows], _column(kept, "log1m_h"), 1e-4, f"log(1 - h) {what}")


@pytest.mark.parametrize("family", ["clayton", "frank", "gumbel", "gaussian"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_tails_far_outside_double_range_match(
    shared: Path, family: str, dtype: torch.dtype
) -> None:
    copula = get_copula(family)
    bar = 1e-11 if dtype == torch.float64 else 2e-4
    for group in _groups(shared, "copula_tails.json", family):
        params = _params(group, dtype)
        for point in group["points"]:
            log_u, log_sf = (_numbers(point[k]).to(dtype) for k in ("log_u", "log1m_u"))
            what = f"{family} {group['params']} {point['u_exact']}"
            density = copula.log_density(log_u, log_sf, params)
            _agree(density, _numbers(point["log_density"]), bar, f"log density {what}")
            if "log_h2" in point:
                h = copula.conditional(log_u[:2], log_sf[:2], params)
                _agree(h[0][0], _numbers(point["log_h2"]), bar, f"log h {what}")
                _agree(h[1][0], _numbers(point["log1m_h2"]), bar, f"log(1 - h) {what}")


@pytest.mark.parametrize("family", FAMILIES[1:])
def test_conditional_quantiles_match(shared: Path, family: str) -> None:
    copula = get_copula(family)
    for group in _groups(shared, "conditional.json", family):
        params = _params(group, torch.float64)
        given = torch.tensor(group["present_u"], dtype=torch.float64)
        q = torch.tensor([p["q"] for p in group["quantiles"]], dtype=torch.float64)
        pair = copula.conditional_inverse(
            torch.log(q), torch.log1p(-q), torch.log(given), torch.log1p(-given), params
        )
        what = f"{family} {group['params']} | {group['present_u']}"
        wanted = _numbers([p["u"] for p in group["quantiles"]])
        _agree(torch.exp(pair[0]), wanted, 1e-9, f"u {what}")
        if "log_u" in group["quantiles"][0]:
            for got, key in zip(pair, ("log_u", "log1m_u"), strict=True):
                _agree(got, _numbers([p[key] for p in group["quantiles"]]), 1e-9, f"{key} {what}")


@pytest.mark.parametrize("family", FAMILIES)
def test_tau_and_tail_dependence_match(shared: Path, family: str) -> None:
    copula = get_copula(family)
    for group in _groups(shared, _files(family), family):
        params = _params(group, torch.float64)
        tau = copula.kendall_tau(params)
        if not isinstance(group["kendall_tau"], dict):
            _agree(tau, _numbers(group["kendall_tau"]), 1e-12, f"tau {group['params']}")
            for got, key in zip(
                copula.tail_dependence(params), ("tail_lower", "tail_upper"), strict=True
            ):
                _agree(got, _numbers(group[key]), 1e-12, f"{key} {group['params']}")
            _round_trip(copula, tau, params, group["M"])
            continue
        lower, upper = copula.tail_dependence(params)
        for pair, value in group["kendall_tau"].items():
            i, j = (int(x) for x in pair.split(","))
            _agree(tau[i, j], _numbers(value), 1e-12, f"tau {group['params']}")
            for got, key in ((lower, "tail_lower"), (upper, "tail_upper")):
                value = group[key][pair] if isinstance(group[key], dict) else group[key]
                _agree(got[i, j], _numbers(value), 1e-11, f"{key} {group['params']}")
        _round_trip(copula, tau, {"correlation": params["correlation"]}, group["M"])


def _round_trip(copula: Copula, tau: Tensor, params: dict[str, Tensor], M: int) -> None:
    back = copula.from_kendall_tau(tau, M)
    for key, value in params.items():
        torch.testing.assert_close(back[key], value, rtol=1e-9, atol=1e-9)
