from __future__ import annotations

import subprocess
import sys
from typing import get_args

import pytest

from cm2.errors import ConfigError
from cm2.fuse.config import COPULAS, FuseConfig


def test_an_unknown_option_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'copula'"):
        FuseConfig.of({"copla": "frank"})


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"copula": "franc"}, "Did you mean 'frank'"),
        ({"model": "concatt"}, "Did you mean 'concat'"),
        ({"K": 0}, "Option K = 0"),
        ({"dropout": 1.0}, "Option dropout"),
        ({"modalities": ["ehr", "ehr@abc"]}, "distinct"),
        ({"coupling": "kendall", "K": 2}, "needs K = 1, found K = 2"),
        ({"coupling": "joint", "copula_params": "per-dim"}, "copula_params must be shared"),
        ({"coupling": "joint", "impute": "conditional"}, "which offers marginal"),
        ({"coupling": "component", "impute": "conditional-mean"}, "marginal and conditional"),
    ],
)
def test_an_impossible_value_is_one_clear_sentence(options: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match=text) as caught:
        FuseConfig.of(options)
    assert "\n" not in str(caught.value)


def test_every_option_has_a_meaning() -> None:
    assert all(field.description for field in FuseConfig.model_fields.values())


def test_the_names_of_the_copulas_agree() -> None:
    assert get_args(FuseConfig.model_fields["copula"].annotation) == COPULAS


def test_the_configuration_imports_nothing_heavy() -> None:
    code = (
        "import sys, cm2.fuse.config;"
        "bad = {'torch', 'polars', 'numpy', 'pyarrow'} & set(sys.modules);"
        "sys.exit(str(bad) if bad else 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"align": "none", "lambda_align": 0.2}, "lambda_align .* does nothing"),
        ({"align": "cosine", "align_temperature": 0.1}, "align_temperature does nothing"),
        ({"align": "none", "align_pairs": "pairs"}, "align_pairs does nothing"),
        ({"projection": "cca", "copula_dim": 0}, "has no projection"),
        ({"hidden": 8}, "copula_dim = 16 is wider than the embedding, hidden = 8"),
        ({"objective": "elbo", "align": "cosine"}, "align must be copula"),
        ({"objective": "paper", "align_pairs": "pairs"}, "align_pairs must be all"),
        ({"objective": "paper", "model": "concat"}, "nothing with model = 'concat'"),
        ({"K": 4, "model": "concat"}, "K does nothing with model = 'concat'"),
        ({"impute": "mean", "align": "none", "model": "late"}, "align and impute do nothing"),
        ({"published": {"two_tokens": True}, "model": "late"}, "published.two_tokens does"),
        ({"fusion_hidden": 8, "model": "late"}, "fusion_hidden does nothing"),
        ({"model": "mmtm", "options": {"gate_scal": 2}}, "Did you mean 'gate_scale'"),
        ({"model": "mmtm", "options": {"gate_scale": 9}}, "model.gate_scale = 9"),
        ({"model": "mmtm", "options": {"pairing": "join"}}, "Did you mean 'joint'"),
        ({"options": {"gate_scale": 2}}, "Unknown option of cm2 'gate_scale'"),
        ({"objective": "elbo", "coupling": "joint"}, "use rosenblatt"),
        ({"published": {"formulas": True}, "copula": "clayton"}, "published.formulas=false"),
        ({"published": {"raw_space": True}}, "needs copula_dim = 0"),
        (
            {"published": {"raw_space": True}, "copula_dim": 0, "impute": "mean"},
            "published.raw_space does not keep",
        ),
        ({"published": {"averaged_draws": True}}, "published.averaged_draws=false"),
        ({"published": {"detached_draws": True}}, "published.detached_draws=false"),
        ({"published": {"imputed_likelihood": True}}, "published.imputed_likelihood=false"),
        ({"published": {"formula": True}}, "Did you mean 'published.formulas'"),
        ({"published": {"formulas": "maybe"}}, "Option published.formulas"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(options: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match=text) as caught:
        FuseConfig.of(options)
    assert "\n" not in str(caught.value)


def test_a_text_is_a_list_as_on_the_command_line() -> None:
    config = FuseConfig.of({"modalities": "ehr, cxr", "drop": "cxr=0.5"})
    assert config.modalities == ("ehr", "cxr")
    assert config.drop == ("cxr=0.5",)
