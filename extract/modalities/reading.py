"""Read the file of an item; what cannot be read is a reject, never an absence."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ...cache.store import Reject
from ...errors import DataError
from ..work import Work

NO_FILE = "no file"
_BLOCK = 4096
_READERS = 8


def file_stamp(path: Path) -> str:
    """Size of a file with a hash of its first, middle and last 4 KiB, or why it has none.

    A small file is hashed as a whole. A change inside a large one that keeps its size and all
    three blocks goes unseen, as in a JPEG, whose every later byte depends on the one before,
    hardly any does.
    """
    try:
        with path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            digest = hashlib.sha256()
            for start in sorted({0, max(0, (size - _BLOCK) // 2), max(0, size - _BLOCK)}):
                file.seek(start)
                digest.update(file.read(_BLOCK))
    except FileNotFoundError:
        return NO_FILE
    except OSError:
        return "no access"
    return f"{size} bytes {digest.hexdigest()[:16]}"


def file_stamps(paths: Sequence[Path]) -> list[str]:
    """The stamp of every file; several are read at once, because discs make one wait."""
    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(file_stamp, paths, chunksize=64))


def refuse_wrong_mount(paths: Sequence[Path], stamps: Sequence[str], what: str) -> None:
    """Refuse to go on when not one of the listed files is there.

    Args:
        paths: Where the files should be.
        stamps: Their stamps.
        what: What they are, for the message.

    Raises:
        DataError: There are files to read and none of them exists.
    """
    if paths and all(stamp == NO_FILE for stamp in stamps):
        raise DataError(
            f"Not one of {len(paths):,} listed {what} is there; the first should be {paths[0]}. Is "
            "the disc mounted, and --data the right folder? `cm2 extract --film-list FILE` writes "
            "which films must be downloaded."
        )


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


__all__ = ["NO_FILE", "file_stamp", "file_stamps", "read_file", "refuse_wrong_mount"]
