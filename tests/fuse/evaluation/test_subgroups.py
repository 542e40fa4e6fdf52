"""Subgroups by columns of the cohort."""

from __future__ import annotations

import pyarrow as pa
import pytest

from cm2.errors import ConfigError
from cm2.fuse.evaluation.looks import by_group
from cm2.fuse.evaluation.subgroups import Grouping, group_names

STAYS = pa.table(
    {
        "stay_id": [1, 2, 3, 4],
        "sex": ["F", "M", None, "F"],
        "age": [64.9, 65.0, None, 20.0],
        "code": [f"{i}" for i in range(4)],
    }
)


def test_values_are_groups_and_null_is_its_own() -> None:
    assert group_names(STAYS, [3, 1, 2], Grouping("sex")) == ["unknown", "F", "M"]


def test_a_number_that_is_none_is_unknown_as_null_is() -> None:
    stays = pa.table({"stay_id": [1, 2, 3], "score": [1.0, float("nan"), None]})
    assert group_names(stays, [1, 2, 3], Grouping("score", ())) == ["1.0", "unknown", "unknown"]


def test_a_column_that_is_cut_twice_has_the_groups_of_both_cuts() -> None:
    table = pa.table(
        {
            "stay_id": [1, 2, 4],
            "subject_id": [1, 2, 4],
            "target": ["ihm"] * 3,
            "y": pa.array([1, 0, 1], pa.int8()),
            "p": [0.2, 0.4, 0.6],
        }
    )
    cuts = [Grouping("age", (40.0,)), Grouping("age", (65.0,))]
    found = by_group(table, STAYS, cuts, 0, "stay")["age"]
    assert {name: part["n"] for name, part in found.items()} == {
        "age < 40": 1,
        "age >= 40": 2,
        "age < 65": 2,
        "age >= 65": 1,
    }


def test_cuts_begin_groups() -> None:
    found = group_names(STAYS, [1, 2, 3, 4], Grouping.parse("age:40/65", ["age"]))
    assert found == ["age 40 to < 65", "age >= 65", "unknown", "age < 40"]


@pytest.mark.parametrize("text", ["age:65/40", "age:x", ":3", "age:", "age:nan"])
def test_cuts_must_be_rising_numbers(text: str) -> None:
    with pytest.raises(ConfigError, match="rising numbers"):
        Grouping.parse(text, STAYS.column_names)


def test_unknown_columns_text_with_cuts_and_too_many_groups_are_refused() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'age'"):
        Grouping.parse("ages", STAYS.column_names)
    with pytest.raises(ConfigError, match="Unknown column 'stay_id'"):
        Grouping.parse("stay_id", STAYS.column_names)
    with pytest.raises(ConfigError, match="holds 'F'"):
        group_names(STAYS, [1], Grouping("sex", (1.0,)))
    many = pa.table({"stay_id": list(range(30)), "age": [float(i) for i in range(30)]})
    with pytest.raises(ConfigError, match=r"30 groups, more than 20.*--by age:50"):
        group_names(many, list(range(30)), Grouping("age"))
    words = pa.table({"stay_id": list(range(30)), "ward": [f"ward {i}" for i in range(30)]})
    with pytest.raises(ConfigError, match=r"30 groups, more than 20.*fewer different values"):
        group_names(words, list(range(30)), Grouping("ward"))  # words cannot be cut


def test_a_column_whose_name_holds_a_colon_is_named_and_cut_as_others_are() -> None:
    columns = ["stay_id", "ward:type", "score:24h"]
    assert Grouping.parse("ward:type", columns) == Grouping("ward:type")
    assert Grouping.parse("score:24h:2/4", columns) == Grouping("score:24h", (2.0, 4.0))
