from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from cm2.fuse.random import key, order, stay_keys, uniforms


def test_a_stay_keeps_its_numbers_in_any_batch() -> None:
    keys = stay_keys([7, "b", 9, 10])
    whole = uniforms(0, "dropout", keys, (3, 5), epoch=2, step=1)
    part = uniforms(0, "dropout", keys[[2, 0]], (3, 5), epoch=2, step=1)
    np.testing.assert_array_equal(part, whole[[2, 0]])


@pytest.mark.parametrize(
    ("seed", "purpose", "epoch", "step"),
    [(1, "dropout", 2, 1), (0, "draw", 2, 1), (0, "dropout", 3, 1), (0, "dropout", 2, 2)],
)
def test_every_part_of_the_key_changes_every_number(
    seed: int, purpose: str, epoch: int, step: int
) -> None:
    keys = stay_keys(range(20))
    first = uniforms(0, "dropout", keys, (4,), epoch=2, step=1)
    other = uniforms(seed, purpose, keys, (4,), epoch=epoch, step=step)
    assert (first != other).all()


def test_numbers_are_uniform_and_uncorrelated_between_stays_and_positions() -> None:
    draws = uniforms(3, "draw", stay_keys(range(500)), (200,))
    assert draws.min() > 0
    assert draws.max() < 1
    assert stats.kstest(draws.ravel(), "uniform").pvalue > 1e-3
    between_positions = np.corrcoef(draws[:, :50].T)
    between_stays = np.corrcoef(draws[:50])
    for table, n in ((between_positions, 500), (between_stays, 200)):
        off = np.abs(table[~np.eye(50, dtype=bool)])
        assert off.max() < 5 / np.sqrt(n)


def test_streams_are_the_same_on_every_machine() -> None:
    keys = stay_keys([30000001])
    assert key("a", 1) == 0xBE70D321A4119E83
    expected = [0.7406406789625678, 0.13923380833305943]
    assert uniforms(0, "order", keys, (2,), 1)[0].tolist() == expected


def test_an_order_is_a_permutation_that_changes_with_the_epoch() -> None:
    keys = stay_keys(range(100))
    first, second = order(0, "order", keys, 1), order(0, "order", keys, 2)
    assert sorted(first) == list(range(100))
    assert (first != second).any()
