"""On which device an encoder runs, and how its results are kept the same."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ...errors import ConfigError, ResourceError

if TYPE_CHECKING:
    import torch


def resolve_device(name: str) -> torch.device:
    """Return the device that `--device` names; auto is the first GPU, else the CPU.

    Raises:
        ConfigError: No such word.
        ResourceError: A GPU was asked for that is not there.
    """
    import torch

    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise ConfigError(f"--device {name}: expected auto, cpu, cuda or cuda:N")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            raise ResourceError(
                f"--device {name}: {count} GPUs are visible to torch; use --device cpu"
            )
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
    return device


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one CPU thread, so that sums are always added in the same order."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


__all__ = ["one_thread", "resolve_device"]
