"""A cache whose films are stored pixel by pixel, and show severity."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from cm2.cache.cohort import Cohort
from cm2.cache.store import EncodedShard, Space, StoreWriter
from cm2.extract.sources.demo import write_demo
from cm2.fuse.config import FuseConfig

SIDE = 24
TINY = {
    "mode": "stream",
    "trunk": ("cxr=resnet8",),
    "modalities": ("ehr", "cxr"),
    "hidden": 8,
    "epochs": 2,
    "batch_size": 24,
    "lr": 1e-2,
    "lr_trunk": 1e-3,
}


CM2 = {"copula_dim": 4, "K": 2, "fusion_hidden": 8}


def options(**others: object) -> FuseConfig:
    own = CM2 if others.get("model", "cm2") == "cm2" else {}
    return FuseConfig.of({**TINY, **own, **others})


def add_pixels(cache: Path, side: int = SIDE) -> Path:
    """Store a film for every item that the cohort links as `cxr`; bright where events are."""
    cohort = Cohort.open(cache)
    random = np.random.default_rng(5)
    films: dict[str, np.ndarray] = {}
    y = [value or 0 for value in cohort.stays["y_ihm"].to_pylist()]
    for event, items in zip(y, cohort.links("cxr").table["items"].to_pylist(), strict=True):
        for item in items or []:
            film = random.integers(0, 120, (side, side))
            film[side // 3 : 2 * side // 3] += 60 * event
            films[item] = film.astype(np.uint8)
    writer = StoreWriter(cache, Space("cxr", "pixels", {"resize": side, "crop": side}), {})
    names = sorted(films)
    for start in range(0, len(names), 16):
        part = names[start : start + 16]
        values = np.stack([films[name] for name in part])
        shard = EncodedShard(part, [f"hash {name}" for name in part], {"values": values}, {}, [])
        writer.commit(f"{start:012x}", shard, dict.fromkeys(part, "1"))
    writer.finish(complete=True)
    return cache


@pytest.fixture(scope="session")
def stream() -> ModuleType:
    """What the tests of streaming share: this file."""
    return sys.modules[__name__]


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic hospital of 70 stays; read only."""
    out = tmp_path_factory.mktemp("hospital")
    write_demo(out, stays=70, seed=1)
    return out


@pytest.fixture(scope="session")
def pixel_cache(make_cache: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """72 stays with a series and, half of them, a film; read only."""
    return add_pixels(make_cache(tmp_path_factory.mktemp("stream") / "cache", 72, ("ehr", "cxr")))
