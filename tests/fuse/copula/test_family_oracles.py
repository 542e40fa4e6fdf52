"""Agreement with pyvinecopulib and statsmodels; where they are wrong or limited, that is stated.

A disagreement is settled by the multi-precision vectors (test_family_vectors.py), which hold the
same parameters.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cm2.fuse.copula import get_copula

POINTS = torch.rand(300, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def _pair(u: Tensor) -> tuple[Tensor, Tensor]:
    return torch.log(u), torch.log1p(-u)


def _params(family: str, values: tuple[float, ...], M: int = 2) -> dict[str, Tensor]:
    if family in ("clayton", "frank", "gumbel"):
        return {"theta": torch.tensor(values[0], dtype=torch.float64)}
    correlation = torch.full((M, M), values[0], dtype=torch.float64)
    correlation[0, -1] = correlation[-1, 0] = values[0] / 2 if M > 2 else values[0]
    correlation.fill_diagonal_(1.0)
    if family == "gaussian":
        return {"correlation": correlation}
    return {"correlation": correlation, "nu": torch.tensor(values[1], dtype=torch.float64)}


# pyvinecopulib evaluates Frank's distribution function and h as differences that cancel for large
# theta, offers the t distribution function for integer nu only, and inverts by bisection.
BIVARIATE = [
    ("clayton", (0.5,), {}),
    ("clayton", (12.0,), {}),
    ("frank", (-18.0,), {"inverse": 1e-8}),
    ("frank", (3.0,), {"inverse": 1e-8}),
    ("frank", (25.0,), {"cdf": 1e-5, "h": 1e-4, "inverse": 1e-4}),
    ("gumbel", (1.4,), {"inverse": 1e-8}),
    ("gumbel", (10.0,), {"inverse": 1e-8}),
    ("gaussian", (-0.7,), {}),
    ("gaussian", (0.95,), {}),
    ("student", (-0.7, 5.0), {}),
    ("student", (0.95, 30.0), {}),
    ("student", (0.3, 2.5), {"cdf": 1e-2}),
]


@pytest.mark.parametrize(("family", "values", "limits"), BIVARIATE)
def test_pairs_agree_with_pyvinecopulib(
    family: str, values: tuple[float, ...], limits: dict[str, float]
) -> None:
    pv = pytest.importorskip("pyvinecopulib")
    theirs = pv.Bicop(
        family=getattr(pv.BicopFamily, family), parameters=np.array(values).reshape(-1, 1)
    )
    u = POINTS[:, :2]
    log_u, log_sf = _pair(u)
    copula, params = get_copula(family), _params(family, values)
    array = np.asfortranarray(u.numpy())
    tau = copula.kendall_tau(params)
    inverse = copula.conditional_inverse(
        log_u[:, 1], log_sf[:, 1], log_u[:, :1], log_sf[:, :1], params
    )
    comparisons = {
        "log density": (copula.log_density(log_u, log_sf, params), np.log(theirs.pdf(array))),
        "cdf": (torch.exp(copula.log_cdf(log_u, log_sf, params)), theirs.cdf(array)),
        "h": (torch.exp(copula.conditional(log_u, log_sf, params)[0][:, 0]), theirs.hfunc1(array)),
        "inverse": (torch.exp(inverse[0]), theirs.hinv1(array)),
        "tau": (tau if tau.ndim == 0 else tau[0, 1], theirs.tau),
    }
    for what, (ours, other) in comparisons.items():
        error = float(np.abs(ours.numpy() - other).max())
        assert error < limits.get(what, 1e-11), f"{what}: {error:.1e}"


def test_pyvinecopulib_loses_frank_at_theta_25_and_cm2_does_not() -> None:
    pv = pytest.importorskip("pyvinecopulib")
    theirs = pv.Bicop(family=pv.BicopFamily.frank, parameters=np.array([[25.0]]))
    # by Frank's radial symmetry C(u, v) = u + v - 1 + C(1 - u, 1 - v)
    u = POINTS[:, :2]
    copula, params = get_copula("frank"), _params("frank", (25.0,))
    here = torch.exp(copula.log_cdf(*_pair(u), params)).numpy()
    there = torch.exp(copula.log_cdf(*_pair(1 - u), params)).numpy()
    total = (u.sum(-1) - 1).numpy()
    assert np.abs(here - there - total).max() < 1e-14
    a, b = theirs.cdf(np.asfortranarray(u)), theirs.cdf(np.asfortranarray(1 - u))
    assert np.abs(a - b - total).max() > 1e-10


# statsmodels evaluates Frank through powers of exp(-theta), which cancel from theta = 9 on and
# leave -inf at theta = 25, M = 2; its Gaussian and t have no closed distribution function here.
MULTIVARIATE: list[tuple[str, tuple[float, ...], float]] = [
    ("clayton", (0.5,), 1e-11),
    ("clayton", (12.0,), 1e-11),
    ("frank", (0.01,), 1e-10),
    ("frank", (3.0,), 1e-11),
    ("frank", (9.0,), 1e-8),
    ("gumbel", (1.001,), 1e-11),
    ("gumbel", (10.0,), 1e-11),
    ("gaussian", (0.6,), 1e-11),
    ("student", (0.6, 4.5), 1e-11),
]


@pytest.mark.parametrize("M", [2, 3, 4])
@pytest.mark.parametrize(("family", "values", "bar"), MULTIVARIATE)
def test_densities_agree_with_statsmodels(
    family: str, values: tuple[float, ...], bar: float, M: int
) -> None:
    api = pytest.importorskip("statsmodels.distributions.copula.api")
    u = POINTS[:, :M]
    params = _params(family, values, M)
    if family == "gaussian":
        theirs: Any = api.GaussianCopula(corr=params["correlation"].numpy(), k_dim=M)
    elif family == "student":
        corr = params["correlation"].numpy()
        theirs = api.StudentTCopula(corr=corr, df=values[1], k_dim=M)
    else:
        theirs = getattr(api, f"{family.capitalize()}Copula")(theta=values[0], k_dim=M)
    ours = get_copula(family).log_density(*_pair(u), params)
    assert np.abs(ours.numpy() - np.log(theirs.pdf(u.numpy()))).max() < bar


def test_statsmodels_loses_frank_at_theta_25_and_cm2_does_not() -> None:
    api = pytest.importorskip("statsmodels.distributions.copula.api")
    pv = pytest.importorskip("pyvinecopulib")
    u = POINTS[:, :2]
    exact = np.log(
        pv.Bicop(family=pv.BicopFamily.frank, parameters=np.array([[25.0]])).pdf(
            np.asfortranarray(u)
        )
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = np.log(api.FrankCopula(theta=25.0, k_dim=2).pdf(u.numpy()))
    ours = get_copula("frank").log_density(*_pair(u), _params("frank", (25.0,))).numpy()
    assert np.abs(ours - exact).max() < 1e-11
    assert not np.abs(theirs - exact).max() < 1e-4
