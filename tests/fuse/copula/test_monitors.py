from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from cm2.fuse.copula.monitors import ks_bound, ks_distance, spread_and_rank


def test_ks_distance_equals_scipy_over_present_rows() -> None:
    g = torch.Generator().manual_seed(0)
    u = torch.rand(200, 2, 3, generator=g, dtype=torch.float64)
    u[:, 1] = u[:, 1] ** 2
    available = torch.rand(200, 2, generator=g) > 0.4
    log_u = torch.where(available.unsqueeze(-1), u.log(), math.nan)
    found = ks_distance(log_u, available)
    for m in range(2):
        for d in range(3):
            expected = stats.kstest(u[available[:, m], m, d].numpy(), "uniform").statistic
            assert found[m, d].item() == pytest.approx(expected, abs=1e-12)
    assert found[1].min() > 0.2 > found[0].max()


def test_uniform_numbers_exceed_the_bound_as_rarely_as_it_says() -> None:
    g = torch.Generator().manual_seed(0)
    looks, n, coordinates = 400, 80, 6
    u = torch.rand(looks, n, 1, coordinates, generator=g, dtype=torch.float64)
    worst = torch.stack([ks_distance(x.log(), torch.ones(n, 1).bool()).max() for x in u])
    bound = ks_bound(torch.tensor(n), coordinates, level=0.1)
    share = (worst > bound).double().mean().item()
    assert 0.02 < share < 0.1 + 3 * math.sqrt(0.09 / looks)
    assert stats.ksone.isf(0.05 / coordinates, n) == pytest.approx(bound.item(), rel=0.05)


def test_modality_without_rows_has_distance_one() -> None:
    assert (ks_distance(torch.zeros(4, 2, 3), torch.zeros(4, 2).bool()) == 1).all()


def test_effective_rank_counts_used_directions_and_spread_the_scale() -> None:
    g = torch.Generator().manual_seed(0)
    ball = torch.randn(5000, 8, generator=g, dtype=torch.float64)
    line = torch.randn(5000, 1, generator=g, dtype=torch.float64).expand(5000, 8)
    x = torch.stack([ball, 0.1 * line, torch.ones_like(ball)], 1)
    available = torch.rand(5000, 3, generator=g) > 0.3
    x[~available] = math.nan
    spread, rank = spread_and_rank(x, available)
    assert rank.numpy() == pytest.approx([8, 1, 1], abs=0.02)
    assert spread.numpy() == pytest.approx([1, 0.1, 0], abs=0.02)
    rows = x[available[:, 0], 0].numpy()
    expected = np.sqrt(np.trace(np.cov(rows.T, bias=True)) / 8)
    assert spread[0].item() == pytest.approx(expected, abs=1e-10)
