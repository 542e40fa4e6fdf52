"""Configuration models as command-line options, and option values as a checked configuration."""

from __future__ import annotations

import csv
import inspect
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from .errors import ConfigError, did_you_mean
from .settings import read_run, read_toml

Model = TypeVar("Model", bound=BaseModel)

_ENVIRONMENT = {"data": "CM2_DATA", "cache": "CM2_CACHE"}
_FLAGS = {"from_tree": "--from"}  # `from` is a word of the language
_TABLES = {"model": "options"}  # model.NAME is an option of the method, `model` its name


def flag(field: str) -> str:
    """Return the option of a configuration field: `lambda_cop` is `--lambda-cop`."""
    return _FLAGS.get(field) or "--" + field.replace("_", "-")


def parameters(model: type[BaseModel]) -> list[inspect.Parameter]:
    """Describe every field of a model as an option for the command line.

    An option that is not given is None, so that presets, files and defaults keep their order.
    A nested model has no option: its fields are set by dotted names.

    Args:
        model: A configuration; each field carries its description.
    """
    import typer

    result = []
    for name, field in model.model_fields.items():
        if _nested(field.annotation):
            continue  # set by dotted names
        choice, kind = _shape(field.annotation)
        declarations = [flag(name) if kind is not bool else f"{flag(name)}/--no-{flag(name)[2:]}"]
        option = typer.Option(
            None,
            *declarations,
            help=field.description,
            metavar=choice,
            show_default=_default(field) or False,
            envvar=_ENVIRONMENT.get(name),
        )
        annotation: Any = list[str] if kind is list else (bool if kind is bool else str)
        result.append(
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=annotation | None
            )
        )
    return result


def validated(model: type[Model], values: Mapping[str, object]) -> Model:
    """Build a configuration from option values; those that are None count as not given.

    Args:
        model: The configuration to build.
        values: Field name to value, text as typed; comma-separated lists are split.

    Raises:
        ConfigError: A name is unknown or a value impossible; the nearest name is offered.
    """
    try:
        return model.model_validate(as_given(values))
    except ValidationError as error:
        raise ConfigError(_explain(model, error)) from None


def as_given(values: Mapping[str, object]) -> dict[str, object]:
    """Keep the options that were given, lists split at their commas.

    Args:
        values: Field name to value, text as typed; None and an empty list count as not given.
    """
    given: dict[str, object] = {}
    for name, value in values.items():
        if value is None or value == []:
            continue
        if isinstance(value, list | tuple):
            value = tuple(part for item in value for part in _split(str(item)))
        given[name] = value
    return given


def read_settings(file: Path | None, assignments: Sequence[str]) -> dict[str, object]:
    """Read settings from a TOML file and from `name=value` texts; the texts win.

    Args:
        file: A TOML file of configuration fields, the directory of a run, or None.
        assignments: Texts of the form `name=value`, or `table.name=value` for what is nested;
            dashes in names count as underscores.

    Raises:
        ConfigError: The file is not TOML, or a text has no equals sign.
    """
    settings: dict[str, object] = {}
    if file is not None:
        settings.update(read_run(file) if file.is_dir() else read_toml(file))
    for text in assignments:
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"--set expects NAME=VALUE, found {text!r}")
        *tables, last = name.strip().replace("-", "_").split(".")
        tables = [_TABLES.get(part, part) for part in tables]
        place = settings
        for part in tables:
            inner = place.setdefault(part, {})
            if not isinstance(inner, dict):
                raise ConfigError(f"--set {text}: {part} has a value, {inner!r}, and no parts.")
            place = inner
        place[last] = value.strip()
    return settings


def words(text: str) -> tuple[str, ...]:
    """Split a list at its commas; a part that holds one stands in double quotes, as in CSV.

    Raises:
        ConfigError: A line break outside quotes.
    """
    try:
        return tuple(part for row in csv.reader([text], skipinitialspace=True) for part in row)
    except csv.Error:
        raise ConfigError(f"Expected a list with commas on one line, found {text!r}.") from None


def _nested(annotation: Any) -> TypeGuard[type[BaseModel]]:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _split(text: str) -> list[str]:
    # NAME=VALUE items stay whole: a path may hold a comma.
    return [text] if "=" in text else [part for part in text.split(",") if part]


def _shape(annotation: Any) -> tuple[str | None, type]:
    """Return what stands behind an option in the help, and whether it is a list or a flag."""
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        inner = [part for part in typing.get_args(annotation) if part is not type(None)]
        names = [_shape(part)[0] or "TEXT" for part in inner]
        kinds = [_shape(part)[1] for part in inner]
        return "|".join(dict.fromkeys(names)), kinds[0] if len(kinds) == 1 else str
    if origin is typing.Literal:
        return "|".join(str(value) for value in typing.get_args(annotation)), str
    if origin in (tuple, list, frozenset):
        inner_names = [_shape(part)[0] or "TEXT" for part in typing.get_args(annotation)[:1]]
        return f"{inner_names[0]},…", list
    names_of = {int: "INTEGER", float: "NUMBER", bool: None, str: "TEXT"}
    if annotation is bool:
        return None, bool
    return names_of.get(annotation, "PATH"), str


def _default(field: FieldInfo) -> str | None:
    if field.is_required():
        return None
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is None or value == ():
        return None
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _owner(
    model: type[BaseModel], place: tuple[int | str, ...]
) -> tuple[type[BaseModel], list[str]]:
    """Find the model, nested or not, in which an error lies, and the dotted name of the field."""
    path: list[str] = []
    for i, part in enumerate(place):
        path.append(str(part))
        field = model.model_fields.get(str(part))
        inner = field.annotation if field else None
        if not _nested(inner):
            break
        if i + 1 < len(place):
            model = inner
    return model, path


def _explain(model: type[BaseModel], error: ValidationError) -> str:
    lines = []
    for problem in error.errors(include_url=False):
        owner, path = _owner(model, problem["loc"])
        name = ".".join(path)
        option = flag(name) if len(path) < 2 else f"--set {name}"
        found = problem.get("input")
        if problem["type"] == "extra_forbidden":
            within = "".join(f"{part}." for part in path[:-1])
            lines.append(
                f"Unknown option {name}.{did_you_mean(path[-1], owner.model_fields, within)}"
            )
        elif problem["type"] == "method_options":
            lines.append(problem["msg"])
        elif problem["type"] == "missing":
            lines.append(f"{option} must be given")
        elif problem["type"] == "literal_error":
            choices = [c.strip("' ") for c in str(problem["ctx"]["expected"]).split(",")]
            choices = [c.strip("' ") for part in choices for c in part.split("' or '")]
            hint = did_you_mean(str(found), choices)
            lines.append(f"{option} must be one of {', '.join(choices)}, found {found!r}.{hint}")
        else:
            text = problem["msg"].removeprefix("Value error, ")
            where = f"{option}: " if name else ""
            lines.append(f"{where}{text} (found {found!r})" if name else text)
    return "\n".join(lines)
