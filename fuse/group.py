"""Runs that differ only in their seed, or in which fold they leave out: one group on disk.

```
group.json           which runs belong together, by relative path; written before the first
val_metrics.json     and test_metrics.json: of all members together
predictions/         val.parquet, test.parquet: pooled over folds
```
A group holds references: every member lies at its own identity's directory. Nothing here imports
torch.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from ..cache import atomic
from ..errors import DataError, IntegrityError
from .config import FuseConfig
from .rundir import CONFIG, RunDir

GROUP = "group.json"


def member(config: FuseConfig) -> str:
    """What tells a run from the others of its group: the seed, and the fold."""
    return f"seed {config.seed}" + (f", fold {config.fold}" if config.folds else "")


class RunGroup:
    """Several runs that are one result.

    Args:
        path: Its directory, which must hold a group; see `open`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __fspath__(self) -> str:
        """The directory, so that it stands wherever a path does."""
        return str(self.path)

    @classmethod
    def open(cls, path: Path) -> RunGroup:
        """Open an existing group.

        Raises:
            DataError: No group is there, or one of its runs was not begun or is gone.
            IntegrityError: Its record is not what was written.
        """
        group = cls.find(path)
        for member in group.members:
            if not (member.path / CONFIG).is_file():
                raise DataError(
                    f"The group {path} names the run {member.path}, which is not there. Give the "
                    "`cm2 fuse` command of the group again: it trains what lacks."
                )
        return group

    @classmethod
    def find(cls, path: Path) -> RunGroup:
        """Find a group whose runs need not all be there: `members` names them, `begun` are.

        Raises:
            DataError: No group is there.
        """
        if not is_group(path):
            raise DataError(f"{path} is no group of runs: it has no {GROUP}.")
        return cls(path)

    @classmethod
    def write(
        cls, path: Path, members: Mapping[Path, FuseConfig], content: dict[str, Any]
    ) -> RunGroup:
        """Record which runs belong together, whether they were begun or not.

        Args:
            path: Directory of the group.
            members: Configurations of its runs by their directories.
            content: Whatever else the record holds: identity, kind, what is shared.
        """
        home = path.resolve()  # a link on the way to either would lead past the cache and back
        runs = [
            {
                "run": os.path.relpath(run.resolve(), home),
                "seed": config.seed,
                "fold": config.fold,
            }
            for run, config in members.items()
        ]
        atomic.write_json(path / GROUP, {**content, "members": runs})
        return cls(path)

    @cached_property
    def record(self) -> dict[str, Any]:
        """What group.json holds."""
        return atomic.read_json(self.path / GROUP, f"Remove {self.path / GROUP}, and train again.")

    @property
    def kind(self) -> Literal["seeds", "folds"]:
        """Whether members differ in their seed alone, or are the folds of a cross-validation."""
        kind = self.record["kind"]
        if kind not in ("seeds", "folds"):
            raise IntegrityError(f"{self.path / GROUP} holds the unknown kind {kind!r}.")
        return "folds" if kind == "folds" else "seeds"

    @cached_property
    def members(self) -> list[RunDir]:
        """The runs, by seed and fold."""
        return [RunDir(self._place(part["run"])) for part in self.record["members"]]

    def _place(self, relative: str) -> Path:
        """Where a run lies, by the way that was taken to the group if that leads there."""
        named, real = (
            Path(os.path.normpath(folder / relative)) for folder in (self.path, self.path.resolve())
        )
        return real if not named.is_dir() and real.is_dir() else named

    @property
    def begun(self) -> list[RunDir]:
        """The members that exist: a killed group has begun some of them."""
        return [run for run in self.members if (run.path / CONFIG).is_file()]

    @property
    def replicates(self) -> list[list[RunDir]]:
        """For each seed the runs that together predict every stay once."""
        seeds = sorted({run.config.seed for run in self.members})
        return [[run for run in self.members if run.config.seed == seed] for seed in seeds]

    @property
    def first_fold(self) -> list[RunDir]:
        """Members that judge the same stays: all of a group of seeds, else those of one fold."""
        return [run for run in self.members if run.config.fold == self.members[0].config.fold]

    def predictions(self, split: str) -> list[pa.Table]:
        """Predictions of a split, one table for each seed; folds are pooled.

        Raises:
            DataError: They were not made.
            IntegrityError: A file is not what was written.
        """
        return [
            pa.concat_tables([run.predictions(split) for run in runs]) for runs in self.replicates
        ]

    def metrics(self, split: str) -> dict[str, Any] | None:
        """Metrics of all members together, or None if they were not judged."""
        path = self.path / f"{split}_metrics.json"
        return atomic.read_json(path, "Judge the group again.") if path.is_file() else None

    def write_metrics(self, split: str, metrics: dict[str, Any]) -> None:
        """Store the metrics of all members together."""
        atomic.write_json(self.path / f"{split}_metrics.json", metrics)


def is_group(path: Path) -> bool:
    """Whether a directory holds a group of runs."""
    return (path / GROUP).is_file()


def open_runs(paths: Sequence[Path]) -> list[RunDir | RunGroup]:
    """Open runs and groups of runs, whatever each path is."""
    return [RunGroup.open(path) if is_group(path) else RunDir.open(path) for path in paths]


__all__ = ["GROUP", "RunGroup", "is_group", "member", "open_runs"]
