from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from cm2.errors import ConfigError
from cm2.extract.config import MODALITIES, ExtractConfig
from cm2.options import validated


@pytest.mark.parametrize("name", ["cohort", "dataset_name"])
def test_a_name_with_a_blank_is_told_what_a_name_may_hold(name: str) -> None:
    with pytest.raises(ConfigError, match="letters, digits, '_', '-' or"):
        validated(ExtractConfig, {"data": "x", name: "my own"})


def test_a_share_of_rejects_may_be_written_in_percent() -> None:
    assert ExtractConfig(data="x", max_reject="0.1%").max_reject == pytest.approx(0.001)
    assert ExtractConfig(data="x", max_reject="0.02").max_reject == pytest.approx(0.02)


def test_modalities_may_be_repeated_or_joined_and_all_means_all() -> None:
    assert ExtractConfig(data="x", modality="ehr,cxr").modality == ("ehr", "cxr")
    assert ExtractConfig(data="x", modality=["cxr", "cxr"]).modality == ("cxr",)
    assert ExtractConfig(data="x", modality="all").modality == MODALITIES


@pytest.mark.parametrize(
    "bad",
    [
        {"modality": "ecg"},
        {"modality": ""},
        {"max_reject": "200%"},
        {"cohort": "../up"},
        {"cohort": "my cohort"},
        {"dataset_name": "my hospital"},
        {"step_hours": -1},
        {"until_hours": 49},
        {"readm_rule": "any"},
        {"stepp_hours": 1},
    ],
)
def test_impossible_options_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(bad))):
        ExtractConfig(data="x", **bad)


def test_every_option_says_what_it_means() -> None:
    for name, field in ExtractConfig.model_fields.items():
        assert field.description, name


def test_the_configuration_imports_nothing_heavy() -> None:
    code = (
        "import sys, cm2.extract.config; "
        "print([m for m in ('torch','polars','pyarrow','numpy','h5py') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
