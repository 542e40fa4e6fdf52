"""Fusion methods: one interface, one file each, one entry in `fuse.methods`."""

from __future__ import annotations

from importlib import import_module

from ..methods import METHODS, find
from .interface import FusionModel


def model_class(name: str) -> type[FusionModel]:
    """Import the network of a method.

    Raises:
        ConfigError: There is no such method.
    """
    module, _, attribute = find(name).home.partition(":")
    found: type[FusionModel] = getattr(import_module(f".{module}", __name__), attribute)
    return found


MODELS: dict[str, type[FusionModel]] = {name: model_class(name) for name in METHODS}
"""The built-in methods by name."""
