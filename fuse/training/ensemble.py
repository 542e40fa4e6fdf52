"""Many configurations of one shape trained at once, each to a run directory of its own.

A member ends as the single run of its configuration would (to rounding), is committed after
every epoch like one, and may be continued by one, or continue one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from ...cache.layout import RUNS
from ...cache.lease import Lease
from ...errors import CM2Error, UnsupportedError
from ...progress import Progress, Stop, never, silent
from ..config import FuseConfig
from ..identity import Identity, Inputs
from ..rows import FusionData
from ..rundir import RunDir
from . import trainer
from .course import Course
from .device import choose
from .finish import finish
from .loop import reproducible
from .mapped import Mapped, reason
from .shapes import FREE, shape_key, unmappable
from .state import Commits

_log = logging.getLogger("cm2.fuse")

Item = tuple[RunDir, Identity]
T = TypeVar("T")


class Outcome(NamedTuple):
    """What became of a member.

    Attributes:
        run: Its directory.
        error: Why it did not finish; None if it did.
    """

    run: RunDir
    error: CM2Error | None


class _Member:
    """A run that this process holds, from its lease to its last file.

    Raises:
        CM2Error: The run cannot be held, begun or continued.
    """

    def __init__(
        self, run: RunDir, identity: Identity, data: FusionData, sweep: str | None
    ) -> None:
        trainer.require_same(run, identity)
        self.run, self.identity, self.data = run, identity, data
        self.lease = Lease(run.path)
        self.lease.__enter__()
        try:
            trainer.require_same_version(run)
            self.warnings = trainer.begin(run, identity, data, sweep)
            self.seconds = float(run.info["seconds"])
            journal = Commits(run, identity.digest, self.lease.check)
            self.course = Course.open(identity.config, data, journal, identity.starts)
            if self.course.state.partial:
                raise UnsupportedError(
                    f"{run.path} was stopped within an epoch, and an ensemble continues whole "
                    "ones. Give its `cm2 fuse` command again: it continues there."
                )
        except BaseException:
            self.lease.__exit__(None, None, None)
            raise

    def finish(self) -> None:
        """Write the files of a finished run."""
        with reproducible(self.identity.config.deterministic):
            self.run.write_history(self.course.state.history)
            self.lease.check()
            finish(self.run, self.data, self.course.state, self.identity)
        self.run.update(seconds=round(self.seconds, 3))
        trainer.conclude(self.run)

    def close(self) -> None:
        """Let go of the run, finished or not."""
        if not self.run.finished:
            self.run.update(seconds=round(self.seconds, 3))
        self.lease.__exit__(None, None, None)


def train_ensemble(
    configs: Sequence[FuseConfig],
    cache: Path,
    outs: Sequence[Path] | None = None,
    *,
    device: str = "auto",
    chunk: int | None = None,
    progress: Progress = silent,
    stop: Stop | None = None,
    inputs: Inputs | None = None,
    until: int | None = None,
    sweep: str | None = None,
) -> list[Outcome]:
    """Train runs of one shape together; finished ones are taken as they are.

    Args:
        configs: What to train, all with one `shape_key`.
        cache: Where the embeddings are.
        outs: Directories of the runs; by default those of `trainer.fuse`.
        device: See `trainer.fuse`.
        chunk: Runs that are trained at a time; by default as many as memory allows.
        progress: Counts epochs of all runs.
        stop: Asked after every epoch of all runs.
        inputs: See `trainer.fuse`, as `until` and `sweep`.
        until: Pause every run after so many epochs.
        sweep: The sweep that trains the runs and may drop their weights.

    Returns:
        What became of each, in the order of `configs`. A run that fails (its training or its
        validation is no longer finite, another process holds it, its directory holds something
        else) harms no other.

    Raises:
        UnsupportedError: The configurations cannot be mapped, or have several shapes.
        DataError: There is nothing to train or to choose by.
        Interrupted: A stop was requested; the same call continues.
    """
    _require_one_shape(configs)
    inputs = inputs or Inputs(cache)
    identities = [inputs.identify(config) for config in configs]
    places = outs or [cache / RUNS / identity.name for identity in identities]
    runs = {path: (RunDir(path), one) for path, one in zip(places, identities, strict=True)}
    errors: dict[Path, CM2Error] = {}
    waiting = [item for item in runs.values() if not _taken(*item, sweep, errors)]
    if waiting:
        stop = stop or never()
        config = waiting[0][1].config
        data = inputs.load(waiting[0][1]).to(choose(device))
        if chunk is None:
            from .memory import largest_chunk

            chunk = largest_chunk([one.config for _, one in waiting], data)
        total = sum(one.config.epochs for _, one in waiting)
        title = f"fuse {config.model} x {len(waiting)}"
        with progress(title, total, "epochs") as advance, reproducible(config.deterministic):
            for start in range(0, len(waiting), chunk):
                part = waiting[start : start + chunk]
                _Chunk(part, data, errors, until, sweep).train(advance, stop)
    return [Outcome(runs[path][0], errors.get(path)) for path in places]


class _Chunk:
    """Runs that are trained at a time.

    Args:
        waiting: Runs that are not finished.
        data: Their rows.
        errors: Takes what went wrong, by directory.
        until: Pause after so many epochs.
        sweep: The sweep that trains the runs.
    """

    def __init__(
        self,
        waiting: Sequence[Item],
        data: FusionData,
        errors: dict[Path, CM2Error],
        until: int | None,
        sweep: str | None,
    ) -> None:
        self.waiting, self.data, self.errors = waiting, data, errors
        self.until, self.sweep = until, sweep
        self.members: dict[int, _Member] = {}  # by course

    def train(self, advance: Callable[[int], None], stop: Stop) -> None:
        """Train all to their ends."""
        try:
            self._open(advance)
            courses = [member.course for member in self.members.values()]
            if courses:
                self._epochs(Mapped(courses, self.data, self._fail), advance, stop)
        finally:
            for member in self.members.values():
                member.close()

    def _open(self, advance: Callable[[int], None]) -> None:
        said: dict[str, None] = {}
        for run, identity in self.waiting:
            try:
                member = _Member(run, identity, self.data, self.sweep)
            except CM2Error as error:
                self.errors[run.path] = error
                continue
            self.members[id(member.course)] = member
            said |= dict.fromkeys(member.warnings)
            advance(member.course.epoch - 1)
        for line in said:
            _log.warning(line)

    def _epochs(self, mapped: Mapped, advance: Callable[[int], None], stop: Stop) -> None:
        first = mapped.courses[0].config.published.validate_first
        while self._compact(mapped):
            clock = time.monotonic()
            judged = _asked(mapped, mapped.judge) if first else {}
            losses = _asked(mapped, mapped.train_epoch)
            figures = _asked(mapped, mapped.refresh)
            if not first:
                judged = _asked(mapped, mapped.judge)
            if not mapped.courses:
                break
            for course in mapped.courses:
                own = id(course)
                try:
                    course.commit(losses[own], judged[own], figures[own])
                except CM2Error as error:  # another process took the run over
                    self._fail(course, error)
            share = (time.monotonic() - clock) / len(mapped.courses)
            for course in mapped.courses:
                if id(course) in self.members:
                    self.members[id(course)].seconds += share
                    advance(1)
            stop.check(f"an epoch of {len(self.members)} runs is stored")

    def _compact(self, mapped: Mapped) -> bool:
        """Finish the members whose training has ended, let go of paused ones; is any left?"""
        left = []
        for e, course in enumerate(mapped.courses):
            if id(course) not in self.members:
                continue
            paused = self.until is not None and course.epoch > self.until
            if not course.ended and not paused:
                left.append(e)
                continue
            try:
                if course.ended:
                    with course.watched():
                        self.members[id(course)].finish()
            except Exception as error:
                self._fail(course, reason(course, error))
            else:
                self.members.pop(id(course)).close()
        if len(left) < len(mapped.courses):
            mapped.keep(left)
        return bool(left)

    def _fail(self, course: Course, error: CM2Error) -> None:
        member = self.members.pop(id(course))
        self.errors[member.run.path] = error
        member.close()


def _asked(mapped: Mapped, ask: Callable[[], Sequence[T]]) -> dict[int, T]:
    """What a step of an epoch says of every member that is left after it, by course."""
    found = ask() if mapped.courses else ()
    return {id(course): row for course, row in zip(mapped.courses, found, strict=True)}


def _require_one_shape(configs: Sequence[FuseConfig]) -> None:
    for config in configs:
        if reason := unmappable(config):
            raise UnsupportedError(f"Not a member of an ensemble: {reason}.")
    if len({shape_key(config) for config in configs}) > 1:
        raise UnsupportedError(
            "Members of an ensemble have one shape: they may differ in "
            f"{', '.join(sorted(FREE))} and K, and in nothing else. Group them by shape_key."
        )


def _taken(
    run: RunDir, identity: Identity, sweep: str | None, errors: dict[Path, CM2Error]
) -> bool:
    """Whether there is nothing to train: the run is finished, or its directory is another's."""
    try:
        trainer.require_same(run, identity)
    except CM2Error as error:
        errors[run.path] = error
        return True
    return trainer.serves(run, sweep)


__all__ = ["Outcome", "train_ensemble"]
