"""What a dry run of a sweep tells, held against the sweep itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cm2.fuse.sweep.estimate import estimate
from cm2.fuse.sweep.runner import How, sweep
from cm2.fuse.sweep.spec import sweep_spec

CacheMaker = Callable[..., Path]
HERE = How(jobs=1, device="cpu")


def test_a_dry_run_counts_what_the_sweep_then_makes(make_cache: CacheMaker, tmp_path: Path) -> None:
    cache = make_cache(tmp_path / "cache", modalities=("ehr", "cxr"))
    base = {"fusion_hidden": "4", "copula_dim": "4", "K": "2", "epochs": "2", "batch_size": "32"}
    spec = sweep_spec(base, ["hidden=4,8", "lr=1e-3,3e-2"], {"seeds": "0:1", "keep": 1})
    before = estimate(spec, cache, HERE)
    assert [before[n] for n in ("settings", "runs", "finished")] == [4, 8, 0]
    assert before["groups of one shape"] == 2
    assert before["hours"]["one after another"] == before["hours"]["with 1 at a time"]
    assert before["hours"]["from"].startswith("a few epochs on some rows")
    assert not (cache / "runs").exists()  # nothing was done

    sweep(spec, cache, how=HERE)
    made = [path for path in (cache / "runs").rglob("*") if path.is_file()]
    assert before["files"] == pytest.approx(len(made), rel=0.3)
    assert before["megabytes"] * 1e6 >= sum(path.stat().st_size for path in made)  # few stays
    after = estimate(spec, cache, HERE)
    assert after["finished"] == after["runs"] == 8
    assert after["hours"]["one after another"] == 0
    assert after["hours"]["from"].startswith("finished runs")
