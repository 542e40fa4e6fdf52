"""From a specification to runs: which settings, which seeds, where each run lies.

Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...cache.layout import RUNS
from ...errors import ConfigError
from ..config import FuseConfig
from ..identity import Inputs
from ..rundir import RunDir
from .book import Member, Roll
from .grid import Expansion, Setting, expand, sample
from .spec import SweepSpec


class Plan:
    """Settings of a sweep and the runs that they ask for.

    Args:
        spec: What the sweep is asked to do.
        inputs: The cache.
    """

    def __init__(self, spec: SweepSpec, inputs: Inputs) -> None:
        self._spec = spec
        self._inputs = inputs
        self.expansion = Expansion()
        self.members: list[Member] = []
        self.configs: list[FuseConfig] = []

    def add(self, settings: Sequence[Setting]) -> list[int]:
        """Take in settings, and return the numbers of their runs."""
        from ..training.groups import members

        first = len(self.members)
        every_fold = "fold" not in self._spec.base
        for setting in settings:
            number = self.members[-1].setting + 1 if self.members else 0
            config = setting.config
            for one in members(config, self._spec.seeds, every_fold and config.folds > 0):
                place = self._inputs.cache / RUNS / self._inputs.identify(one).name
                self.members.append(Member(number, one.seed, one.fold, RunDir(place)))
                self.configs.append(one)
        return list(range(first, len(self.members)))

    @property
    def cache(self) -> Path:
        """Where the runs come to lie."""
        return self._inputs.cache

    @property
    def settings(self) -> list[Setting]:
        """All settings, in the order of their numbers."""
        return self.expansion.settings

    def roll(self) -> Roll:
        """What is stored of the plan."""
        return Roll(
            [setting.values for setting in self.settings],
            self.members,
            dict(self.expansion.refused),
            self.expansion.repeated,
        )


def make_plan(spec: SweepSpec, cache: Path, inputs: Inputs | None = None) -> Plan:
    """Expand the grid, or draw from it; a guided search begins with no setting.

    Args:
        spec: What the sweep is asked to do.
        cache: The cache.
        inputs: What was read of it already.

    Raises:
        ConfigError: The grid cannot be meant.
    """
    plan = Plan(spec, inputs or Inputs(cache))
    number = None if spec.runs is None else spec.runs // spec.replicates
    if number == 0:
        raise ConfigError(
            f"A budget of {spec.runs} runs does not suffice for one setting of "
            f"{spec.replicates} runs: raise --budget or give fewer --seeds."
        )
    if spec.search == "random":
        plan.expansion = sample(spec.base, spec.axes, number or 0, spec.draw_seed)
    elif spec.search == "grid":
        plan.expansion = expand(spec.base, spec.axes)
        plan.expansion.settings = plan.expansion.settings[:number]
    plan.add(plan.expansion.settings)
    return plan


def share(plan: Plan, shard: str | None) -> list[int]:
    """Numbers of the runs of one part of a job array, `i/n` with i from 0; all without one.

    The runs of one setting are of one part.

    Raises:
        ConfigError: Not a part.
    """
    part, parts = parse_shard(shard)
    return [i for i, member in enumerate(plan.members) if member.setting % parts == part]


def parse_shard(shard: str | None) -> tuple[int, int]:
    """Read `i/n`.

    Raises:
        ConfigError: Not two whole numbers with 0 <= i < n.
    """
    if shard is None:
        return 0, 1
    part, slash, parts = shard.partition("/")
    if not (slash and part.isdigit() and parts.isdigit() and int(part) < int(parts)):
        raise ConfigError(f"--shard expects I/N with I from 0 to N - 1, found {shard!r}.")
    return int(part), int(parts)


__all__ = ["Plan", "make_plan", "parse_shard", "share"]
