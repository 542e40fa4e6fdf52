"""Multimodal clinical prediction with missing modalities.

`cm2 extract` encodes every item once into a cache; `cm2 fuse` trains a copula-aligned model
from it. From Python: `write_cache` makes a cache of your own arrays, `open_cache` reads one,
`load_run` makes a module of a trained run, and `CM2Classifier` trains on arrays in memory, in the
manner of scikit-learn; `register_model` makes a class of your own one of the methods. `extract`,
`fuse`, `sweep`, `evaluate` and `compare` are the commands as functions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .api import compare, evaluate, sweep
    from .cache.dataset import open_cache
    from .extract.own.api import write_cache
    from .fuse.estimator import CM2Classifier
    from .fuse.loaded import load_run
    from .fuse.methods.own import register_model

__version__ = "0.1.0"
_HOMES = {
    "CM2Classifier": "fuse.estimator",
    "compare": "api",
    "evaluate": "api",
    "load_run": "fuse.loaded",
    "open_cache": "cache.dataset",
    "register_model": "fuse.methods.own",
    "sweep": "api",
    "write_cache": "extract.own.api",
}
_STAGES = ("extract", "fuse")  # packages that can be called

__all__ = [
    "CM2Classifier",
    "__version__",
    "compare",
    "evaluate",
    "extract",
    "fuse",
    "load_run",
    "open_cache",
    "register_model",
    "sweep",
    "write_cache",
]


def __getattr__(name: str) -> object:
    """Import a public name when it is first used: `import cm2` stays fast."""
    if name not in (*_HOMES, *_STAGES):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    if name in _STAGES:
        return import_module(f".{name}", __name__)
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
