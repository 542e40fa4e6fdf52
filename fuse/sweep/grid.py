"""From the lines of a grid to settings: every combination that can be meant, each once.

A setting is a configuration without its seed. Combinations that cannot be meant are counted with
their reason, those that are the same training are one setting. Nothing here imports torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from pydantic import ValidationError

from ...cache.fingerprint import canonical_json
from ...errors import ConfigError
from ..config import FuseConfig
from ..inert import canonical, inert, unread
from ..presets import resolve
from ..random import key
from .axis import Axis, Value, shown

Options = Mapping[str, Any]
_TABLES = {"model": "options"}  # `model.alpha` is an option of the method


@dataclass(frozen=True)
class Setting:
    """One configuration without its seed.

    Attributes:
        values: Value of every option of the grid; None where it changes nothing.
        config: The configuration, inert options at their defaults.
    """

    values: dict[str, Value | None]
    config: FuseConfig

    @property
    def label(self) -> str:
        """Its values in one line."""
        return label(self.values)


def label(values: Mapping[str, Value | None]) -> str:
    """Write the values of a setting in one line."""
    told = [f"{name}={shown(value)}" for name, value in values.items() if value is not None]
    return " ".join(told) or "base"


@dataclass
class Expansion:
    """Settings, and what did not become one.

    Attributes:
        settings: In the order of the grid.
        refused: Number of combinations by the reason why they cannot be meant.
        repeated: Number of combinations that are the same training as an earlier one.
    """

    settings: list[Setting] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    repeated: int = 0
    _seen: dict[bytes, int] = field(default_factory=dict)

    def add(self, base: Options, axes: Sequence[Axis], chosen: Options) -> Setting | None:
        """Take in one combination; None if it is refused or was there already."""
        made = setting(base, axes, chosen)
        if isinstance(made, str):
            self.refused[made] += 1
            return None
        number = self._seen.setdefault(_told(made), len(self.settings))
        if number < len(self.settings):
            self.repeated += 1
            return None
        self.settings.append(made)
        return made

    def place(self, made: Setting) -> int | None:
        """Number of the setting that is the same training, or None."""
        return self._seen.get(_told(made))

    def take(self, made: Setting) -> int:
        """Append a setting, and return its number."""
        self._seen[_told(made)] = len(self.settings)
        self.settings.append(made)
        return len(self.settings) - 1


def _told(made: Setting) -> bytes:
    return canonical_json(made.config.model_dump(mode="json", exclude={"seed", "fold"}))


def expand(base: Options, axes: Sequence[Axis]) -> Expansion:
    """Combine every value with every other, the last line of the grid fastest.

    Args:
        base: Options under the grid, with `preset` if one is named.
        axes: Lines of the grid; none has a span without points.

    Raises:
        ConfigError: A value that its option cannot take, or no combination that can be meant.
    """
    for one in axes:
        if one.span is not None:
            raise ConfigError(
                f"--grid {one.name}={one.span[0]:g}{'..' if one.log else ':'}{one.span[1]:g} is "
                "every number between: say how many, /5, or choose --search random or tpe."
            )
    require_values(base, axes)
    found = Expansion()
    for chosen in _combinations(base, ordered(axes), {}):
        found.add(base, axes, chosen)
    return _require_some(found)


def sample(base: Options, axes: Sequence[Axis], number: int, seed: int) -> Expansion:
    """Draw settings at random, none twice; the first ones do not depend on `number`.

    Args:
        base: See `expand`.
        axes: Lines of the grid.
        number: How many settings, at most; a grid may have fewer.
        seed: Seed of the draws.
    """
    require_values(base, axes)
    found = Expansion()
    if all(one.span is None for one in axes):
        whole = expand(base, axes)
        whole.settings.sort(key=lambda s: key("sweep", seed, s.label))
        whole.settings = whole.settings[:number]
        return whole
    lines = ordered(axes)
    for i in range(20 * number):  # some are refused or repeated
        if len(found.settings) == number:
            break
        chosen: dict[str, Value] = {}
        for j, one in enumerate(lines):
            if one.name not in chosen and one.holds(held(base, one, chosen)):
                chosen[one.name] = one.at(key("sweep", seed, i, j) / 2**64)
        found.add(base, axes, chosen)
    return _require_some(found)


def setting(base: Options, axes: Sequence[Axis], chosen: Options) -> Setting | str:
    """Make a setting of chosen values, or say why they cannot be meant together.

    Values of options that the chosen method does not read are left out.
    """
    model = str(resolve(overlaid(base, chosen)).get("model", "cm2"))
    chosen = {name: value for name, value in chosen.items() if name not in unread(model)}
    try:
        config = canonical(FuseConfig.model_validate(resolve(overlaid(base, chosen))))
    except ValidationError as error:
        return "; ".join(
            item["msg"].removeprefix("Value error, ")
            for item in error.errors(include_url=False, include_context=False)
        )
    idle = inert(config)
    names = dict.fromkeys(one.name for one in axes)
    values = {n: None if n in idle else _value(config, n, chosen) for n in names}
    return Setting(values, config)


def require_values(base: Options, axes: Sequence[Axis]) -> None:
    """Raise ConfigError for a value that its option cannot take whatever the others are."""
    resolve({**base})  # an unknown preset
    for one in axes:
        for value in one.values or (one.span or ()):
            try:
                FuseConfig.model_validate(resolve(overlaid(base, {one.name: value})))
            except ValidationError as error:
                wrong = [e for e in error.errors() if e["loc"]]
                if wrong:
                    FuseConfig.of(overlaid(base, {one.name: value}))


def ordered(axes: Sequence[Axis]) -> list[Axis]:
    """Put every line behind those that decide whether it counts.

    Raises:
        ConfigError: Two lines wait for each other, or one option has two lines for one condition.
    """
    plain = [one.name for one in axes if not one.when]
    twice = sorted(name for name, n in Counter(plain).items() if n > 1)
    if twice:
        raise ConfigError(f"--grid names {twice[0]} twice: put all its values in one line.")
    waiting, result = list(axes), list[Axis]()
    while waiting:
        blocked = {one.name for one in waiting}
        ready = [o for o in waiting if not blocked & {name for name, _ in o.when} - {o.name}]
        if not ready:
            raise ConfigError(f"The conditions of {' and '.join(sorted(blocked))} go in a circle.")
        result.append(ready[0])
        waiting.remove(ready[0])
    return result


def overlaid(base: Options, chosen: Options) -> dict[str, Any]:
    """Lay values, some with dotted names, over options."""
    merged = {k: dict(v) if isinstance(v, Mapping) else v for k, v in base.items()}
    for name, value in chosen.items():
        table, _, inner = name.partition(".")
        if inner:
            table = _TABLES.get(table, table)
            merged[table] = {**merged.get(table, {}), inner: value}
        else:
            merged[name] = value
    return merged


def _combinations(
    base: Options, lines: Sequence[Axis], chosen: dict[str, Value]
) -> Iterator[dict[str, Value]]:
    plain = [one for one in lines if not one.when]
    rest = [one for one in lines if one.when]
    for values in product(*(one.values for one in plain)):
        start = dict(zip((one.name for one in plain), values, strict=True))
        yield from _conditional(base, rest, {**chosen, **start})


def _conditional(
    base: Options, lines: Sequence[Axis], chosen: dict[str, Value]
) -> Iterator[dict[str, Value]]:
    if not lines:
        yield chosen
        return
    first, rest = lines[0], lines[1:]
    if first.name in chosen or not first.holds(held(base, first, chosen)):
        yield from _conditional(base, rest, chosen)
        return
    for value in first.values:
        yield from _conditional(base, rest, {**chosen, first.name: value})


def held(base: Options, one: Axis, chosen: Options) -> dict[str, Any]:
    """Values of the options that an axis asks for: chosen, given, or by default."""
    given = resolve(overlaid(base, chosen))
    return {name: _looked_up(given, name) for name, _ in one.when}


def _looked_up(given: Options, name: str) -> Any:
    table, _, inner = name.partition(".")
    value = given.get(table, FuseConfig.model_fields[table].default)
    if inner:
        value = value.get(inner, False) if isinstance(value, Mapping) else getattr(value, inner)
    default = FuseConfig.model_fields[table].default
    if isinstance(value, str) and isinstance(default, int | float) and not inner:
        return float(value)
    return value


def _value(config: FuseConfig, name: str, chosen: Options) -> Value:
    if name == "preset":
        return str(chosen.get(name, "corrected"))
    value: Any = config
    table, _, inner = name.partition(".")
    for part in (_TABLES.get(table, table), inner) if inner else (name,):
        value = getattr(value, part)
    found: Value = value
    return found


def _require_some(found: Expansion) -> Expansion:
    if not found.settings:
        reasons = "\n  ".join(f"{n} x {reason}" for reason, n in found.refused.most_common(5))
        raise ConfigError(f"No combination of the grid can be meant:\n  {reasons}")
    return found


__all__ = [
    "Expansion",
    "Setting",
    "expand",
    "held",
    "label",
    "ordered",
    "require_values",
    "sample",
    "setting",
]
