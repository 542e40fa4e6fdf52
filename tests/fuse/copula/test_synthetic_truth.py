"""Data from a known joint distribution, 30 % of it missing: what is learned is what was true."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from cm2.fuse.copula import COPULAS
from cm2.fuse.copula.joint import JointModel
from cm2.fuse.copula.marginals import MixtureMarginal
from cm2.fuse.known_joint import FAMILIES, MEANS, STDS, WEIGHTS, joint_draws
from cm2.fuse.models.alignment import start_mixture

D, K, STAYS, TAU = 2, 2, 2000, 0.45
DEPENDENT = tuple(family for family in FAMILIES if family != "independence")


def stays(family: str, M: int, seed: int, missing: float = 0.3) -> tuple[Tensor, Tensor]:
    """Values (N, M, D) and availability (N, M) with at least one modality."""
    random = np.random.default_rng(seed)
    w = joint_draws(family, STAYS, M, TAU, random)
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
