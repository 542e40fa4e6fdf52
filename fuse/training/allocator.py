"""Let a process that trains keep the memory that its tensors leave."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_LARGEST = 1 << 30


def keep_freed_memory() -> None:
    """Keep freed blocks for the next tensors, until the process ends; nothing without glibc.

    Every step makes the tensors of the last one anew. By default blocks of some size go back to
    the system when they are freed, which has to clear them before it hands them out again: with
    bfloat16 that was a tenth of a step and more. It is for processes of our own alone, since it
    holds for whatever else they allocate.
    """
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    set_option(_TRIM_THRESHOLD, 2 * _LARGEST - 1)
    set_option(_MMAP_THRESHOLD, _LARGEST)


__all__ = ["keep_freed_memory"]
