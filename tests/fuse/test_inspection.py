"""What a cache can serve, said before anything is trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from cm2.errors import ConfigError
from cm2.fuse.config import MODELS, FuseConfig
from cm2.fuse.inspection import rows_of, served
from cm2.fuse.training.trainer import fuse


def test_every_method_is_served_or_says_why_not(small_cache: Path) -> None:
    data = rows_of(small_cache)
    told = {name: served(name, data) for name in MODELS}
    assert all(row["this cache"].startswith("yes") for row in told.values())
    assert told["single"]["this cache"] == "yes, 1 of 3 modalities at a time"
    assert told["concat"]["this cache"] == "yes"
    assert told["concat"]["not served"] == {}
    assert told["daft"]["this cache"] == "yes"
    assert told["daft"]["not served"]["original"].startswith("model.modulated = map")
    assert all(row["parameters"] > 0 for row in told.values())


def test_what_is_not_served_is_not_trained(small_cache: Path) -> None:
    config = FuseConfig.of({"model": "daft", "preset": "original", "epochs": 1, "hidden": 4})
    with pytest.raises(ConfigError, match=r"cxr has one vector of an item.*--level grid"):
        fuse(config, small_cache)
