"""A method of the user's own: `--model ./mine.py:MyFusion`, or a class handed to `register_model`.

Its name among the methods is that of its file and class with the hash of the source, so a changed
source is another method, and a run that was trained with it another run. No path is a part of it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Mapping
from importlib.abc import InspectLoader
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError, IntegrityError
from .base import Method, Options

if TYPE_CHECKING:
    from ..models.interface import FusionModel

OWN: dict[str, Method] = {}
"""Methods of the user's own that this process has loaded, by name."""

_SOURCES: dict[str, dict[str, str]] = {}


class _Source(InspectLoader):
    """Loads exactly the bytes that were hashed: no byte code from a former version."""

    def __init__(self, path: Path, text: str) -> None:
        self._path, self._text = path, text

    def get_source(self, fullname: str) -> str:
        """The source."""
        return self._text

    def get_code(self, fullname: str) -> Any:
        """The compiled source, under the name of its file."""
        return self.source_to_code(self._text, str(self._path))


def load_file(text: str, expected: str = "") -> str:
    """Load a method from a file of the user's; `sys.path` stays as it is.

    The file may import installed packages and cm2, not its neighbours: their text would not be a
    part of the hash.

    Args:
        text: `FILE.py:CLASS`.
        expected: SHA-256 that the source must have; empty for any.

    Returns:
        Name of the method, `FILE.py:CLASS@HASH`.

    Raises:
        ConfigError: There is no such file or class, it cannot be imported, or it is no method.
        IntegrityError: The source is not the expected one.
    """
    place, _, attribute = text.rpartition(":")
    path = Path(place).absolute()
    if path.suffix != ".py" or not attribute.isidentifier():
        raise ConfigError(f"A method of your own is named FILE.py:CLASS, found {text!r}.")
    if not path.is_file():
        raise ConfigError(f"There is no file {place}: --model expects FILE.py:CLASS.")
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    if expected and digest != expected:
        raise IntegrityError(
            f"{path} has changed since the run was trained: its source had the hash "
            f"{expected[:12]}, now {digest[:12]}. Restore it, or train anew with the changed one."
        )
    name = f"{path.name}:{attribute}@{digest[:12]}"
    if name not in OWN:
        spec = importlib.util.spec_from_loader(
            f"cm2_own_{digest[:12]}_{path.stem}", _Source(path, data.decode("utf-8", "replace"))
        )
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        module.__file__ = str(path)
        sys.modules[spec.name] = module
        try:
            spec.loader.exec_module(module)  # type: ignore[union-attr]
        except Exception as error:
            del sys.modules[spec.name]
            line = traceback.extract_tb(error.__traceback__)[-1].lineno
            raise ConfigError(
                f"{path} cannot be loaded: {type(error).__name__}: {error} (line {line}). A file "
                "with a method may import installed packages and cm2, not its neighbours."
            ) from error
        if not hasattr(module, attribute):
            raise ConfigError(f"{path} has no class {attribute!r}.")
        _register(name, getattr(module, attribute))
    _SOURCES[name] = {"path": str(path), "sha256": digest}
    return name


def register_model(kind: type[FusionModel]) -> str:
    """Make a class of the user's own a method for this process.

    Args:
        kind: A subclass of `FusionModel`.

    Returns:
        Its name for the option `model`.

    Raises:
        ConfigError: It is no method, or its source cannot be read, so that a run trained with it
            could not be told from one trained with another.
    """
    try:
        file = inspect.getsourcefile(kind)
        path = Path(file) if file else Path()
        data = path.read_bytes() if path.is_file() else inspect.getsource(kind).encode()
    except (OSError, TypeError) as error:
        raise ConfigError(
            f"The source of {kind!r} cannot be read, so its runs could not be told from those of "
            "another version. Put the class into a file, and name it FILE.py:CLASS."
        ) from error
    digest = hashlib.sha256(data).hexdigest()
    name = f"{path.name}:{kind.__qualname__}@{digest[:12]}"
    if name not in OWN:
        _register(name, kind)
    _SOURCES[name] = {"path": str(path.absolute()), "sha256": digest}
    return name


def source(name: str) -> Mapping[str, str] | None:
    """Path and SHA-256 of a method of the user's own; None for the others."""
    return _SOURCES.get(name)


def load_again(name: str, recorded: Mapping[str, str] | None) -> None:
    """Load the method of a run, if it is one of the user's own and not loaded yet.

    The file is looked for where it was, if it belongs to this user, and in the current folder.

    Args:
        name: Name of the method, as the run has it.
        recorded: Path and SHA-256 of its source, as the run has them.

    Raises:
        ConfigError: It is not there.
        IntegrityError: It has changed.
    """
    if "@" not in name or name in OWN:
        return
    label = name.partition("@")[0]
    file, _, attribute = label.rpartition(":")
    if not recorded or not recorded["sha256"].startswith(name.partition("@")[2]):
        raise ConfigError(f"The run does not say where the method {label} is from.")
    # A run from somebody else must not choose which code is executed here.
    places = [Path(recorded["path"])] if _is_ours(Path(recorded["path"])) else []
    places.append(Path(file).absolute())
    for path in places:
        if path.is_file():
            load_file(f"{path}:{attribute}", recorded["sha256"])
            return
    raise ConfigError(
        f"The method {label} of this run is neither at {recorded['path']}, as your own file, nor "
        "in the current folder. Put its source there; it must be the same as when it was trained."
    )


def _is_ours(path: Path) -> bool:
    mine = {0, os.getuid()} if hasattr(os, "getuid") else None
    return path.is_file() and (mine is None or path.stat().st_uid in mine)


def _register(name: str, kind: Any) -> None:
    from ..models.interface import FusionModel

    label = name.partition("@")[0]
    if not (isinstance(kind, type) and issubclass(kind, FusionModel)):
        raise ConfigError(f"{label} is no subclass of cm2.fuse.models.interface.FusionModel.")
    if missing := sorted(kind.__abstractmethods__):
        raise ConfigError(f"{label} lacks {', '.join(missing)}, which every method has to define.")
    if not isinstance(getattr(kind, "absence", None), str):
        raise ConfigError(
            f"{label} does not say what it does about an absent modality: give the class a text "
            "`absence`."
        )
    if not issubclass(kind.Options, Options):
        raise ConfigError(f"{label}.Options is no subclass of cm2.fuse.methods.Options.")
    OWN[name] = Method("", kind.Options, kind)


__all__ = ["OWN", "load_again", "load_file", "register_model", "source"]
