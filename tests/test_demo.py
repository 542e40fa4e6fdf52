from __future__ import annotations

from pathlib import Path

import pytest

from cm2.demo import MODELS, SMALL, run_demo
from cm2.fuse.config import FuseConfig


@pytest.mark.parametrize("name", MODELS)
def test_every_model_of_the_demo_reads_the_options_that_it_is_given(name: str) -> None:
    config = FuseConfig.of({"task": "ihm", **SMALL, **MODELS[name]})
    assert config.model == MODELS[name]["model"]


@pytest.mark.slow
def test_the_demo_ends_with_a_table_of_every_model_and_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SMALL, "epochs", 3)
    result = run_demo(tmp_path, stays=120)
    assert all(name in result.table for name in MODELS)
    assert "Holm" in result.table
    assert result.report is not None
    assert result.report.read_text().lstrip().startswith("<!doctype html>")
