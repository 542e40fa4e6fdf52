"""What is wrong with options, in sentences: unknown names, and values that no option takes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from ..errors import ConfigError
from .methods import Options, unknown


def check_names(model: type[BaseModel], options: Mapping[str, Any], table: str = "") -> None:
    """Raise ConfigError for the first name that no field, nested or not, has."""
    tables = _tables(model)
    for name, value in options.items():
        if name not in tables:
            raise ConfigError(unknown("option", table + name, _dotted(model, table)))
        inner = tables[name]
        if inner is not None and isinstance(value, Mapping):
            check_names(inner, value, f"{table}{name}.")


@cache
def _tables(model: type[BaseModel]) -> dict[str, type[BaseModel] | None]:
    """Names of the fields, each with the model of its own names if it has such."""
    found: dict[str, type[BaseModel] | None] = dict.fromkeys(model.model_fields)
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel) and inner is not Options:
            found[name] = inner  # which names a method's own options have depends on the method
    return found


def _dotted(model: type[BaseModel], table: str) -> tuple[str, ...]:
    return tuple(table + name for name in model.model_fields)


def sentences(model: type[BaseModel], error: ValidationError) -> list[str]:
    """Say what is wrong with options of a run, one sentence each."""
    lines = []
    for item in error.errors(include_url=False, include_context=False):
        name = ".".join(str(part) for part in item["loc"] if isinstance(part, str))
        if item["type"] == "literal_error":
            offered = get_args(model.model_fields[name].annotation)
            message = unknown(name, str(item["input"]), offered)
        elif item["type"] == "method_options":
            lines.append(item["msg"])
            continue
        else:
            message = item["msg"].removeprefix("Value error, ").removesuffix(".") + "."
        lines.append(f"Option {name} = {item['input']!r}: {message}" if name else message)
    return lines


def about_options(model: str, kind: type[Options], error: ValidationError) -> list[str]:
    """Say what is wrong with the options of a method, one sentence each."""
    lines = []
    for item in error.errors(include_url=False, include_context=False):
        name = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            lines.append(unknown(f"option of {model}", name, kind.model_fields))
        elif item["type"] == "literal_error":
            offered = map(str, get_args(kind.model_fields[name].annotation))
            lines.append(unknown(f"model.{name}", str(item["input"]), offered))
        else:
            message = item["msg"].removeprefix("Value error, ").removesuffix(".")
            lines.append(f"Option model.{name} = {item['input']!r}: {message}.")
    return lines


__all__ = ["about_options", "check_names", "sentences"]
