"""No group of fewer than five stays, and no small count to be had by subtraction."""

from __future__ import annotations

from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cm2.fuse.evaluation.cells import SMALLEST, bounded, evened, pooled, withheld

NAMES = ["a", "a+b", "a+c", "a+b+c", "b"]


def test_large_patterns_stand_alone() -> None:
    assert pooled({"a": 5, "a+b": 50}) == {"a": ("a",), "a+b": ("a+b",)}


def test_rare_patterns_join_the_nearest() -> None:
    sizes = {"a": 60, "a+b": 1, "a+b+c": 20, "c": 10}
    assert pooled(sizes)["a+b"] == ("a+b", "a+b+c")
    assert pooled(sizes)["a"] == ("a",)


def test_rare_patterns_that_are_enough_together_leave_the_others_alone() -> None:
    together = ("a+b", "b")
    assert pooled({"a": 60, "a+b": 3, "b": 2}) == {"a": ("a",), "a+b": together, "b": together}


@given(st.lists(st.integers(1, 12), min_size=5, max_size=5))
def test_every_group_is_large_enough_whenever_all_together_are(counts: list[int]) -> None:
    sizes = dict(zip(NAMES, counts, strict=True))
    groups = pooled(sizes)
    assert {name for group in groups.values() for name in group} == set(NAMES)
    assert all(name in group for name, group in groups.items())
    for group in groups.values():
        assert sum(sizes[name] for name in group) >= SMALLEST


@given(st.lists(st.integers(0, 12), min_size=1, max_size=6))
def test_no_single_count_is_withheld_beside_others(counts: list[int]) -> None:
    hidden = withheld(counts)
    assert all(hide for hide, n in zip(hidden, counts, strict=True) if 0 < n < SMALLEST)
    assert sum(hidden) != 1 or len(counts) == 1
    if all(n == 0 or n >= SMALLEST for n in counts):
        assert not any(hidden)


def test_the_smallest_of_the_others_is_withheld_too() -> None:
    assert withheld([3, 20, 8]) == [True, False, True]


@given(st.integers(0, 30), st.integers(0, 30))
def test_a_bounded_count_tells_neither_a_few_that_have_nor_a_few_that_lack(n: int, of: int) -> None:
    n, of = sorted((n, of))
    text, drawn = bounded(n, of)
    few = 0 < n < of and min(n, of - n) < SMALLEST
    assert few != (text == str(n))
    assert 0 <= drawn <= of
    alike = [m for m in range(of + 1) if bounded(m, of) == (text, drawn)]
    assert len(alike) >= (min(SMALLEST, of) - 1 if few else 1)
    assert bounded(n, of, 1) == (str(n), n)


@given(st.lists(st.integers(0, 12), min_size=1, max_size=20))
def test_an_evened_histogram_keeps_its_sum_and_shows_no_bin_of_a_few(counts: list[int]) -> None:
    shown = evened(counts)
    assert shown.sum() == pytest.approx(sum(counts))
    if sum(counts) >= SMALLEST:
        for level, run in groupby(shown):
            assert level == 0 or level * len(list(run)) >= SMALLEST - 1e-9
    assert evened(counts, 1).tolist() == counts


def test_the_one_small_bin_cannot_be_had_from_the_total() -> None:
    assert evened([20, 9, 0, 1]).tolist() == [20, 10 / 3, 10 / 3, 10 / 3]
