"""Worker processes: the same index, no orphans, and nothing lost when any of them is killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cm2.fuse.sweep import engine_local
from cm2.fuse.sweep.book import SweepDir
from cm2.fuse.sweep.index import rows
from cm2.fuse.sweep.runner import How, sweep
from cm2.fuse.sweep.spec import SweepSpec, sweep_spec

CacheMaker = Callable[..., Path]
BASE = {"model": "concat", "hidden": "4", "fusion_hidden": "4", "epochs": "10", "patience": "20"}
GRID = ("lr=1e-3,3e-2,1e-2", "dropout=0,0.5")
PROGRAM = "from cm2.cli import main; main()"

pytestmark = [pytest.mark.slow, pytest.mark.fault]


def spec() -> SweepSpec:
    return sweep_spec(BASE, GRID, {"keep": 2})


def command(cache: Path) -> list[str]:
    base = [f"--{name.replace('_', '-')}={value}" for name, value in BASE.items()]
    lines = [word for line in GRID for word in ("--grid", line)]
    fixed = ["--cache", str(cache), "--keep", "2", "--jobs", "2", "--device", "cpu"]
    return [sys.executable, "-c", PROGRAM, "-q", "sweep", *fixed, *base, *lines]


@pytest.fixture(scope="module")
def source(make_cache: CacheMaker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_cache(tmp_path_factory.mktemp("source") / "cache", modalities=("ehr", "cxr"))


@pytest.fixture(scope="module")
def whole(source: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, object]]:
    """What an undisturbed sweep in one process finds, and its bytes."""
    cache = Path(shutil.copytree(source, tmp_path_factory.mktemp("whole") / "cache"))
    return told(sweep(spec(), cache, how=How(jobs=1, device="cpu")))


@pytest.fixture
def cache(source: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(source, tmp_path / "cache"))


def told(found: SweepDir) -> list[dict[str, object]]:
    """The index without its times, with the bytes of predictions and weights."""
    result = []
    for row, member in zip(rows(found), found.roll().members, strict=True):
        files = sorted(
            [*member.run.path.glob("*.safetensors"), *member.run.path.rglob("*.parquet")]
        )
        bytes_of = {file.name: file.read_bytes() for file in files}
        result.append({**row, "seconds": None, "bytes": bytes_of})
    return result


def stored(cache: Path) -> int:
    """Epochs that are stored."""
    return sum(len(p.read_bytes().splitlines()) for p in cache.glob("runs/*/metrics.jsonl"))


def workers_of(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == pid and fields[0] != "Z":
                found.append(int(entry.name))
    return found


def wait_for(ready: Callable[[], object], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def gone(pids: list[int]) -> bool:
    for pid in pids:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                return False
        except OSError:
            continue
    return True


def test_two_processes_find_what_one_finds(cache: Path, whole: list[dict[str, object]]) -> None:
    assert told(sweep(spec(), cache, how=How(jobs=2, device="cpu"))) == whole


def test_the_rungs_of_a_halving_sweep_share_their_processes_and_end_none_behind(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[subprocess.Popen[str]] = []
    start = subprocess.Popen

    def popen(*arguments: object, **options: object) -> subprocess.Popen[str]:
        begun.append(start(*arguments, **options))  # type: ignore[call-overload]
        return begun[-1]

    monkeypatch.setattr(engine_local.subprocess, "Popen", popen)
    found = sweep(sweep_spec(BASE, GRID, {"halving": True}), cache, how=How(jobs=2, device="cpu"))
    assert [row["status"] for row in rows(found)].count("stopped") == 4
    assert len(begun) == 2
    assert all(process.returncode == 0 for process in begun)


def test_a_killed_sweep_leaves_no_orphan_and_ends_with_the_same_bytes(
    cache: Path, whole: list[dict[str, object]]
) -> None:
    for epochs in (3, 20, 40):
        process = subprocess.Popen(command(cache), stdout=subprocess.DEVNULL)
        wait_for(lambda: stored(cache) >= epochs or process.poll() is not None)  # noqa: B023
        workers = workers_of(process.pid)
        process.kill()
        process.wait()
        wait_for(lambda: gone(workers), 20)  # noqa: B023
    done = subprocess.run(command(cache), stdout=subprocess.DEVNULL, check=False)
    assert done.returncode == 0
    (place,) = (cache / "sweeps").iterdir()
    assert told(SweepDir.open(place)) == whole


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_sweep_after_an_epoch_with_its_exit_code(
    cache: Path, whole: list[dict[str, object]], signum: int, code: int
) -> None:
    process = subprocess.Popen(command(cache), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    wait_for(lambda: stored(cache) >= 8)
    workers = workers_of(process.pid)
    assert workers
    process.send_signal(signum)
    _, error = process.communicate(timeout=60)
    assert process.returncode == code, error
    assert b"same command continues" in error
    wait_for(lambda: gone(workers), 20)
    assert not [*cache.glob("runs/*/lease.json")]
    assert told(sweep(spec(), cache, how=How(jobs=1, device="cpu"))) == whole


def test_a_worker_that_is_killed_alone_is_replaced(
    cache: Path, whole: list[dict[str, object]]
) -> None:
    process = subprocess.Popen(command(cache), stdout=subprocess.DEVNULL)
    wait_for(lambda: stored(cache) >= 8)
    os.kill(workers_of(process.pid)[0], signal.SIGKILL)
    assert process.wait(timeout=200) == 0
    (place,) = (cache / "sweeps").iterdir()
    assert told(SweepDir.open(place)) == whole


def test_a_run_whose_workers_always_die_is_listed_and_the_others_are_trained(
    cache: Path, deadly: Callable[[int], None]
) -> None:
    deadly(1)
    found = sweep(spec(), cache, how=How(jobs=2, device="cpu"))
    (reason,) = found.failures().values()
    assert "died 3 times (SIGKILL)" in reason
    status = [row["status"] for row in rows(found)]
    assert status == ["finished", "failed", *["finished"] * 4]
