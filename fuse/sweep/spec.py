"""What a sweep is asked to do: grid, seeds, search, budget. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ...cache.fingerprint import fingerprint
from ...errors import ConfigError
from ..config import FuseConfig
from ..identity import Inputs
from ..methods import canonical
from .axis import Axis, axis, parse

_SEARCH = ("seeds", "search", "halving", "budget", "keep", "draw_seed")


class SweepSpec(BaseModel):
    """A sweep before it exists. Frozen; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    base: dict[str, Any] = Field(
        default_factory=dict, description="Options under the grid, as for `cm2 fuse`."
    )
    axes: tuple[Axis, ...] = Field((), description="Lines of the grid.")
    seeds: tuple[int, ...] = Field((0,), min_length=1, description="Seeds of every setting.")
    search: Literal["grid", "random", "tpe"] = Field(
        "grid", description="All combinations, some at random, or guided by what was found."
    )
    halving: bool = Field(
        False, description="Train all settings a little, the best third on, and so forth."
    )
    budget: str | None = Field(
        None, description="At most so many runs (60), or hours of training (8h)."
    )
    keep: int = Field(5, ge=0, description="Settings whose weights are kept.")
    draw_seed: int = Field(0, ge=0, description="Seed of the random or guided search.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.budget is not None:
            _ = self.runs, self.hours
        if self.search != "grid" and self.runs is None:
            raise ValueError(f"search = {self.search!r} needs a budget of runs: --budget 60")
        if self.search == "grid" and self.draw_seed:
            raise ValueError("draw_seed is about search = 'random' and 'tpe': leave it out")
        if self.runs is not None and self.runs < len(self.seeds):
            raise ValueError(
                f"a budget of {self.runs} runs does not suffice for {len(self.seeds)} seeds of one "
                "setting"
            )
        if self.halving and self.search == "tpe":
            raise ValueError("halving works with search = 'grid' or 'random', not with 'tpe'")
        if self.halving and self.hours is not None:
            raise ValueError("halving compares equal efforts: give its budget in runs, not hours")
        return self

    @cached_property
    def runs(self) -> int | None:
        """Largest number of runs, or None."""
        return int(self._limit) if self.budget and not self.budget.endswith("h") else None

    @cached_property
    def hours(self) -> float | None:
        """Largest number of hours that all runs train together, or None."""
        return self._limit if self.budget and self.budget.endswith("h") else None

    @property
    def _limit(self) -> float:
        text = str(self.budget)
        try:
            value = float(text.removesuffix("h")) if text.endswith("h") else int(text)
        except ValueError:
            value = 0
        if not value > 0:
            raise ValueError(f"a budget is a number of runs (60) or of hours (8h), found {text!r}")
        return value

    @property
    def replicates(self) -> int:
        """Runs of one setting: its seeds, times the folds of a cross-validation."""
        folds = int(self.base.get("folds") or 0) if "fold" not in self.base else 0
        return len(self.seeds) * max(folds, 1)

    def describe(self) -> dict[str, Any]:
        """What is stored of it."""
        return self.model_dump(mode="json")

    def identity(self, inputs: Inputs) -> str:
        """Hash of what is searched and of the data; neither budget nor number of kept weights."""
        try:
            base = FuseConfig.of(self.base).model_dump(mode="json", exclude={"seed"})
        except ConfigError:  # it needs a value of the grid
            base = {name: str(value) for name, value in self.base.items()}
        named = ("task", "cohort", "modalities")
        data: dict[str, Any] = {name: self.base[name] for name in named if name in self.base}
        record = inputs.identify(FuseConfig.of(data)).record
        content = self.model_dump(mode="json", exclude={"base", "budget", "keep"})
        return fingerprint({**content, "base": base, "data": {**record, "config": {}}})


def sweep_spec(
    given: Mapping[str, Any], lines: Sequence[str], options: Mapping[str, Any]
) -> SweepSpec:
    """Put together what a file and the command line say; the command line wins.

    Args:
        given: Options of `cm2 fuse`; of a file also `grid` and those of the search.
        lines: Lines of the grid.
        options: Options of the search by name; those that are None count as not given.

    Raises:
        ConfigError: Something that cannot be meant.
    """
    base = dict(given)
    grid = base.pop("grid", {})
    if not isinstance(grid, Mapping):
        raise ConfigError(f"[grid] holds options and their values, found {grid!r}.")
    search = {name: base.pop(name) for name in _SEARCH if name in base}
    search |= {name: value for name, value in options.items() if value is not None}
    axes = [one for name, value in _flat(grid) for one in _lines(name, value)]
    here = [parse(text) for text in lines]
    named = {one.name for one in here}
    axes = [_loaded(one) for one in axes if one.name not in named] + [_loaded(o) for o in here]
    if isinstance(base.get("model"), str):
        base["model"] = canonical(base["model"])
    base.pop("seed", None) if "seeds" in search else None
    seeds = search.get("seeds", base.pop("seed", 0))
    search["seeds"] = _seeds(seeds)
    search["budget"] = None if search.get("budget") is None else str(search["budget"])
    for one in axes:
        base.pop(one.name, None) if not one.when else None
    try:
        return SweepSpec(base=base, axes=tuple(axes), **search)
    except ValidationError as error:
        raise ConfigError(
            "\n".join(
                f"{'.'.join(map(str, e['loc']))}: ".removeprefix(": ")
                + e["msg"].removeprefix("Value error, ")
                for e in error.errors(include_url=False)
            )
        ) from None


def _loaded(one: Axis) -> Axis:
    """Name methods of the user's own by their source, so that a changed one is another sweep."""
    if one.name != "model":
        return one
    return replace(one, values=tuple(canonical(str(value)) for value in one.values))


def _lines(name: str, value: object) -> list[Axis]:
    if isinstance(value, list) and any(isinstance(v, str) and " if " in v for v in value):
        return [axis(name, one) for one in value]
    return [axis(name, value)]


def _flat(table: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in table.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{prefix}{name}.")
        else:
            found.append((prefix + name, value))
    return found


def _seeds(value: object) -> tuple[int, ...]:
    from ..training.groups import parse_seeds

    if isinstance(value, list | tuple):
        value = ",".join(map(str, value))
    return parse_seeds(str(value))


__all__ = ["SweepSpec", "sweep_spec"]
