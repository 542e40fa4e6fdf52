"""Held-out likelihood by the number of components: scikit-learn's numbers, and the true K."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.mixture import GaussianMixture
from torch import Tensor

from cm2.fuse.copula.goodness import spread
from cm2.fuse.models.mixture_size import ROWS, SIZES, by_modality, held_out_by_size
from cm2.fuse.random import key

FLOOR, SEED = 1e-2, 7


def coordinate(n: int, seed: int) -> Tensor:
    """One coordinate of three components far apart, shape (n, 1)."""
    random = np.random.default_rng(seed)
    component = random.choice(3, size=n, p=[0.2, 0.5, 0.3])
    x = np.array([-4.0, 0.0, 5.0])[component] + 0.7 * random.normal(size=n)
    return torch.from_numpy(x[:, None])


def test_values_of_one_coordinate_are_those_of_sklearn() -> None:
    seen, other = coordinate(ROWS + 500, 0), coordinate(600, 1)
    found = held_out_by_size(seen, other, 3, FLOOR, SEED)
    assert found["n"] == 600
    assert list(found["sizes"]) == [str(K) for K in SIZES]
    scores = {}
    for K in SIZES:
        mixture = GaussianMixture(
            K,
            covariance_type="diag",
            reg_covar=FLOOR**2,
            init_params="k-means++",
            random_state=SEED,
        )
        scores[K] = mixture.fit(seen[spread(len(seen), ROWS)].numpy()).score_samples(other.numpy())
        assert found["sizes"][str(K)]["value"] == pytest.approx(scores[K].mean(), abs=1e-10)
    one = found["sizes"]["1"]
    gap = scores[1] - scores[3]
    low, high = stats.norm.interval(0.95, gap.mean(), stats.sem(gap))
    assert (one["low"], one["high"]) == pytest.approx((low, high), rel=1e-3)
    assert one["high"] < 0
    assert max(SIZES, key=lambda K: found["sizes"][str(K)]["value"]) >= 3
    assert held_out_by_size(seen, other, 3, FLOOR, SEED) == found


def test_sorted_training_rows_give_what_shuffled_ones_do() -> None:
    seen, other = coordinate(4 * ROWS, 0), coordinate(600, 1)
    shuffled, inorder = (
        held_out_by_size(rows, other, 3, FLOOR, SEED)["sizes"]["3"]["value"]
        for rows in (seen, seen.sort(0).values)
    )
    assert inorder == pytest.approx(shuffled, abs=0.02)


def test_the_value_is_by_coordinate_and_the_runs_own_size_is_among_them() -> None:
    seen = torch.cat([coordinate(300, s) for s in (0, 1)], 1)
    found = held_out_by_size(seen, seen, 8, FLOOR, SEED)["sizes"]
    assert list(found)[-1] == "8"
    assert (found["8"]["difference"], found["8"]["low"], found["8"]["high"]) == (0, 0, 0)
    centred = (seen - seen.mean(0)) / (seen.var(0, correction=0) + FLOOR**2).sqrt()
    log_density = -0.5 * (centred**2 + np.log(2 * np.pi)) - torch.log(
        (seen.var(0, correction=0) + FLOOR**2).sqrt()
    )
    assert found["1"]["value"] == pytest.approx(float(log_density.mean()))


def test_absent_rows_are_not_read_and_too_few_rows_say_nothing() -> None:
    w = torch.stack([coordinate(200, 0), coordinate(200, 1)], 1)
    has = torch.ones(200, 2, dtype=torch.bool)
    has[50:, 1] = False
    w[50:, 1] = torch.nan
    few = has.clone()
    few[1:, 1] = False
    found = by_modality(("a", "b"), (w, has), (w, few), 2, FLOOR, 0)
    first = w[:, 0].contiguous()
    alone = held_out_by_size(first, first, 2, FLOOR, key(0, "mixture", "a"))
    assert found["a"] == alone
    assert found["b"] == {"n": 1, "sizes": {}}
    three = held_out_by_size(w[:3, 0], w[:, 0], 2, FLOOR, 0)
    assert list(three["sizes"]) == ["1", "2", "3"]
