"""Modalities taken away by severity, and what cannot be taken away."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from cm2.fuse.config import FuseConfig
from cm2.fuse.data import load

CacheMaker = Callable[..., Path]


def test_whoever_keeps_a_modality_by_severity_is_sicker_in_every_split(
    make_cache: CacheMaker, tmp_path: Path
) -> None:
    cache = make_cache(tmp_path, stays=900)
    data = load(cache, FuseConfig(modalities=("ehr", "report"), drop=("report=0.5:severity",)))
    for split in ("train", "val", "test"):
        rows = data.rows(split)
        kept = data.whole.available[rows][:, 1].numpy()
        y = data.labels(rows)[:, 0].numpy()
        assert y[kept].mean() > y[~kept].mean() + 0.1


def test_a_modality_read_alone_is_not_withheld_however_it_is_asked(
    make_cache: CacheMaker, tmp_path: Path
) -> None:
    cache = make_cache(tmp_path)
    for how in ("report=0.5", "report=0.5:severity"):
        data = load(cache, FuseConfig(modalities=("report",), drop=(how,)))
        whole = load(cache, FuseConfig(modalities=("report",)))
        assert np.array_equal(data.whole.available, whole.whole.available)
