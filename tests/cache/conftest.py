from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def small() -> ModuleType:
    """The module small_store: a small cache, as code and as a program."""
    path = Path(__file__).with_name("small_store.py")
    spec = importlib.util.spec_from_file_location("small_store", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["small_store"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def cache(tmp_path: Path, small: ModuleType) -> Path:
    """A finished small cache."""
    small.build(tmp_path / "cache")
    return tmp_path / "cache"
