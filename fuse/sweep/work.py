"""Runs of a sweep as pieces of work, and who does them: the part that every engine shares."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

from ...errors import BusyError, CM2Error, IntegrityError, Interrupted, ResourceError
from ...progress import Stop
from ..config import FuseConfig
from ..identity import Inputs
from ..methods.own import OWN, load_file, source

Kind = Literal["finished", "paused", "busy", "failed", "stopped", "fatal"]
ATTEMPTS = 3
"""How often a run is begun whose workers die."""


@dataclass(frozen=True)
class Context:
    """What every worker must know.

    Attributes:
        cache: The cache.
        device: Where runs are trained.
        sweep: Identity of the sweep that may drop the weights of its runs; None if they are kept.
    """

    cache: str
    device: str
    sweep: str | None


@dataclass(frozen=True)
class Task:
    """One run to train.

    Attributes:
        index: Its number among the runs of the sweep.
        config: What to train.
        until: Pause after so many epochs, or None.
    """

    index: int
    config: FuseConfig
    until: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Write it for another process, with the place of a method of the user's own."""
        config = self.config.model_dump(mode="json")
        own = dict(source(self.config.model) or {})
        return {"index": self.index, "config": config, "until": self.until, "source": own}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote, and load the method.

        Raises:
            ConfigError: The file of the method is not here.
            IntegrityError: It has changed since the task was given out.
        """
        name, own = content["config"]["model"], content["source"]
        if own and name not in OWN:
            kind = name.partition("@")[0].rpartition(":")[2]
            load_file(f"{own['path']}:{kind}", own["sha256"])
        return cls(content["index"], FuseConfig.of(content["config"]), content["until"])


@dataclass(frozen=True)
class Outcome:
    """What became of a task.

    Attributes:
        index: Number of the task.
        kind: finished, paused (`until` is reached), busy (another process has the run), failed,
            stopped (on request), or fatal: what ails this run would ail them all.
        reason: Why, where that is not plain.
        exit_code: Of a fatal one.
    """

    index: int
    kind: Kind
    reason: str = ""
    exit_code: int = 1

    def to_json(self) -> dict[str, Any]:
        """Write it for another process."""
        return asdict(self)

    def raise_fatal(self) -> None:
        """Raise what a fatal outcome stands for."""
        if self.kind == "fatal":
            kind = IntegrityError if self.exit_code == IntegrityError.exit_code else ResourceError
            raise kind(self.reason)


class Worker:
    """Trains one piece of work after another; the cache is read once.

    Args:
        context: See there.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self.inputs = Inputs(Path(context.cache))

    def take(self, contents: Sequence[Mapping[str, Any]], stop: Stop) -> list[Outcome]:
        """Train runs that came as JSON, together if there are several, or say why not."""
        tasks, outcomes = list[Task](), list[Outcome]()
        for content in contents:
            try:
                tasks.append(Task.from_json(content))
            except IntegrityError as error:
                outcomes.append(Outcome(content["index"], "fatal", str(error), error.exit_code))
            except CM2Error as error:
                outcomes.append(Outcome(content["index"], "failed", str(error)))
        return outcomes + self.work(tasks, stop)

    def work(self, tasks: Sequence[Task], stop: Stop) -> list[Outcome]:
        """Train one run, or several of one shape together, and say what became of each."""
        if not tasks:
            return []
        try:
            return self._together(tasks, stop) if len(tasks) > 1 else [self(tasks[0], stop)]
        except Exception as error:
            kind, reason, code = _what(error)
            return [Outcome(task.index, kind, reason, code) for task in tasks]

    def __call__(self, task: Task, stop: Stop) -> Outcome:
        """Train one run."""
        from ..training.trainer import fuse

        run = fuse(
            task.config,
            self.inputs.cache,
            device=self._context.device,
            stop=stop,
            inputs=self.inputs,
            until=task.until,
            sweep=self._context.sweep,
        )
        return Outcome(task.index, "finished" if run.finished else "paused")

    def _together(self, tasks: Sequence[Task], stop: Stop) -> list[Outcome]:
        from ..training.ensemble import train_ensemble

        found = train_ensemble(
            [task.config for task in tasks],
            self.inputs.cache,
            device=self._context.device,
            chunk=len(tasks),
            stop=stop,
            inputs=self.inputs,
            until=tasks[0].until,
            sweep=self._context.sweep,
        )
        outcomes = []
        for task, (run, error) in zip(tasks, found, strict=True):
            if error is None:
                outcomes.append(Outcome(task.index, "finished" if run.finished else "paused"))
            else:
                outcomes.append(Outcome(task.index, *_what(error)))
        return outcomes


def _what(error: Exception) -> tuple[Kind, str, int]:
    """Kind, reason and exit code of the outcome that an error stands for."""
    if isinstance(error, Interrupted):
        return "stopped", str(error), error.exit_code
    if isinstance(error, BusyError):
        return "busy", str(error), error.exit_code
    if isinstance(error, (ResourceError, IntegrityError)):
        return "fatal", str(error), error.exit_code
    if isinstance(error, CM2Error):
        return "failed", str(error), error.exit_code
    # The text of an unforeseen error may hold clinical data: only kind and place are kept.
    # The place is the last one outside of libraries: that of a method of the user's own.
    frames = traceback.extract_tb(error.__traceback__)
    frame = [f for f in frames if "site-packages" not in f.filename][-1]
    where = f"{type(error).__name__} in {Path(frame.filename).name}:{frame.lineno}"
    return "failed", f"bug: {where}", 1


May = Callable[[], bool]
"""Asked before a run is begun; False begins no more."""

__all__ = ["ATTEMPTS", "Context", "May", "Outcome", "Task", "Worker"]
