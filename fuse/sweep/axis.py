"""One line of a grid: an option, its values, and when they count.

```
copula=frank,gumbel             a list
K=1:6                           whole numbers, both ends included
dropout=0.1:0.5/5               5 numbers, evenly spaced, both ends included
lambda_cop=1e-4..1e-1/4         4 numbers, evenly spaced in the logarithm, both ends included
lr=1e-4..1e-2                   any number between, for a random or guided search only
K=1:3 if copula=frank,gumbel    only where the copula is one of these; `and` joins conditions
modalities=ehr,ehr+cxr          a plus joins what is one value of a list
```
Nothing here imports torch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_origin

from ...errors import ConfigError
from ..config import FuseConfig, unknown

Value = str | int | float | bool | tuple[str, ...]

_SPAN = re.compile(r"(?P<low>[^:/,]+?)(?P<form>:|\.\.)(?P<high>[^:/,]+?)(/(?P<n>\d+))?")
_SEEDS = {"seed": "--seeds 0:4", "fold": "--folds 5 without --fold", "folds": "--folds 5"}
_MOST = 100_000


@dataclass(frozen=True)
class Axis:
    """One option and its values.

    Attributes:
        name: Field of the configuration, or dotted name.
        values: Values to try; empty for a span that has no points.
        span: Lower and upper end of such a span.
        log: Whether the span is even in the logarithm.
        when: Conditions: option and the values, as text, under which this line counts.
    """

    name: str
    values: tuple[Value, ...] = ()
    span: tuple[float, float] | None = None
    log: bool = False
    when: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def holds(self, value_of: Mapping[str, Any]) -> bool:
        """Whether the line counts.

        Args:
            value_of: Values of the options that the conditions name.
        """
        return all(shown(value_of[name]) in wanted for name, wanted in self.when)

    def at(self, u: float) -> Value:
        """Value at a place in [0, 1) of the line."""
        if self.span is None:
            return self.values[int(u * len(self.values))]
        return self.rounded(_between(self.span, u, self.log))

    def rounded(self, value: float) -> Value:
        """Spell a number of a span as a run's configuration does."""
        return _rounded(self.name, value)


def parse(text: str) -> Axis:
    """Read one line of a grid, `NAME=VALUES` or `NAME=VALUES if NAME=VALUES and …`.

    Raises:
        ConfigError: An unknown option, or values that cannot be read.
    """
    name, equals, rest = text.partition("=")
    if not equals or not rest.strip():
        raise ConfigError(
            f"--grid expects NAME=VALUES such as copula=frank,gumbel, K=1:6 or "
            f"lambda_cop=1e-4..1e-1/4, found {text!r}."
        )
    return axis(name, rest)


def axis(name: str, content: object) -> Axis:
    """Make an axis of a name and its values as text, or as a list from a TOML file."""
    name = _known(name)
    if name in _SEEDS:
        raise ConfigError(
            f"{name} is no option to choose by: the best seed is luck. Give {_SEEDS[name]}."
        )
    if not isinstance(content, str):
        items = content if isinstance(content, Sequence) else [content]
        return Axis(name, _distinct(name, [_item(name, one) for one in items]))
    values, _, condition = content.partition(" if ")
    when = tuple(_condition(part) for part in condition.split(" and ")) if condition else ()
    values = values.strip()
    if (found := _SPAN.fullmatch(values)) and not _listed(name) and _numeric(name):
        return _spanned(name, values, found, when)
    return Axis(name, _distinct(name, [_item(name, v) for v in values.split(",")]), when=when)


def shown(value: object) -> str:
    """Write a value as the grid language spells it."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return "+".join(map(str, value))
    return str(value)


def _spanned(
    name: str,
    text: str,
    found: re.Match[str],
    when: tuple[tuple[str, tuple[str, ...]], ...],
) -> Axis:
    wrong = ConfigError(
        f"--grid {name}={text}: expected FIRST:LAST, LOW:HIGH/POINTS or LOW..HIGH/POINTS with "
        "LOW below HIGH (above 0 for ..) and two points or more."
    )
    try:
        low, high = float(found["low"]), float(found["high"])
    except ValueError:
        raise wrong from None
    log, n = found["form"] == "..", found["n"] and int(found["n"])
    if not low < high or not math.isfinite(high) or (log and low <= 0) or (n and n < 2):
        raise wrong
    if n and n > _MOST:
        raise ConfigError(f"--grid {name}={text}: {n} points are more than anybody can train.")
    if not n and not log and low.is_integer() and high.is_integer() and _whole(name):
        return Axis(name, tuple(range(int(low), int(high) + 1)), when=when)
    if not n:
        return Axis(name, span=(low, high), log=log, when=when)
    values = [low, *(_between((low, high), i / (n - 1), log) for i in range(1, n - 1)), high]
    return Axis(name, tuple(dict.fromkeys(_rounded(name, v) for v in values)), when=when)


def _between(span: tuple[float, float], u: float, log: bool) -> float:
    low, high = span
    return float(low * (high / low) ** u) if log else low + (high - low) * u


def _rounded(name: str, value: float) -> Value:
    # six digits, so that the third of 1e-4..1e-1/4 is the 1e-2 that anybody else would write
    return round(value) if _whole(name) else float(f"{value:.6g}")


def _condition(text: str) -> tuple[str, tuple[str, ...]]:
    name, equals, values = text.strip().partition("=")
    if not equals:
        raise ConfigError(f"A condition of a grid is NAME=VALUE or NAME=A,B, found {text!r}.")
    name = _known(name)
    return name, tuple(shown(_typed(name, value)) for value in values.split(","))


def _typed(name: str, value: str) -> object:
    value = value.strip()
    if _listed(name):
        return tuple(part for part in value.split("+") if part)
    return float(value) if _numeric(name) and _is_number(value) else value


def _item(name: str, value: object) -> Value:
    if isinstance(value, str) and _listed(name):
        return tuple(part for part in value.strip().split("+") if part)
    if isinstance(value, list | tuple):
        return tuple(map(str, value))
    if isinstance(value, bool | int | float):
        return value
    return str(value).strip()


def _distinct(name: str, values: list[Value]) -> tuple[Value, ...]:
    if not values or len(set(map(shown, values))) < len(values):
        raise ConfigError(
            f"--grid {name}: expected values that differ, found {', '.join(map(shown, values))!r}."
        )
    return tuple(values)


def _known(name: str) -> str:
    name = name.strip().removeprefix("--").replace("-", "_")
    first = name.partition(".")[0]
    fields = (*FuseConfig.model_fields, "preset")
    if first not in fields:
        raise ConfigError(unknown("option of a grid", first, fields))
    return name


def _listed(name: str) -> bool:
    field = FuseConfig.model_fields.get(name)
    return field is not None and get_origin(field.annotation) is tuple


def _whole(name: str) -> bool:
    field = FuseConfig.model_fields.get(name)
    return field is not None and field.annotation is int


def _numeric(name: str) -> bool:
    field = FuseConfig.model_fields.get(name)
    return field is None or field.annotation in (int, float)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


__all__ = ["Axis", "Value", "axis", "parse", "shown"]
