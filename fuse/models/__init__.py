"""Fusion methods: one interface, one file each, one entry in `fuse.methods`."""

from __future__ import annotations

from importlib import import_module

from ...errors import ConfigError
from ..methods import METHODS, find
from .interface import FusionModel


def model_class(name: str) -> type[FusionModel]:
    """Import the network of a method.

    Raises:
        ConfigError: There is no such method, or it is one of the user's own that is not loaded.
    """
    method = find(name)
    if method.network is not None:
        return method.network
    if not method.home:
        raise ConfigError(f"The method {name} is not loaded: give its file, FILE.py:CLASS.")
    module, _, attribute = method.home.partition(":")
    found: type[FusionModel] = getattr(import_module(f".{module}", __name__), attribute)
    return found


MODELS: dict[str, type[FusionModel]] = {name: model_class(name) for name in METHODS}
"""The built-in methods by name."""
