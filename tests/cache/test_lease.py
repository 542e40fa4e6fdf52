from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cm2.cache import lease
from cm2.cache.lease import Lease
from cm2.errors import BusyError, ConfigError, ResourceError

HOLD = """
import sys, time
from pathlib import Path
from cm2.cache.lease import Lease
with Lease(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""

COMPETE = """
import sys, time
from pathlib import Path
from cm2.cache.lease import Lease
from cm2.errors import BusyError
while time.time() < float(sys.argv[2]):
    pass
try:
    with Lease(Path(sys.argv[1])) as lease:
        time.sleep(1)
        lease.check()
        print("won")
except BusyError:
    print("busy")
"""


def _holder(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def _write(folder: Path, age: float = 0, **change: object) -> Path:
    """A lease file of another host, or of whatever `change` says."""
    content = {
        "host": "elsewhere",
        "machine": "elsewhere",
        "pid": 7,
        "born": "1",
        "since": "2026-01-01T00:00:00+00:00",
        "token": "theirs",
        **change,
    }
    path = folder / Lease.NAME
    path.write_text(json.dumps(content))
    os.utime(path, (time.time() - age, time.time() - age))
    return path


def test_a_lease_is_there_while_it_is_held_and_gone_after(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with Lease(folder) as held:
        content = json.loads(held.path.read_text())
        assert content["pid"] == os.getpid()
        held.check()
    assert list(folder.iterdir()) == []


def test_the_lease_is_given_back_when_the_work_fails(tmp_path: Path) -> None:
    with pytest.raises(ConfigError), Lease(tmp_path):
        raise ConfigError("failed")
    assert list(tmp_path.iterdir()) == []


def test_a_second_process_is_told_who_holds_it_and_since_when(tmp_path: Path) -> None:
    process = _holder(tmp_path)
    try:
        content = json.loads((tmp_path / Lease.NAME).read_text())
        told = f"process {process.pid} on host {content['host']} since {content['since']}"
        with pytest.raises(BusyError) as caught, Lease(tmp_path):
            pytest.fail("two hold it")
        assert told in str(caught.value)
        assert json.loads((tmp_path / Lease.NAME).read_text()) == content
    finally:
        process.kill()
        process.communicate()


def test_the_same_process_cannot_hold_it_twice(tmp_path: Path) -> None:
    with Lease(tmp_path) as held:
        with pytest.raises(BusyError, match=str(os.getpid())), Lease(tmp_path):
            pytest.fail("held twice")
        held.check()


def test_the_lease_of_a_killed_process_is_taken_over_at_once(tmp_path: Path) -> None:
    process = _holder(tmp_path)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert (tmp_path / Lease.NAME).exists()
    with Lease(tmp_path) as held:
        held.check()
    assert list(tmp_path.iterdir()) == []


def test_a_killed_process_that_its_parent_has_not_noticed_is_gone(tmp_path: Path) -> None:
    process = _holder(tmp_path)
    process.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    with Lease(tmp_path) as held:
        held.check()
    process.communicate()


def test_a_process_number_that_was_given_away_again_does_not_keep_the_lease(
    tmp_path: Path,
) -> None:
    _write(tmp_path, machine=lease._machine(), pid=os.getppid(), born="an earlier process")
    with Lease(tmp_path) as held:
        held.check()


def test_another_host_is_believed_until_its_heartbeat_is_too_old(tmp_path: Path) -> None:
    path = _write(tmp_path, age=lease.VOID_SECONDS - 30)
    with pytest.raises(BusyError, match="process 7 on host elsewhere since 2026-01-01"):
        Lease(tmp_path).__enter__()
    assert json.loads(path.read_text())["token"] == "theirs"
    _write(tmp_path, age=lease.VOID_SECONDS + 30)
    with Lease(tmp_path) as held:
        held.check()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff"])
def test_a_lease_that_was_cut_while_written_is_void_after_seconds(
    tmp_path: Path, data: bytes
) -> None:
    path = tmp_path / Lease.NAME
    path.write_bytes(data)
    with pytest.raises(BusyError, match="just starting"):
        Lease(tmp_path).__enter__()
    os.utime(path, (time.time() - 60, time.time() - 60))
    with Lease(tmp_path) as held:
        held.check()


def test_the_heartbeat_renews_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.05)
    with Lease(tmp_path) as held:
        os.utime(held.path, (0, 0))
        deadline = time.monotonic() + 10
        while held.path.stat().st_mtime == 0:
            assert time.monotonic() < deadline, "never renewed"
            time.sleep(0.02)


def test_who_lost_the_lease_is_told_and_does_not_remove_the_new_one(tmp_path: Path) -> None:
    with Lease(tmp_path) as held:
        path = _write(tmp_path)
        with pytest.raises(BusyError, match="taken over: process 7 on host elsewhere"):
            held.check()
    assert json.loads(path.read_text())["token"] == "theirs"


def test_a_folder_that_cannot_be_written_is_a_resource_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError, match="cannot be written"):
        Lease(tmp_path / "file").__enter__()


def test_who_waited_while_another_took_the_void_lease_over_does_not_take_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _write(tmp_path, machine=lease._machine(), pid=os.getppid(), born="an earlier process")
    (tmp_path / "new").mkdir()
    winner = _write(tmp_path / "new", token="winner")

    def wait(file: object, how: int) -> None:
        if winner.exists():
            winner.replace(path)

    monkeypatch.setattr(lease.fcntl, "flock", wait)
    with pytest.raises(BusyError, match="process 7 on host elsewhere"):
        Lease(tmp_path).__enter__()
    assert json.loads(path.read_text())["token"] == "winner"


@pytest.mark.parametrize("stale", [False, True])
def test_of_many_processes_at_once_one_wins(tmp_path: Path, stale: bool) -> None:
    if stale:
        _write(tmp_path, age=lease.VOID_SECONDS + 30)
    begin = str(time.time() + 2)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", COMPETE, str(tmp_path), begin],
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    told = sorted(process.communicate()[0].strip() for process in processes)
    assert told == ["busy", "busy", "busy", "won"]
    assert list(tmp_path.iterdir()) == []
