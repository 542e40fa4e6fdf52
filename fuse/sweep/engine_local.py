"""Train runs on this machine: in this process, or in several with one piece of work at a time.

Processes have one thread each, which beats several threads on one run by far. Each starts, and
reads the cache, once. One that dies is replaced, and its run begun again.
"""

from __future__ import annotations

import json
import logging
import os
import selectors
import signal
import subprocess
import sys
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Self

from ...errors import Interrupted
from ...progress import Stop
from ..identity import Inputs
from .work import ATTEMPTS, Context, May, Outcome, Task, Worker

_TICK = 0.5  # seconds between two looks at the stop

Piece = Sequence[Task]
"""Runs that one worker trains together; most often one."""


class Workers:
    """Whoever trains runs on this machine; kept, with what they have read, until closed.

    Args:
        context: What workers must know.
        jobs: Processes; 1 trains in this one.
    """

    def __init__(self, context: Context, jobs: int) -> None:
        self.context, self.jobs = context, jobs
        self._here: Worker | None = None
        self._pool: _Pool | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def compute(self, tasks: Sequence[Task], may: May, stop: Stop) -> Iterator[Outcome]:
        """Train every run by itself; see `compute_pieces`.

        Args:
            tasks: Runs to train.
            may: Asked before a run is begun.
            stop: Looked at all the time.
        """
        return self.compute_pieces([[task] for task in tasks], may, stop)

    def inputs(self) -> Inputs:
        """The cache; kept if this process trains, else its rows would lie here for nothing."""
        return self._worker().inputs if self.jobs == 1 else Inputs(Path(self.context.cache))

    def _worker(self) -> Worker:
        self._here = self._here or Worker(self.context)
        return self._here

    def compute_pieces(self, pieces: Sequence[Piece], may: May, stop: Stop) -> Iterator[Outcome]:
        """Yield the outcome of every task, in any order.

        Args:
            pieces: Runs to train; those of one piece are trained together.
            may: Asked before a piece is begun.
            stop: Looked at all the time; once it is requested, runs stop after their epoch.

        Raises:
            Interrupted: A stop was requested.
            ResourceError: Disk, memory or device is exhausted.
            IntegrityError: A file of the cache is not what was written.
        """
        if self.jobs == 1:
            yield from _here(pieces, self._worker(), may, stop)
            return
        self._pool = self._pool or _Pool(self.context, self.jobs)
        try:
            yield from self._pool.run(pieces, may, stop)
        except BaseException:  # processes may still be at work
            self.close()
            raise

    def close(self) -> None:
        """End every process: idle ones by themselves, others at once."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None


def _here(pieces: Sequence[Piece], worker: Worker, may: May, stop: Stop) -> Iterator[Outcome]:
    for piece in pieces:
        if not may():
            return
        stop.check("every finished epoch is stored")
        with quiet():
            outcomes = worker.work(piece, stop)
        for outcome in outcomes:
            outcome.raise_fatal()
            if outcome.kind == "stopped":
                raise Interrupted(outcome.reason, outcome.exit_code)
        yield from outcomes


@contextmanager
def quiet() -> Iterator[None]:
    """Leave warnings to run.json: a sweep says each of them once."""
    logger = logging.getLogger("cm2.fuse")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


class _Pool:
    """Worker processes and what each is doing."""

    def __init__(self, context: Context, jobs: int) -> None:
        self._context = context
        self._jobs = jobs
        self._doing: dict[subprocess.Popen[str], Piece | None] = {}
        self._selector = selectors.DefaultSelector()
        self._begun: Counter[int] = Counter()

    def run(self, pieces: Sequence[Piece], may: May, stop: Stop) -> Iterator[Outcome]:
        waiting = deque(pieces)
        self._begun.clear()
        refusal: Interrupted | None = None
        while waiting or any(self._doing.values()):
            if refusal is None:
                try:
                    stop.check("every finished epoch is stored")
                except Interrupted as error:
                    refusal = error
                    self._ask_to_stop()
            if refusal is not None or not may():
                waiting.clear()
            self._hand_out(waiting)
            for key, _ in self._selector.select(_TICK):
                for outcome in self._hear(key.data, waiting, final=refusal is not None):
                    outcome.raise_fatal()
                    if outcome.kind != "stopped":
                        yield outcome
        if refusal is not None:
            raise refusal

    def _hand_out(self, waiting: deque[Piece]) -> None:
        for process, piece in list(self._doing.items()):
            if waiting and piece is None:
                self._give(process, waiting.popleft())
        while waiting and len(self._doing) < self._jobs:
            self._give(self._start(), waiting.popleft())

    def _give(self, process: subprocess.Popen[str], piece: Piece) -> None:
        self._doing[process] = piece
        self._begun[piece[0].index] += 1
        self._tell(process, json.dumps([task.to_json() for task in piece]))

    def _hear(
        self, process: subprocess.Popen[str], waiting: deque[Piece], final: bool
    ) -> list[Outcome]:
        assert process.stdout is not None
        line = process.stdout.readline()
        piece = self._doing[process]
        if line.endswith("\n"):
            self._doing[process] = None
            return [Outcome(**content) for content in json.loads(line)]
        self._selector.unregister(process.stdout)
        code = process.wait()
        del self._doing[process]
        _close(process)
        if piece is None or final:
            return []
        if self._begun[piece[0].index] < ATTEMPTS:
            waiting.appendleft(piece)
            return []
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        reason = (
            f"Its worker died {ATTEMPTS} times ({how}). Perhaps memory is short: lower --jobs or "
            "--batch-size, then give --retry."
        )
        return [Outcome(task.index, "failed", reason) for task in piece]

    def _start(self) -> subprocess.Popen[str]:
        one = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        process = subprocess.Popen(
            [sys.executable, "-m", f"{__package__}.process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            env={**os.environ, **one},
            start_new_session=True,  # a terminal's Ctrl-C comes to this process alone
        )
        self._selector.register(process.stdout, selectors.EVENT_READ, process)  # type: ignore[arg-type]
        self._doing[process] = None
        self._tell(process, json.dumps(asdict(self._context)))
        return process

    def _tell(self, process: subprocess.Popen[str], line: str) -> None:
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # it died; its output ends, and that is noticed
            process.stdin.write(line + "\n")

    def _ask_to_stop(self) -> None:
        for process, piece in self._doing.items():
            if piece is not None:
                process.terminate()

    def close(self) -> None:
        """End every process: idle ones by themselves, others at once."""
        for process, piece in self._doing.items():
            if piece is not None:
                process.kill()
            assert process.stdin is not None
            with suppress(BrokenPipeError):
                process.stdin.close()
        for process in self._doing:
            process.wait()
            _close(process)
        self._selector.close()


def _close(process: subprocess.Popen[str]) -> None:
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        with suppress(BrokenPipeError):
            pipe.close()


__all__ = ["Piece", "Workers", "quiet"]
