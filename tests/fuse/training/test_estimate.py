"""What a look ahead trains, to say how long an epoch takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cm2.fuse.config import FuseConfig
from cm2.fuse.identity import Inputs
from cm2.fuse.models.interface import pattern_ids
from cm2.fuse.training.estimate import seconds_per_epoch


def test_a_cohort_whose_first_stays_have_no_film_is_timed_all_the_same(small_cache: Path) -> None:
    names = ("ehr", "cxr")
    small = {"hidden": 4, "fusion_hidden": 4, "copula_dim": 2, "K": 2}
    config = FuseConfig.of({"task": "ihm", "modalities": names, **small})
    inputs = Inputs(small_cache)
    identity = inputs.identify(config)
    data = inputs.load(identity)
    available = data.whole.available.clone()
    available[: len(available) // 2, 1] = False
    available[:, 0] = True
    whole = replace(data.whole, available=available, pattern_id=pattern_ids(available))
    seconds = seconds_per_epoch(identity, replace(data, whole=whole), {"train": 40, "val": 10})
    assert seconds > 0
