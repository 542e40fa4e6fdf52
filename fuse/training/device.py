"""Where a run computes."""

from __future__ import annotations

import torch

from ...errors import ConfigError, ResourceError


def choose(name: str) -> torch.device:
    """Find the device of a name.

    Args:
        name: `auto` (a GPU if there is one), `cpu`, `cuda` or `cuda:INDEX`.

    Raises:
        ConfigError: Another name.
        ResourceError: There is no such GPU.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdigit()):
        raise ConfigError(f"--device is auto, cpu, cuda or cuda:INDEX, found {name!r}.")
    found = torch.cuda.device_count() if kind == "cuda" else 1
    if int(index or 0) >= found:
        raise ResourceError(f"--device {name}: expected a GPU, found {found}. Use --device cpu.")
    return torch.device(name)


__all__ = ["choose"]
