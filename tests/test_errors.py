from __future__ import annotations

from cm2.errors import did_you_mean, nearest


def test_the_nearest_name_is_found_in_any_case_and_nothing_where_none_is_alike() -> None:
    assert nearest("map", ["HR", "MAP"]) == "MAP"
    assert nearest("copla", ["copula", "K"]) == "copula"
    assert nearest("zzz", ["copula", "K"]) is None
    assert did_you_mean("formula", ["formulas"], "published.") == (
        " Did you mean 'published.formulas'?"
    )
    assert did_you_mean("zzz", ["copula"]) == ""
