"""Caches that look like the paper's data sets, and requests that train in a moment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cm2.fuse.reproduce.expand import Request

QUICK: dict[str, Any] = {"epochs": 1, "hidden": 8, "fusion_hidden": 8, "copula_dim": 4, "K": 2}


@pytest.fixture(scope="session")
def iv(tmp_path_factory: pytest.TempPathFactory, make_cache: Callable[..., Path]) -> Path:
    """A cache of MIMIC-IV's shape: series and films."""
    folder = tmp_path_factory.mktemp("iv") / "cache"
    return make_cache(folder, modalities=("ehr", "cxr"), dataset="mimic4")


@pytest.fixture(scope="session")
def iii(tmp_path_factory: pytest.TempPathFactory, make_cache: Callable[..., Path]) -> Path:
    """A cache of MIMIC-III's shape: series and notes."""
    folder = tmp_path_factory.mktemp("iii") / "cache"
    return make_cache(folder, modalities=("ehr", "note"), dataset="mimic3", seed=5)


@pytest.fixture
def asking() -> Callable[..., Request]:
    """Make a request of quick runs."""

    def make(*caches: Path, **parts: Any) -> Request:
        options = {**QUICK, **parts.pop("options", {})}
        return Request(caches, tasks=parts.pop("tasks", ("ihm",)), options=options, **parts)

    return make
