"""Joining a Ray cluster: what is said where that fails."""

from __future__ import annotations

import importlib.util
import sys

import pytest

from cm2.cluster import joined
from cm2.errors import ConfigError


def test_without_ray_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'cm2\[ray\]'"), joined(1, ""):
        pass


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")
@pytest.mark.filterwarnings("ignore")
def test_a_cluster_that_does_not_answer_is_no_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    def refused(**_: object) -> None:
        raise ConnectionError("ray client connection timeout")

    monkeypatch.setattr(ray, "init", refused)
    monkeypatch.setenv("RAY_ADDRESS", "192.0.2.1:6379")
    with pytest.raises(ConfigError, match=r"at 192\.0\.2\.1:6379"), joined(1, ""):
        pass
