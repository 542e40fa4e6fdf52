from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cm2.cache.cohort import Cohort
from cm2.cache.layout import extract_again
from cm2.cache.reader import Store
from cm2.cache.upkeep import require_cache
from cm2.errors import DataError, did_you_mean, nearest
from cm2.fuse.listing import list_runs


def test_the_nearest_name_is_found_in_any_case_and_nothing_where_none_is_alike() -> None:
    assert nearest("map", ["HR", "MAP"]) == "MAP"
    assert nearest("copla", ["copula", "K"]) == "copula"
    assert nearest("zzz", ["copula", "K"]) is None
    assert did_you_mean("formula", ["formulas"], "published.") == (
        " Did you mean 'published.formulas'?"
    )
    assert did_you_mean("zzz", ["copula"]) == ""


@pytest.mark.parametrize(
    "ask",
    [
        lambda cache: Cohort.open(cache, "default"),
        lambda cache: Store.open(cache, "ehr"),
        require_cache,
        list_runs,
    ],
)
def test_a_command_that_is_advised_can_be_pasted_where_a_path_has_a_blank(
    ask: Callable[[Path], object], tmp_path: Path
) -> None:
    cache = tmp_path / "my cache"
    cache.mkdir()
    with pytest.raises(DataError) as caught:
        ask(cache)
    assert f"--cache '{cache}'" in str(caught.value)
    assert f"--cache '{cache}'" in extract_again(cache, "ehr")
