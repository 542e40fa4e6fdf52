from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from cm2.fuse.config import FuseConfig
from cm2.fuse.inference import build
from cm2.fuse.models.canonical import canonical_projection
from cm2.fuse.models.cm2 import CM2
from cm2.fuse.models.interface import FusionBatch, ModalitySpec


def views(n: int, m: int, shared: int = 2, D: int = 6) -> Tensor:
    """Embeddings that share weak factors under strong ones of their own."""
    random = np.random.default_rng(0)
    common = random.normal(size=(n, 1, shared))
    own = 3 * random.normal(size=(n, m, D - shared))
    parts = np.concatenate([np.repeat(common, m, 1), own], -1)
    mix = np.stack([np.linalg.qr(random.normal(size=(D, D)))[0] for _ in range(m)])
    noise = 0.1 * random.normal(size=(n, m, D))
    return torch.from_numpy(np.einsum("nmi,mij->nmj", parts, mix) + noise)


def correlations(v: Tensor) -> Tensor:
    v = v - v.mean(0)
    v = v / v.norm(dim=0)
    return (v[:, 0] * v[:, 1]).sum(0)


@pytest.mark.parametrize("m", [2, 3])
def test_it_finds_what_the_modalities_share(m: int) -> None:
    z = views(2000, m)
    everyone = torch.ones(2000, m, dtype=torch.bool)
    found = canonical_projection(z, everyone, 3, ridge=1e-3)
    assert found.shape == (m, 6, 3)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(m, 3).double())
    for a, b in {(0, 1), (0, m - 1)}:
        pair = torch.stack([z[:, k] @ found[k] for k in (a, b)], 1)
        assert (correlations(pair)[:2] > 0.95).all()
        assert correlations(pair)[2].abs() < 0.3


def test_two_modalities_give_the_canonical_correlations() -> None:
    z = views(3000, 2)
    found = canonical_projection(z, torch.ones(3000, 2, dtype=torch.bool), 6, ridge=0.0)
    ours = correlations(torch.stack([z[:, k] @ found[k] for k in range(2)], 1))
    centred = [z[:, k] - z[:, k].mean(0) for k in range(2)]
    bases = [torch.linalg.qr(c)[0] for c in centred]
    expected = torch.linalg.svdvals(bases[0].T @ bases[1])
    torch.testing.assert_close(ours.sort(descending=True).values, expected, rtol=1e-6, atol=1e-6)


def test_absent_rows_are_not_read() -> None:
    z = views(500, 2)
    available = torch.rand(500, 2, generator=torch.Generator().manual_seed(0)) < 0.7
    spoiled = torch.where(available.unsqueeze(-1), z, torch.nan)
    assert torch.equal(
        canonical_projection(z, available, 3), canonical_projection(spoiled, available, 3)
    )


@pytest.mark.parametrize("projection", ["cca", "random"])
def test_the_projection_starts_once_after_the_warm_up(projection: str) -> None:
    specs = tuple(ModalitySpec(name, "vector", 6) for name in ("a", "b"))
    options = {"hidden": 6, "copula_dim": 2, "warmup": 2, "projection": projection}
    model = build(specs, FuseConfig.of(options))
    assert isinstance(model, CM2)
    x = views(200, 2).float()
    batch = FusionBatch(
        x={name: x[:, m : m + 1] for m, name in enumerate("ab")},
        mask=dict.fromkeys("ab", torch.ones(200, 1, dtype=torch.bool)),
        available=torch.ones(200, 2, dtype=torch.bool),
        pattern_id=torch.full((200,), 3),
        y=torch.zeros(200, 1),
    )
    model.start([batch])
    seen = []
    for epoch in (1, 2, 3):
        assert model.space.projection is not None
        model.refresh(epoch, [batch])
        seen.append(model.space.projection.detach().clone())
    assert torch.equal(seen[0], seen[1]) is (projection == "random")
    assert torch.equal(seen[1], seen[2])
    if projection == "cca":
        w = model.coordinates(model.embed(batch), batch.available)
        assert correlations(w.detach())[0] > 0.6
