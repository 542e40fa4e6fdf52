"""A sweep on disk: what was asked, which runs it refers to, what failed, and an index of all.

```
sweep.json       grid, seeds, search, and the identity that names the folder
members.json     settings, and for each its runs by relative path
index.parquet    one row per run; made of the runs, at any time
failed/          one file per run that failed, with its reason
given-up/        one file per run that halving gave up, whoever else trains it on
chosen/          the best setting as a group of runs, once it was judged
journal.log      what a guided search has tried
lease.json       who steers it, where only one process may
```
Runs lie at their own identities in the cache, so sweeps share them. Nothing here imports torch.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from ...cache import atomic
from ...cache.layout import SWEEPS
from ...errors import ConfigError, DataError
from ..rundir import RunDir

SWEEP, MEMBERS, INDEX, FAILED = "sweep.json", "members.json", "index.parquet", "failed"
CHOSEN, GIVEN_UP = "chosen", "given-up"


class Member(NamedTuple):
    """One run of a sweep.

    Attributes:
        setting: Number of its setting, from 0.
        seed: Its seed.
        fold: Its fold; 0 without cross-validation.
        run: Its directory.
    """

    setting: int
    seed: int
    fold: int
    run: RunDir


@dataclass(frozen=True)
class Roll:
    """Settings and their runs.

    Attributes:
        values: What distinguishes each setting, by option.
        members: Runs, those of one setting together.
        refused: Number of combinations by the reason why they cannot be meant.
        repeated: Number of combinations that are the same training as another one.
    """

    values: list[dict[str, Any]]
    members: list[Member]
    refused: dict[str, int] = field(default_factory=dict)
    repeated: int = 0

    def of(self, setting: int) -> list[Member]:
        """Runs of one setting."""
        return [member for member in self.members if member.setting == setting]


class SweepDir:
    """One sweep on disk.

    Args:
        path: Its directory; see `open`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.latest: list[dict[str, Any]] | None = None
        """Rows of the runs as the call left them that worked on the sweep; None if none did."""

    def __fspath__(self) -> str:
        """The directory, so that it stands wherever a path does."""
        return str(self.path)

    @classmethod
    def open(cls, path: Path) -> SweepDir:
        """Open an existing sweep.

        Raises:
            DataError: No sweep is there.
        """
        if not is_sweep(path):
            raise DataError(f"{path} is no sweep: it has no {SWEEP}. `cm2 sweep` prints its place.")
        return cls(path)

    @classmethod
    def claim(cls, path: Path, identity: str, content: dict[str, Any]) -> SweepDir:
        """Open the directory of a sweep, or make it.

        Raises:
            ConfigError: The directory holds anything else.
        """
        from ..training.trainer import require_empty

        sweep = cls(path)
        if not is_sweep(path):
            require_empty(path, "sweep")
        elif sweep.record["identity"] != identity:
            raise ConfigError(f"{path} holds another sweep. Choose another --out.")
        record = {"identity": identity, **content}
        if not is_sweep(path) or sweep.record != record:
            atomic.write_json(path / SWEEP, record)
        return cls(path)

    @cached_property
    def record(self) -> dict[str, Any]:
        """What was asked for."""
        return atomic.read_json(self.path / SWEEP, self._remedy)

    @property
    def identity(self) -> str:
        """64 hexadecimal digits."""
        return str(self.record["identity"])

    def roll(self) -> Roll:
        """Read which settings and runs there are."""
        path = self.path / MEMBERS
        if not path.is_file():
            raise DataError(f"{self.path} was never begun. Give its `cm2 sweep` command again.")
        content = atomic.read_json(path, self._remedy)
        members = [
            Member(i, run["seed"], run["fold"], RunDir(self._place(run["run"])))
            for i, setting in enumerate(content["settings"])
            for run in setting["runs"]
        ]
        names = list(dict.fromkeys(axis["name"] for axis in self.record["spec"]["axes"]))
        values = [{n: one["values"][n] for n in names} for one in content["settings"]]
        return Roll(values, members, content["refused"], content["repeated"])

    def write_roll(self, roll: Roll) -> None:
        """Store which settings and runs there are; the same content is left as it is."""
        settings: list[dict[str, Any]] = [{"values": v, "runs": []} for v in roll.values]
        for member in roll.members:
            relative = os.path.relpath(member.run.path.resolve(), self.path.resolve())
            entry = {"run": relative, "seed": member.seed, "fold": member.fold}
            settings[member.setting]["runs"].append(entry)
        content = {"settings": settings, "refused": roll.refused, "repeated": roll.repeated}
        data, _ = atomic.render_json(content)
        atomic.write_if_changed(self.path / MEMBERS, data)

    def failures(self) -> dict[str, str]:
        """Reasons of failed runs, by the name of the run."""
        found = sorted((self.path / FAILED).glob("*.json"))
        return {path.stem: str(atomic.read_json(path, self._remedy)["reason"]) for path in found}

    def fail(self, member: Member, reason: str) -> None:
        """Record that a run failed."""
        content = {"seed": member.seed, "fold": member.fold, "reason": reason}
        atomic.write_json(self._failure(member), content)

    def forgive(self, members: Sequence[Member]) -> None:
        """Forget that runs failed, so that they are tried again."""
        for member in members:
            self._failure(member).unlink(missing_ok=True)

    def given_up(self) -> set[str]:
        """Names of the runs that the sweep gave up."""
        return {path.stem for path in (self.path / GIVEN_UP).glob("*.json")}

    def give_up(self, member: Member) -> None:
        """Record that the sweep trains a run no further; the run itself is not touched."""
        content = {"seed": member.seed, "fold": member.fold}
        atomic.write_json(self._surrender(member), content)

    def take_up(self, member: Member) -> None:
        """Forget that a run was given up, since it was trained on after all."""
        self._surrender(member).unlink(missing_ok=True)

    def _surrender(self, member: Member) -> Path:
        return self.path / GIVEN_UP / f"{member.run.path.name}.json"

    def _failure(self, member: Member) -> Path:
        return self.path / FAILED / f"{member.run.path.name}.json"

    def _place(self, relative: str) -> Path:
        return Path(os.path.normpath(self.path.resolve() / relative))

    @property
    def _remedy(self) -> str:
        return f"Remove {self.path} and give its `cm2 sweep` command again: its runs are kept."


def is_sweep(path: Path) -> bool:
    """Whether a directory holds a sweep."""
    return (path / SWEEP).is_file()


def default_place(cache: Path, task: str, identity: str) -> Path:
    """Directory of a sweep that was given none."""
    return cache / SWEEPS / f"{task}-{identity[:12]}"


__all__ = ["CHOSEN", "INDEX", "Member", "Roll", "SweepDir", "default_place", "is_sweep"]
