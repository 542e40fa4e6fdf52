"""SHA-256 of canonical JSON: one value, one text, one name."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping

from ..errors import ConfigError


def canonical_json(value: object) -> bytes:
    """Write a value as JSON in exactly one way: keys sorted, no spaces, UTF-8, no NaN.

    Tuples are lists. 1 and 1.0 differ. Nothing is converted silently: what JSON cannot hold is
    refused, so that two different values never share a text.

    Args:
        value: None, bool, int, finite float, text, and lists, tuples, mappings with text keys.

    Raises:
        ConfigError: Something else is inside; the message says where.
    """
    return compact(plain(value))


def compact(value: object) -> bytes:
    """Canonical JSON of what `plain` has returned."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def fingerprint(value: object) -> str:
    """SHA-256 of the canonical JSON of `value`, 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def fraction(dataset: str, subject_id: object, seed: int) -> float:
    """Place a patient in [0, 1) by hash: splits and folds are cut from it.

    Args:
        dataset: Name of the data set.
        subject_id: The patient.
        seed: Recorded seed.
    """
    digest = hashlib.sha256(f"{dataset}:{subject_id}:{seed}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


_EXACT = (bool, int)
"""Types whose values need no look: thousands of small files are read at a time."""


def plain(value: object, where: str = "value") -> object:
    """Copy a value into the types that JSON holds.

    Args:
        value: As for `canonical_json`.
        where: Name of the value, for the message.

    Raises:
        ConfigError: A type, a key or a number that JSON cannot hold.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        if not value.isascii():
            _require_characters(value, where)
        return str(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ConfigError(f"{where}: expected a finite number, found {value}.")
        return float(value)
    if isinstance(value, Mapping):
        copied = {}
        for key, item in value.items():
            if not isinstance(key, str):
                raise ConfigError(f"{where}: expected text as key, found {key!r}.")
            if not key.isascii():
                _require_characters(key, f"{where} key")
            simple = item is None or type(item) in _EXACT or (type(item) is str and item.isascii())
            copied[str(key)] = item if simple else plain(item, f"{where}.{key}")
        return copied
    if isinstance(value, (list, tuple)):
        return [plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    raise ConfigError(
        f"{where}: expected None, bool, number, text, list or mapping, found "
        f"{type(value).__module__}.{type(value).__qualname__}."
    )


def _require_characters(text: str, where: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{where}: expected text, found half of a character pair.") from None
