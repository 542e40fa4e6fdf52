from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from cm2.errors import ConfigError
from cm2.options import as_given, flag, parameters, read_settings, validated, words


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    data: Path = Field(description="root")
    K: int = Field(3, ge=1, description="components")
    lambda_cop: float = Field(1e-2, description="weight")
    copula: Literal["frank", "gumbel"] = Field("frank", description="family")
    modalities: tuple[str, ...] = Field((), description="names")
    limit: int | None = Field(None, description="items")
    deterministic: bool = Field(False, description="same bytes")


def test_every_field_becomes_an_option_named_after_it() -> None:
    names = {parameter.name for parameter in parameters(Settings)}
    assert names == set(Settings.model_fields)
    assert flag("lambda_cop") == "--lambda-cop"


def test_text_from_the_command_line_is_read_as_the_type_of_the_field() -> None:
    settings = validated(
        Settings, {"data": "d", "K": "4", "modalities": ["ehr,cxr", "report"], "limit": None}
    )
    assert settings.K == 4
    assert settings.modalities == ("ehr", "cxr", "report")
    assert settings.limit is None


def test_an_item_with_an_equals_sign_keeps_its_commas() -> None:
    assert validated(Settings, {"data": "d", "modalities": ["a=b,c"]}).modalities == ("a=b,c",)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, "--data must be given"),
        ({"data": "d", "copula": "franc"}, "Did you mean 'frank'?"),
        ({"data": "d", "K": "0"}, "--K"),
        ({"data": "d", "limit": "many"}, "--limit"),
        ({"data": "d", "lamda_cop": "1"}, "Did you mean 'lambda_cop'?"),
    ],
)
def test_a_wrong_value_is_named_with_its_remedy(values: dict[str, object], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected.replace("?", r"\?")):
        validated(Settings, values)


def test_assignments_win_over_the_settings_file(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("K = 2\nlambda_cop = 1e-6\n")
    assert read_settings(file, ["K=5"]) == {"K": "5", "lambda_cop": 1e-6}


@pytest.mark.parametrize("text", ["K 2", "= ["])
def test_a_file_that_is_no_toml_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match="TOML"):
        read_settings(file, [])


def test_an_assignment_without_equals_sign_is_refused() -> None:
    with pytest.raises(ConfigError, match="NAME=VALUE"):
        read_settings(None, ["K"])


class Inner(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    formulas: bool = Field(False, description="a switch")
    draws: bool = Field(False, description="another")


class Outer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    K: int = Field(3, description="components")
    published: Inner = Field(Inner(), description="nested")


def test_dotted_names_set_what_is_nested(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("K = 2\n[published]\ndraws = true\n")
    given = read_settings(file, ["published.formulas=true", "K=4"])
    settings = validated(Outer, given)
    assert settings.published == Inner(formulas=True, draws=True)
    assert settings.K == 4
    assert {parameter.name for parameter in parameters(Outer)} == {"K"}


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("publshed.formulas=true", "Did you mean 'published'?"),
        ("published.formula=true", "Did you mean 'published.formulas'?"),
        ("published.formulas=maybe", "--set published.formulas: "),
        ("published=true", "--published: "),
    ],
)
def test_a_wrong_nested_name_or_value_is_named_whole(assignment: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected.replace("?", r"\?")):
        validated(Outer, read_settings(None, [assignment]))


def test_a_value_has_no_parts() -> None:
    with pytest.raises(ConfigError, match="has a value, '4', and no parts"):
        read_settings(None, ["K=4", "K.first=5"])


def test_lists_as_typed_are_split_and_what_was_not_given_is_left_out() -> None:
    typed = {"modalities": ["ehr,cxr@0123", "report"], "trunk": ["cxr=a,b"], "lr": None, "drop": []}
    assert as_given(typed) == {
        "modalities": ("ehr", "cxr@0123", "report"),
        "trunk": ("cxr=a,b",),
    }


def test_a_part_of_a_list_with_a_comma_stands_in_double_quotes() -> None:
    assert words("") == ()
    assert words("sex,age:40/65") == ("sex", "age:40/65")
    assert words('sex, "age, years":40/65') == ("sex", "age, years:40/65")
    with pytest.raises(ConfigError, match="on one line"):
        words("sex\nage")
