"""The lines of a grid."""

from __future__ import annotations

from itertools import pairwise

import pytest

from cm2.errors import ConfigError
from cm2.fuse.sweep.axis import axis, parse


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("copula=frank,gumbel", ("frank", "gumbel")),
        ("K=1:6", (1, 2, 3, 4, 5, 6)),
        ("--lambda-cop=1e-4..1e-1/4", (1e-4, 1e-3, 1e-2, 1e-1)),
        ("dropout=0.1:0.5/5", (0.1, 0.2, 0.3, 0.4, 0.5)),
        ("hidden=16..256/5", (16, 32, 64, 128, 256)),
        ("batch_size=16:64/4", (16, 32, 48, 64)),
        ("modalities=ehr,ehr+cxr", (("ehr",), ("ehr", "cxr"))),
        ("drop=,cxr=0.5:severity", ((), ("cxr=0.5:severity",))),
        ("published.formulas=true,false", ("true", "false")),
        ("preset=corrected,paper", ("corrected", "paper")),
    ],
)
def test_values_are_read_as_written(text: str, values: tuple[object, ...]) -> None:
    assert parse(text).values == values


def test_a_logarithmic_range_ends_where_it_says_whatever_the_number_of_points() -> None:
    for n in range(2, 40):
        found = parse(f"lr=1e-4..3e-2/{n}").values
        assert (found[0], found[-1], len(found)) == (1e-4, 3e-2, n)
        ratios = [b / a for a, b in pairwise(found)]  # type: ignore[operator]
        assert max(ratios) == pytest.approx(min(ratios), rel=1e-4)


def test_a_span_without_points_is_every_number_between() -> None:
    one = parse("lr=1e-4..1e-2")
    assert (one.values, one.span) == ((), (1e-4, 1e-2))
    assert one.at(0.5) == pytest.approx(1e-3)
    assert parse("dropout=0.1:0.3").at(0.5) == pytest.approx(0.2)


def test_a_condition_is_part_of_a_line() -> None:
    one = parse("K=1:3 if copula=frank,gumbel and lambda_cop=1e-2")
    assert one.values == (1, 2, 3)
    assert one.holds({"copula": "gumbel", "lambda_cop": 0.01})
    assert not one.holds({"copula": "gumbel", "lambda_cop": 0.1})
    assert not one.holds({"copula": "student", "lambda_cop": 0.01})


def test_a_list_of_a_file_is_read_like_a_line() -> None:
    assert axis("K", [1, 2]).values == (1, 2)
    assert axis("modalities", [["ehr"], ["ehr", "cxr"]]).values == (("ehr",), ("ehr", "cxr"))
    assert axis("K", "1:3 if copula=frank") == parse("K=1:3 if copula=frank")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("K", "NAME=VALUES"),
        ("copla=frank", "Did you mean 'copula'"),
        ("K=6:1", "LOW below HIGH"),
        ("lr=0..1/3", "above 0"),
        ("lr=1e-4..1e-1/1", "two points"),
        ("K=1,1", "differ"),
        ("seed=0:4", "--seeds 0:4"),
        ("K=1:3 if frank", "condition"),
        ("K=1:3 if copla=frank", "Did you mean 'copula'"),
        ("lr=1e-4..1e-1/1000000", "more than anybody"),
    ],
)
def test_what_cannot_be_read_is_refused_with_what_was_expected(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse(text)
