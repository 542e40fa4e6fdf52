from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from cm2.fuse.copula.joint import JointModel
from cm2.fuse.copula.whitening import CopulaSpace
from cm2.fuse.models.alignment import MEMORY, copula_losses, fitted_tau, start_mixture, track
from cm2.fuse.models.heads import mean_probability


def embeddings(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    random = np.random.default_rng(seed)
    mix = random.normal(size=(2, 6, 6))
    z = np.einsum("nmd,mde->nme", random.normal(size=(n, 2, 6)), mix) + 3.0
    return torch.from_numpy(z), torch.from_numpy(random.random((n, 2)) < 0.7)


@pytest.mark.parametrize("width", [3, 6])
def test_tracking_converges_to_the_exact_pass(width: int) -> None:
    z, available = embeddings(6000)
    exact = CopulaSpace(2, 6, width, shrinkage=0.0).double()
    exact.update(z, available)
    moving = CopulaSpace(2, 6, width, shrinkage=0.0).double()
    moving.update(5 * embeddings(200, seed=1)[0] - 7, embeddings(200, seed=1)[1])
    for _ in range(3):
        for start in range(0, 6000, 60):
            track(moving, z[start : start + 60], available[start : start + 60])
    ours, theirs = moving.whitening, exact.whitening
    w, v = moving(z), exact(z)
    for m in range(2):
        rows = w[available[:, m], m]
        assert rows.mean(0).abs().max() < 0.2
        assert (torch.cov(rows.T) - torch.eye(width)).abs().max() < 0.3
        for d in range(width):
            pair = torch.corrcoef(torch.stack([rows[:, d], v[available[:, m], m, d]]))
            assert pair[0, 1] > 0.97, "no axis flips"
    assert (ours.mean - theirs.mean).abs().max() < 0.5
    if width == 6:  # nothing is lost by projection, so decoding gives the embedding back
        torch.testing.assert_close(moving.decode(w)[available], z[available], rtol=0, atol=0.6)


def test_one_step_of_tracking_is_the_average_of_two_distributions() -> None:
    (z, _), (batch, _) = embeddings(500), embeddings(64, seed=1)
    space = CopulaSpace(2, 6, 6, shrinkage=0.0).double()
    everywhere = torch.ones(500, 2, dtype=torch.bool)
    space.update(z, everywhere)
    track(space, batch, everywhere[:64])
    rate = 64 / (64 + MEMORY)
    for m in range(2):
        difference = batch[:, m].mean(0) - z[:, m].mean(0)
        covariance = (
            (1 - rate) * torch.cov(z[:, m].T, correction=0)
            + rate * torch.cov(batch[:, m].T, correction=0)
            + rate * (1 - rate) * torch.outer(difference, difference)
        )
        expected = torch.linalg.inv(torch.linalg.cholesky(covariance)).T
        torch.testing.assert_close(space.whitening.transform[m], expected, rtol=1e-6, atol=1e-8)
        mean = z[:, m].mean(0) + rate * difference
        torch.testing.assert_close(space.whitening.mean[m], mean)
        torch.testing.assert_close(space.whitening.embedding_mean[m], mean)


def test_tracking_a_batch_without_a_modality_leaves_that_modality_alone() -> None:
    z, available = embeddings(500)
    space = CopulaSpace(2, 6, 3).double()
    space.update(z, available)
    before = {name: buffer.clone() for name, buffer in space.named_buffers()}
    only_first = torch.tensor([[True, False]]).expand(40, 2)
    track(space, z[:40] + 1, only_first)
    for name, buffer in space.named_buffers():
        torch.testing.assert_close(buffer[1], before[name][1], rtol=1e-12, atol=1e-12)
        assert not torch.equal(buffer[0], before[name][0]), name


def test_no_row_contributes_before_the_mixtures_have_started() -> None:
    joint = JointModel(2, 3, 2, "frank").double()
    w, available = torch.randn(5, 2, 3).double(), torch.ones(5, 2, dtype=torch.bool)
    early = copula_losses(joint, w, available, torch.zeros(()), align=True).losses
    late = copula_losses(joint, w, available, torch.ones(()), align=True).losses
    assert not any(loss.rows.any() for loss in early.values())
    assert all(loss.rows.all() for loss in late.values())


def test_copula_rows_have_two_modalities_and_values_are_per_coordinate() -> None:
    joint = JointModel(2, 3, 2, "frank").double()
    w = torch.randn(4, 2, 3).double()
    available = torch.tensor([[True, True], [True, False], [False, True], [True, True]])
    losses, terms = copula_losses(joint, w, available, torch.ones(()), align=True)
    assert losses["copula"].rows.tolist() == [True, False, False, True]
    torch.testing.assert_close(losses["copula"].value, -terms.copula)
    expected = -terms.marginal.sum(1) / available.sum(1) / 3
    torch.testing.assert_close(losses["marginal"].value, expected)


def test_mixtures_start_at_the_clusters_of_the_data() -> None:
    random = np.random.default_rng(0)
    centres = np.array([[-3.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
    rows = torch.from_numpy(np.repeat(centres, 100, 0) + 0.3 * random.normal(size=(300, 2)))
    weights, means, stds = start_mixture(rows, 3, floor=1e-2, seed=5)
    assert weights.numpy() == pytest.approx([1 / 3] * 3, abs=0.02)
    found = sorted(map(tuple, means.numpy().round().tolist()))
    assert found == sorted(map(tuple, centres.tolist()))
    assert stds.numpy() == pytest.approx(0.3, abs=0.06)


@pytest.mark.parametrize(("family", "theta"), [("frank", 5.736), ("clayton", 2.0)])
def test_the_fitted_tau_is_that_of_the_data(family: str, theta: float) -> None:
    joint = JointModel(2, 4, 1, family).double()
    params = {"theta": torch.tensor(theta, dtype=torch.float64)}
    uniforms = torch.rand(4000, 4, 2, generator=torch.Generator().manual_seed(0)).double()
    log_u, log_sf = joint.copula.sample(uniforms, params)
    available = torch.ones(4000, 2, dtype=torch.bool)
    terms = joint.log_terms(torch.zeros(4000, 2, 4).double(), available)
    terms = terms._replace(log_u=log_u.mT, log_sf=log_sf.mT)
    before = joint.raw.detach().clone()
    tau = fitted_tau(joint, terms, available)
    assert tau == pytest.approx(0.5, abs=0.02)
    assert torch.equal(joint.raw, before)
    assert fitted_tau(joint, terms, available & torch.tensor([True, False])) is None


def test_predictions_are_averaged_as_probabilities() -> None:
    logits = torch.tensor([[[-2.0], [800.0]], [[1.0], [700.0]]], dtype=torch.float64)
    mean = logits[:, 0].sigmoid().mean()
    out = mean_probability(logits)
    assert out[0].sigmoid().item() == pytest.approx(mean.item(), abs=1e-12)
    assert math.isfinite(out[1])
    assert torch.equal(mean_probability(logits[:1]), logits[0])
