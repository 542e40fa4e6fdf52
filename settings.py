"""Files of settings, read by the command line and by both stages."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

from .errors import ConfigError

DEFAULT_CACHE = Path("cm2-cache")
"""The cache of every command that neither --cache nor CM2_CACHE names."""


def read_toml(file: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        ConfigError: It is not there, or not TOML.
    """
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{file} cannot be read as TOML: {error}") from None


def read_run(folder: Path) -> dict[str, Any]:
    """Read the configuration that a run was made with.

    Raises:
        ConfigError: There is no run in the folder.
    """
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text("utf-8"))["config"]
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"{folder} is no directory of a run: {error}") from None
    return config


__all__ = ["DEFAULT_CACHE", "read_run", "read_toml"]
