"""A Ray cluster: the one that this process has joined, that of `RAY_ADDRESS`, or one of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .errors import ConfigError, ResourceError


@contextmanager
def joined(cpus: int | None, again: str) -> Iterator[Any]:
    """Join a cluster, and leave it afterwards if that was done here; yields the module `ray`.

    Args:
        cpus: CPUs of a Ray that is started here; None for all of this machine.
        again: What is kept if the cluster is lost, and how to go on.

    Raises:
        ConfigError: Ray is not installed, or nobody answers at `RAY_ADDRESS`.
        ResourceError: The cluster is lost, or a part of it.
    """
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            "--engine ray needs Ray, which is not installed: pip install 'cm2[ray]', or use "
            "--engine local"
        ) from error
    begun = not ray.is_initialized()
    if begun:
        elsewhere = os.environ.get("RAY_ADDRESS")
        try:
            ray.init(
                num_cpus=None if elsewhere else cpus,
                include_dashboard=None if elsewhere else False,
                log_to_driver=False,
            )
        except ConnectionError as error:
            raise ConfigError(
                f"No Ray cluster lets this process in at {elsewhere or 'its default address'}. Is "
                "it running (`ray status`), is RAY_ADDRESS the right one, and has this machine its "
                "token? Or use --engine local."
            ) from error
    try:
        yield ray
    except ray.exceptions.RayTaskError:  # what a task raised says nothing of the cluster
        raise
    except ray.exceptions.RayError as error:
        raise ResourceError(
            f"The Ray cluster is lost, or a node or the disk of one ({type(error).__name__}). "
            f"{again}"
        ) from error
    finally:
        if begun:
            ray.shutdown()


__all__ = ["joined"]
