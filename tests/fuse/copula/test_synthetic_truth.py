"""Data from a known joint distribution, 30 % of it missing: what is learned is what was true.

Copula arguments come from numpy and scipy (frailties, elliptical vectors), and the inverse
Rosenblatt transform is written out anew, so that no function under test draws the data.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import special, stats
from torch import Tensor

from cm2.fuse.copula import COPULAS
from cm2.fuse.copula.joint import JointModel
from cm2.fuse.copula.marginals import MixtureMarginal
from cm2.fuse.models.alignment import start_mixture

Array = NDArray[np.float64]
D, K, STAYS, TAU = 2, 2, 2000, 0.45
WEIGHTS = np.array([0.35, 0.65])
MEANS = np.array([[-1.5, 1.0], [1.5, -0.5]])
STDS = np.array([[0.5, 0.8], [0.7, 0.4]])
DEPENDENT = ("clayton", "frank", "gumbel", "gaussian", "student")
FRANK = 4.875  # Kendall's tau 0.45, by its Debye function
DEGREES = 5


def copula_draws(family: str, n: int, M: int, random: np.random.Generator) -> Array:
    """Uniform numbers (n, M) with Kendall's tau TAU for every pair."""
    E = random.exponential(size=(n, M))
    if family == "clayton":
        theta = 2 * TAU / (1 - TAU)
        u = (1 + E / random.gamma(1 / theta, size=(n, 1))) ** (-1 / theta)
    elif family == "frank":
        p = -np.expm1(-FRANK)
        V = stats.logser.rvs(p, size=(n, 1), random_state=random)
        u = -np.log1p(-p * np.exp(-E / V)) / FRANK
    elif family == "gumbel":
        a = 1 - TAU
        angle, W = np.pi * random.random((n, 1)), random.exponential(size=(n, 1))
        V = np.sin(a * angle) / np.sin(angle) ** (1 / a)
        V *= (np.sin((1 - a) * angle) / W) ** ((1 - a) / a)
        u = np.exp(-((E / V) ** a))
    elif family == "independence":
        u = random.random((n, M))
    else:
        rho = np.sin(np.pi * TAU / 2)
        R = np.full((M, M), rho) + (1 - rho) * np.eye(M)
        z = random.multivariate_normal(np.zeros(M), R, size=n)
        if family == "student":
            t = z / np.sqrt(random.chisquare(DEGREES, size=(n, 1)) / DEGREES)
            u = stats.t.cdf(t, DEGREES)
        else:
            u = special.ndtr(z)
    return np.asarray(u)


def mixture_draws(u: Array) -> Array:
    """Values (n, D) of the mixture whose Rosenblatt transform is u, by bisection."""
    x = np.empty_like(u)
    weights = np.broadcast_to(WEIGHTS, (len(u), K))
    for d in range(D):
        low, high = np.full(len(u), -20.0), np.full(len(u), 20.0)
        for _ in range(60):
            middle = (low + high) / 2
            below = special.ndtr((middle[:, None] - MEANS[:, d]) / STDS[:, d])
            under = (weights * below).sum(1) < u[:, d]
            low, high = np.where(under, middle, low), np.where(under, high, middle)
        x[:, d] = (low + high) / 2
        weights = weights * stats.norm.pdf(x[:, d : d + 1], MEANS[:, d], STDS[:, d])
        weights /= weights.sum(1, keepdims=True)
    return x


def stays(family: str, M: int, seed: int, missing: float = 0.3) -> tuple[Tensor, Tensor]:
    """Values (N, M, D) and availability (N, M) with at least one modality."""
    random = np.random.default_rng(seed)
    u = np.stack([copula_draws(family, STAYS, M, random) for _ in range(D)], -1)  # (N, M, D)
    w = np.stack([mixture_draws(u[:, m]) for m in range(M)], 1)
    available = random.random((STAYS, M)) >= missing
    available[~available.any(1), 0] = True
    w[~available] = 1e6  # never read
    return torch.from_numpy(w), torch.from_numpy(available)


def fitted(family: str, w: Tensor, available: Tensor) -> JointModel:
    """Mixtures by EM on what is present, then the dependence by its own likelihood."""
    M = w.shape[1]
    model = JointModel(M, D, K, family).double()
    for m, marginal in enumerate(model.marginals):
        assert isinstance(marginal, MixtureMarginal)
        marginal.start(*start_mixture(w[available[:, m], m], K, marginal.floor, 0))
    model.refresh(w, available, 20)
    if model.raw.numel():
        optimizer = torch.optim.LBFGS([model.raw], max_iter=40, line_search_fn="strong_wolfe")
        rows = available.sum(1) >= 2

        def loss() -> Tensor:
            optimizer.zero_grad()
            value = -model.log_terms(w[rows], available[rows]).copula.mean()
            value.backward()  # type: ignore[no-untyped-call]
            return value

        optimizer.step(loss)  # type: ignore[no-untyped-call]
    return model


def pair_tau(model: JointModel) -> float:
    tau = model.copula.kendall_tau(model.copula_params()).detach()
    return float(tau if tau.ndim == 0 else tau[0, 1])


@pytest.mark.parametrize("M", [2, 3])
@pytest.mark.parametrize("family", DEPENDENT)
def test_marginals_and_tau_are_recovered_within_sampling_error(family: str, M: int) -> None:
    w, available = stays(family, M, seed=1)
    model = fitted(family, w, available)
    pairs = int((available[:, 0] & available[:, 1]).sum()) * D
    assert pair_tau(model) == pytest.approx(TAU, abs=4 * np.sqrt(4 / (9 * pairs)))
    mix = model.mixture()
    for m in range(M):
        order = mix.means[m, :, 0].argsort().numpy()
        n = int(available[:, m].sum()) * WEIGHTS
        means, found = mix.means[m].detach().numpy()[order], mix.stds[m].detach().numpy()[order]
        assert (np.abs(means - MEANS) < 5 * STDS / np.sqrt(n)[:, None]).all()
        assert (np.abs(found - STDS) < 5 * STDS / np.sqrt(2 * n)[:, None]).all()
        weights = mix.log_weights[m].exp().detach().numpy()[order]
        assert np.abs(weights - WEIGHTS).max() < 5 * np.sqrt(WEIGHTS.prod() / n.sum())


@pytest.mark.parametrize("M", [2, 3])
@pytest.mark.parametrize("family", DEPENDENT)
def test_held_out_likelihood_prefers_the_true_family(family: str, M: int) -> None:
    w, available = stays(family, M, seed=2)
    new = stays(family, M, seed=3)
    held_out = {}
    with torch.no_grad():
        for name in COPULAS:
            with torch.enable_grad():
                model = fitted(name, w, available)
            held_out[name] = model.log_prob(*new).mean().item()
    assert max(held_out, key=held_out.__getitem__) == family
    assert min(held_out, key=held_out.__getitem__) == "independence"


def crps(draws: Tensor, truth: Tensor) -> Tensor:
    """Continuous ranked probability score by row from (S, N) draws; smaller is better."""
    S = len(draws)
    near = (draws - truth).abs().mean(0)
    ranked = draws.sort(0).values
    factor = 2 * torch.arange(1, S + 1, dtype=draws.dtype).unsqueeze(1) - S - 1
    return near - (factor * ranked).sum(0) / S**2


@pytest.mark.parametrize("family", [*DEPENDENT, "independence"])
def test_conditional_draws_beat_marginal_ones_if_and_only_if_there_is_dependence(
    family: str,
) -> None:
    w, available = stays(family, 2, seed=4)
    with torch.enable_grad():
        model = fitted("frank" if family == "independence" else family, w, available)
    new, everything = stays(family, 2, seed=5, missing=0.0)
    new, everything = new[:1000], everything[:1000]
    seen = everything.clone()
    seen[:, 1] = False
    uniforms = torch.from_numpy(np.random.default_rng(6).random((64, 1000, 2, D)))
    with torch.no_grad():
        # log f(x_2 | x_1) - log f(x_2), summed over coordinates
        gain = D * model.log_terms(new, everything).copula
        score = {
            how: crps(model.sample_missing(new, seen, uniforms, how)[:, :, 1, 0], new[:, 1, 0])
            for how in ("conditional", "marginal")
        }
    better = score["marginal"] - score["conditional"]
    for difference in (gain, better):
        error = difference.std() / len(difference) ** 0.5
        if family == "independence":
            assert difference.mean().abs() < 4 * error + 0.002
        else:
            assert difference.mean() > 4 * error
