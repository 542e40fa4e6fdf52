"""Options that the kind of source would leave unread are refused before anything is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cm2.errors import ConfigError
from cm2.extract.config import ExtractConfig
from cm2.extract.route import open_route

TREE = {"from_tree": "tree"}
OWN = {"stays": "stays.csv", "modality": ("labs=labs.csv",)}
TABLES = {"data": "tables"}


@pytest.mark.parametrize(
    ("source", "option", "value"),
    [
        (TREE, "readm_rule", "hospital"),
        (TREE, "death_rule", "dod"),
        (TREE, "stays", "stays.csv"),
        (TREE, "subject_is_stay", True),
        (TREE, "encoder", "resnet18"),
        (OWN, "readm_rule", "hospital"),
        (OWN, "death_rule", "dod"),
        (TABLES, "subject_is_stay", True),
        (TABLES, "dataset_name", "ours"),
    ],
)
def test_an_option_of_another_kind_of_source_is_refused_not_ignored(
    source: dict[str, Any], option: str, value: Any, tmp_path: Path
) -> None:
    config = ExtractConfig(**source, cache=tmp_path / "cache", **{option: value})
    with pytest.raises(ConfigError, match=f"--{option.replace('_', '-')} would change nothing"):
        open_route(config)
    assert not (tmp_path / "cache").exists()


def test_weights_for_the_series_of_a_tree_that_are_of_no_run_are_refused(tmp_path: Path) -> None:
    config = ExtractConfig(**TREE, cache=tmp_path / "cache", weights=("random:0",))
    with pytest.raises(ConfigError, match="--weights: the series of a tree"):
        open_route(config)
