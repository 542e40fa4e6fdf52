"""One run of a sweep as a piece of work, and who does it: the part that every engine shares."""

from __future__ import annotations

import traceback
from collections.abc import Callable
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
    def from_json(cls, content: dict[str, Any]) -> Self:
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
    """Trains one run after another; the cache is read once.

    Args:
        context: See there.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._inputs = Inputs(Path(context.cache))

    def take(self, content: dict[str, Any], stop: Stop) -> Outcome:
        """Train a run that came as JSON, or say why not."""
        try:
            task = Task.from_json(content)
        except IntegrityError as error:
            return Outcome(content["index"], "fatal", str(error), error.exit_code)
        except CM2Error as error:
            return Outcome(content["index"], "failed", str(error))
        return self(task, stop)

    def __call__(self, task: Task, stop: Stop) -> Outcome:
        """Train a run, or say why not."""
        from ..training.trainer import fuse

        try:
            run = fuse(
                task.config,
                self._inputs.cache,
                device=self._context.device,
                stop=stop,
                inputs=self._inputs,
                until=task.until,
                sweep=self._context.sweep,
            )
        except Interrupted as error:
            return Outcome(task.index, "stopped", str(error), error.exit_code)
        except BusyError as error:
            return Outcome(task.index, "busy", str(error))
        except (ResourceError, IntegrityError) as error:
            return Outcome(task.index, "fatal", str(error), error.exit_code)
        except CM2Error as error:
            return Outcome(task.index, "failed", str(error))
        except Exception as error:
            # The text of an unforeseen error may hold clinical data: only kind and place are kept.
            # The place is the last one outside of libraries: that of a method of the user's own.
            frames = traceback.extract_tb(error.__traceback__)
            frame = [f for f in frames if "site-packages" not in f.filename][-1]
            where = f"{type(error).__name__} in {Path(frame.filename).name}:{frame.lineno}"
            return Outcome(task.index, "failed", f"bug: {where}")
        return Outcome(task.index, "finished" if run.finished else "paused")


May = Callable[[], bool]
"""Asked before a run is begun; False begins no more."""

__all__ = ["ATTEMPTS", "Context", "May", "Outcome", "Task", "Worker"]
