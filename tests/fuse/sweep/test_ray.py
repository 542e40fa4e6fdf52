"""A sweep on a Ray of two local workers ends with the index of a local one."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cm2.fuse.config import FuseConfig
from cm2.fuse.sweep.book import SweepDir
from cm2.fuse.sweep.index import rows
from cm2.fuse.sweep.runner import How, sweep
from cm2.fuse.sweep.spec import sweep_spec
from cm2.fuse.training.trainer import fuse

CacheMaker = Callable[..., Path]
pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed"),
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),
]
BASE = {"model": "concat", "hidden": "4", "fusion_hidden": "4", "epochs": "8", "patience": "20"}
SPEC = sweep_spec(BASE, ["lr=1e-3,3e-2", "dropout=0,0.5"], {"keep": 1})


def told(found: SweepDir) -> list[dict[str, object]]:
    result = []
    for row, member in zip(rows(found), found.roll().members, strict=True):
        files = sorted(
            [*member.run.path.glob("*.safetensors"), *member.run.path.rglob("*.parquet")]
        )
        bytes_of = {file.name: file.read_bytes() for file in files}
        result.append({**row, "seconds": None, "bytes": bytes_of})
    return result


@pytest.fixture(scope="module")
def source(make_cache: CacheMaker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_cache(tmp_path_factory.mktemp("source") / "cache", modalities=("ehr", "cxr"))


@pytest.fixture(scope="module")
def whole(source: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, object]]:
    cache = Path(shutil.copytree(source, tmp_path_factory.mktemp("whole") / "cache"))
    return told(sweep(SPEC, cache, how=How(jobs=1, device="cpu")))


def test_two_ray_workers_find_what_one_process_finds_though_one_is_killed(
    source: Path, whole: list[dict[str, object]], tmp_path: Path
) -> None:
    cache = Path(shutil.copytree(source, tmp_path / "cache"))
    killed: list[int] = []

    def kill_a_worker() -> None:
        while not killed:
            for lease in cache.glob("runs/*/lease.json"):
                history = lease.parent / "metrics.jsonl"
                if history.is_file():
                    pid = json.loads(lease.read_text())["pid"]
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)
                    return
            time.sleep(0.01)

    thread = threading.Thread(target=kill_a_worker, daemon=True)
    thread.start()
    found = sweep(SPEC, cache, how=How("ray", 2, "cpu"))
    thread.join(5)
    assert killed
    assert killed[0] != os.getpid()
    assert told(found) == whole


def test_paths_of_settings_count_from_where_the_sweep_was_asked_for(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    cache = Path(shutil.copytree(source, tmp_path / "cache"))
    alone = {"model": "single", "modalities": ("ehr",), "hidden": 4, "epochs": 1}
    fuse(FuseConfig.of(alone), cache, tmp_path / "r")
    base = {**BASE, "epochs": "1", "init": ("ehr=r",)}
    spec = sweep_spec(base, ["lr=1e-3,3e-2"], {})
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)  # workers are where it began
    try:
        monkeypatch.chdir(tmp_path)
        found = sweep(spec, cache, how=How("ray", 1, "cpu"))
    finally:
        ray.shutdown()
    assert not found.failures()
