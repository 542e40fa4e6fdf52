"""Fixtures every test may use."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and independent test vectors that may lie beside the repository."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("the folder `shared` with real data and test vectors is not beside the project")
    return folder


DEADLY = """
import os, signal, sys
from cm2.cache import atomic
left = int(sys.argv.pop(1))
def step(name):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
atomic.step_hook = step
"""
COMMAND = "from cm2.cli import main; main()"


@pytest.fixture(scope="session")
def killed() -> Callable[..., bool]:
    """Run a program, by default the command line, that is killed before its N-th durable step.

    A step is a write, an fsync or a rename. Tells whether it came so far.
    """

    def run(before: int, *arguments: str, program: str = COMMAND) -> bool:
        words = [sys.executable, "-c", DEADLY + program, str(before), *arguments]
        ended = subprocess.run(words, capture_output=True, text=True, check=False, timeout=300)
        assert ended.returncode in (0, -signal.SIGKILL), ended.stderr
        return ended.returncode != 0

    return run
