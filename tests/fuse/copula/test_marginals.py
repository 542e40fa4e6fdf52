from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture
from torch import Tensor

from cm2.errors import ConfigError, DataError
from cm2.fuse.copula.marginals import MixtureMarginal
from cm2.fuse.copula.mixture import log_prob
from cm2.fuse.models.alignment import start_mixture

CENTRES = torch.tensor([[-3.0, 0.0], [0.0, 3.0], [3.0, -1.0]])


def clusters(n: int, seed: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    which = torch.randint(3, (n,), generator=g)
    return CENTRES[which] + 0.4 * torch.randn(n, 2, generator=g)


def from_data(x: Tensor, K: int, seed: int, **options: float) -> MixtureMarginal:
    marginal = MixtureMarginal(K, x.shape[1], **options)  # type: ignore[arg-type]
    marginal.start(*start_mixture(x, K, marginal.floor, seed))
    return marginal


def held_out(marginal: MixtureMarginal, x: Tensor) -> Tensor:
    return log_prob(x, marginal.mixture()).detach()


@pytest.mark.parametrize("seed", range(20))
def test_three_clear_clusters_give_three_components_in_every_seed(seed: int) -> None:
    x = clusters(600, seed)
    marginal = from_data(x, 3, seed)
    marginal.refresh(x, torch.ones(600), steps=5)
    means = marginal.mixture().means.detach()
    nearest = torch.cdist(CENTRES, means).min(1)
    assert nearest.values.max() < 0.15
    assert len(set(nearest.indices.tolist())) == 3


def test_held_out_likelihood_chooses_the_true_number_of_components() -> None:
    x, fresh = clusters(2000, 0), clusters(4000, 1)
    value = {K: held_out(from_data(x, K, 0), fresh) for K in range(1, 7)}
    best = max(value, key=lambda K: value[K].mean().item())

    def lead(a: int, b: int) -> float:
        difference = value[a] - value[b]  # paired over the same rows
        return float(difference.mean() / difference.std() * math.sqrt(len(fresh)))

    assert best == 3 or lead(best, 3) < 1
    assert lead(3, 2) > 2


def test_start_takes_over_the_fit_exactly() -> None:
    x = clusters(500, 3)
    fit = GaussianMixture(3, covariance_type="diag", random_state=0).fit(x.numpy())
    for weights in ("logits", "mlp"):
        marginal = MixtureMarginal(3, 2, weights=weights).double()
        parts = (fit.weights_, fit.means_, np.sqrt(fit.covariances_))
        marginal.start(*(torch.from_numpy(part) for part in parts))
        found = held_out(marginal, x.double()).numpy()
        assert np.allclose(found, fit.score_samples(x.numpy()), atol=1e-6)


def test_equal_components_separate_at_the_start_and_in_every_refresh() -> None:
    x = clusters(600, 0)
    marginal = MixtureMarginal(3, 2)
    marginal.start(torch.ones(3), torch.zeros(3, 2), torch.ones(3, 2))
    assert torch.pdist(marginal.mixture().means.detach()).min() > 0.1
    with torch.no_grad():
        marginal.means.copy_(torch.zeros(3, 2))
        marginal.raw_stds.copy_(marginal.raw_stds[:1].expand(3, 2).clone())
    marginal.refresh(x, torch.ones(600), steps=100)
    assert torch.pdist(marginal.mixture().means.detach()).min() > 1.0


def test_weights_of_the_perceptron_learn_like_free_logits() -> None:
    x = clusters(1500, 5)[torch.arange(1500) % 5 > 0]
    reached = {}
    for kind in ("logits", "mlp"):
        marginal = MixtureMarginal(3, 2, weights=kind)
        marginal.start(torch.tensor([0.8, 0.1, 0.1]), CENTRES, torch.full((3, 2), 0.4))
        optimizer = torch.optim.Adam(marginal.parameters(), 0.02)
        for _ in range(200):
            optimizer.zero_grad()
            loss = -log_prob(x, marginal.mixture()).mean()
            loss.backward()
            optimizer.step()
        reached[kind] = loss.item()
        assert marginal.mixture().log_weights.exp().max() < 0.4
    assert reached["mlp"] == pytest.approx(reached["logits"], abs=5e-3)
    marginal.zero_grad()
    marginal.mixture().log_weights[0].backward()
    for name in ("code", "inner", "outer"):  # the last marginal's weights come from a perceptron
        gradient = marginal.get_parameter(name).grad
        assert gradient is not None
        assert gradient.abs().sum() > 0


def test_deviations_never_fall_below_the_floor() -> None:
    x = torch.zeros(100, 2)
    marginal = from_data(clusters(100, 0), 2, 0)
    marginal.refresh(x, torch.ones(100), steps=20)
    stds = marginal.mixture().stds
    assert stds.min() >= marginal.floor
    assert stds.min() < 1.1 * marginal.floor
    loss = -log_prob(x, marginal.mixture()).mean()
    loss.backward()
    gradients = [p.grad for p in marginal.parameters() if p.grad is not None]
    assert all(torch.isfinite(g).all() for g in gradients)


def test_absent_rows_do_not_move_a_mixture() -> None:
    x = clusters(400, 0)
    padded = torch.cat([x, torch.full((50, 2), math.nan)])
    one, other = from_data(x, 3, 0), from_data(x, 3, 0)
    one.refresh(x, torch.ones(400), steps=3)
    other.refresh(padded, torch.cat([torch.ones(400), torch.zeros(50)]), steps=3)
    for a, b in zip(one.mixture(), other.mixture(), strict=True):
        assert torch.allclose(a, b)


def test_impossible_arguments_are_named() -> None:
    with pytest.raises(ConfigError, match="K=0"):
        MixtureMarginal(0, 2)
    with pytest.raises(ConfigError, match="'softmax'"):
        MixtureMarginal(2, 2, weights="softmax")
    marginal = MixtureMarginal(2, 3)
    with pytest.raises(DataError, match=r"means of shape \(2, 3\), found \(2, 2\)"):
        marginal.start(torch.ones(2), torch.zeros(2, 2), torch.ones(2, 3))
    with pytest.raises(DataError, match="stds"):
        marginal.start(torch.ones(2), torch.zeros(2, 3), -torch.ones(2, 3))
