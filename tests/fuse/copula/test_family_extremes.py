"""No NaN, no inf, in float32 and float64, forward and backward, at every corner and border."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from cm2.fuse.copula import get_copula

FAMILIES = ["clayton", "frank", "gumbel", "gaussian", "student"]
POINTS = 64

# u as (log u, log(1 - u)): the corners that matter, and normal scores to 40 sigma
CORNERS = [(math.log(1e-30), -1e-30), (math.log(1e-6), math.log1p(-1e-6))]
CORNERS += [(b, a) for a, b in CORNERS] + [(-1e-15, math.log(1e-15)), (math.log(1e-15), -1e-15)]


def _normal_pair(z: float) -> tuple[float, float]:
    lower = torch.special.log_ndtr(torch.tensor([z, -z], dtype=torch.float64)).tolist()
    return lower[0], lower[1]


margin = st.one_of(st.sampled_from(CORNERS), st.floats(-40.0, 40.0).map(_normal_pair))
borders = {
    "clayton": [0.0, 1e-30, 1e-9, 1e-4, 1e-3, 38.0],
    "frank": [0.0, 1e-30, 1e-9, 1e-4, 1e-3, 35.0],
    "gumbel": [1.0, 1.0 + 2.0**-23, 1.0001, 20.0],
}
interior = {
    "clayton": st.floats(1e-5, 38.0),
    "frank": st.floats(1e-5, 35.0),
    "gumbel": st.floats(1.0, 20.0),
}


def _params(family: str, M: int, data: Any, dtype: torch.dtype) -> dict[str, Tensor]:
    if family in borders:
        theta = data.draw(st.one_of(st.sampled_from(borders[family]), interior[family]))
        if family == "frank" and M == 2 and data.draw(st.booleans()):
            theta = -theta
        return {"theta": torch.tensor(theta, dtype=dtype)}
    size = M * (M - 1) // 2
    raw = data.draw(st.lists(st.floats(-9.0, 9.0), min_size=size, max_size=size))
    params = get_copula(family).natural(torch.tensor(raw, dtype=dtype), M)
    if family == "student":
        nu = st.one_of(st.sampled_from([0.2, 1.0, 2.0, 100.0, 1e4]), st.floats(0.2, 100.0))
        params["nu"] = torch.tensor(data.draw(nu), dtype=dtype)
    return params


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("M", [2, 3, 4])
@pytest.mark.parametrize("family", FAMILIES)
@settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(data=st.data())
def test_values_and_gradients_are_finite(
    family: str, M: int, dtype: torch.dtype, data: Any
) -> None:
    """8 parameters x 64 points x 3 sizes x 2 precisions: 3,000 cases per family."""
    copula = get_copula(family)
    pool = data.draw(st.lists(margin, min_size=12, max_size=12))
    index = torch.randint(len(pool), (POINTS, M), generator=torch.Generator().manual_seed(0))
    pairs = torch.tensor(pool, dtype=torch.float64)[index]  # (points, M, 2)
    log_u, log_sf = (pairs[..., i].to(dtype).requires_grad_() for i in range(2))
    params = {
        k: v.detach().clone().requires_grad_() for k, v in _params(family, M, data, dtype).items()
    }
    leaves = [log_u, log_sf, *params.values()]
    density = copula.log_density(log_u, log_sf, params)
    h = copula.conditional(log_u, log_sf, params)
    present = index % 3 > 0
    drawn = copula.impute(log_u, log_sf, present, log_u, log_sf, params)
    for value in (density, *h, *drawn):
        assert value.dtype == dtype
        assert value.isfinite().all()
        for gradient in torch.autograd.grad(
            value.sum(), leaves, retain_graph=True, materialize_grads=True
        ):
            assert gradient.isfinite().all()
    for log_p in (*h, *drawn):
        assert (log_p <= 0).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_float32_follows_float64_at_forty_sigma(family: str) -> None:
    copula = get_copula(family)
    z = [-40.0, -12.0, -3.0, 0.0, 4.0, 15.0, 40.0]
    pairs = torch.tensor(
        [[_normal_pair(a), _normal_pair(b)] for a in z for b in z], dtype=torch.float64
    )
    params = copula.natural(copula.initial(2, 0.5), 2)
    exact = copula.log_density(pairs[..., 0], pairs[..., 1], params)
    single = copula.log_density(
        pairs[..., 0].float(), pairs[..., 1].float(), {k: v.float() for k, v in params.items()}
    )
    error = (single.double() - exact).abs() / exact.abs().clamp(min=1.0)
    assert error.max() < 1e-4
    clear = exact.abs() > 1e-3
    assert torch.equal(single[clear].sign().double(), exact[clear].sign())
