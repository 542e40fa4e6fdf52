"""Workers that die."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from cm2.fuse.sweep import engine_local

DEADLY = """
import os, signal
from cm2.fuse.sweep import process, work
class Worker(work.Worker):
    def work(self, tasks, stop):
        if any(task.index == {index} for task in tasks):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().work(tasks, stop)
process.Worker = Worker
process.main()
"""


@pytest.fixture
def deadly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let every worker process die that is given the run of a number."""

    def make(index: int) -> None:
        script = tmp_path / "deadly.py"
        script.write_text(DEADLY.format(index=index))
        start = subprocess.Popen

        def popen(arguments: list[str], **options: object) -> subprocess.Popen[str]:
            return start([arguments[0], str(script)], **options)  # type: ignore[call-overload]

        monkeypatch.setattr(engine_local.subprocess, "Popen", popen)

    return make
