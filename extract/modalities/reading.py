"""Read the file of an item; what cannot be read is a reject, never an absence."""

from __future__ import annotations

from pathlib import Path

from ...cache.store import Reject
from ..work import Work


def file_stamp(path: Path) -> str:
    """The size of a file in bytes as text, or a word for why it has none."""
    try:
        return f"{path.stat().st_size} bytes" if path.is_file() else "no file"
    except OSError:
        return "no access"


def read_file(item: Work, rejects: list[Reject]) -> bytes | None:
    """Read the file of an item; a file that is listed and cannot be read is a reject."""
    path: Path = item.payload
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        message = "the file is listed and does not exist"
        rejects.append(Reject(item.item_id, "read", "MissingFile", message))
        return None
    except OSError as error:
        message = error.strerror or "input error"
        rejects.append(Reject(item.item_id, "read", type(error).__name__, message))
        return None
    if not content:
        rejects.append(Reject(item.item_id, "read", "EmptyFile", "the file has 0 bytes"))
        return None
    return content


__all__ = ["file_stamp", "read_file"]
