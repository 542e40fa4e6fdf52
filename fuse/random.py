"""Named random streams: every number is a pure function of what it is for.

A number is keyed by (seed, purpose, epoch, step, stay, position) and by nothing else. So the
make-up of a batch, the number of processes, a resumed run or a compacted ensemble shift none of
them. The generator is SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), started for each stay from
a SHA-256 of the other keys; it is a counter-based hash, so a whole batch is one array operation.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))

Keys = NDArray[np.uint64]


def key(*parts: object) -> int:
    """Hash names and numbers into 64 bits.

    Args:
        parts: Text and integers; their order matters.
    """
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def stay_keys(ids: Iterable[object]) -> Keys:
    """Hash the ids of stays (numbers or text), one 64-bit key each."""
    return np.array([key("stay", value) for value in ids], dtype=np.uint64)


def uniforms(
    seed: int,
    purpose: str,
    stays: Keys,
    shape: Sequence[int] = (),
    epoch: int = 0,
    step: int = 0,
) -> NDArray[np.float64]:
    """Draw uniform numbers in the open interval (0, 1) for each of some stays.

    Args:
        seed: The run's seed.
        purpose: Name of the stream.
        stays: Keys of the stays, shape ``(B,)``, see `stay_keys`.
        shape: Shape of one stay's numbers.
        epoch: Epoch that asks, from 1; 0 outside training.
        step: Distinguishes several draws of one purpose within an epoch.

    Returns:
        Shape ``(B, *shape)``.
    """
    start = _mix(stays ^ np.uint64(key(seed, purpose, epoch, step)))
    counter = np.arange(1, math.prod(shape) + 1, dtype=np.uint64) * _GOLDEN
    bits = _mix(start[:, None] + counter)
    # 52 bits, centred, so that neither 0 nor 1 can occur
    numbers = ((bits >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
    return numbers.reshape(len(stays), *shape)


def order(seed: int, purpose: str, stays: Keys, epoch: int = 0) -> NDArray[np.int64]:
    """Shuffle stays by their own random numbers.

    Args:
        seed: The run's seed.
        purpose: Name of the stream.
        stays: Keys of the stays, shape ``(B,)``.
        epoch: Epoch that asks.

    Returns:
        A permutation of ``0 .. B - 1``.
    """
    return np.argsort(uniforms(seed, purpose, stays, (), epoch), kind="stable")


def _mix(bits: Keys) -> Keys:
    bits = (bits ^ (bits >> np.uint64(30))) * _MIX[0]
    bits = (bits ^ (bits >> np.uint64(27))) * _MIX[1]
    mixed: Keys = bits ^ (bits >> np.uint64(31))
    return mixed
