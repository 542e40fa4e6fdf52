"""Write a file whole or not at all; read it whole or refuse it.

Every file goes to a temporary name in its own folder, is synced, renamed, and the folder is
synced. A kill leaves the old file or the new one, at worst a temporary file that `cm2 cache gc`
removes.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import ConfigError, IntegrityError, ResourceError
from .fingerprint import compact, plain

READABLE_BYTES = 1 << 16
TEMPORARY = re.compile(r"\..+\.\d+-[0-9a-f]{8}\.tmp")

_ADVICE = {
    errno.ENOSPC: "Free space on this disk",
    errno.EDQUOT: "Free space within your quota",
    errno.EFBIG: "Raise the limit on file sizes (`ulimit -f`)",
    errno.EROFS: "Choose a folder that can be written to",
    errno.EACCES: "Ask for write permission or choose another folder",
    errno.EPERM: "Ask for write permission or choose another folder",
}
_BAD_PATH = {
    errno.EEXIST,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.EINVAL,
}


def _no_hook(step: str) -> None:
    """Do nothing: fault tests replace `step_hook` to stop or fail at a step."""


step_hook: Callable[[str], None] = _no_hook


def write_bytes(path: Path, data: bytes | memoryview) -> str:
    """Write `data` to `path` whole or not at all, replacing what was there.

    Args:
        path: Final name; missing folders are made.
        data: The whole content.

    Returns:
        SHA-256 of the content, 64 hexadecimal digits.

    Raises:
        ResourceError: Disk full, quota, file size limit, no permission; nothing is left behind.
        ConfigError: The path cannot name a file.
    """
    view = memoryview(data).cast("B")

    def fill(temporary: Path) -> None:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            rest = view
            while rest:
                rest = rest[os.write(handle, rest) :]
        finally:
            os.close(handle)

    write_file(path, fill, view.nbytes)
    return hash_bytes(view)


def write_file(path: Path, fill: Callable[[Path], None], needed: int) -> None:
    """Have a file written whole or not at all, replacing what was there.

    Args:
        path: Final name; missing folders are made.
        fill: Writes the file under the name it is given.
        needed: Size in bytes, for the message.

    Raises:
        ResourceError: Disk full, quota, file size limit, no permission; nothing is left behind.
        ConfigError: The path cannot name a file.
    """
    temporary = path.with_name(f".{path.name[:40]}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        _make_folder(path.parent)
        step_hook("write")
        fill(temporary)
        step_hook("fsync")
        _sync(temporary)
        step_hook("replace")
        temporary.replace(path)
        step_hook("sync-folder")
        _sync_folder(path.parent)
    except OSError as error:
        _discard(temporary)
        raise _explained(error, path, needed) from error
    except BaseException:
        _discard(temporary)
        raise


def write_if_changed(path: Path, data: bytes) -> str:
    """Like `write_bytes`, but leave a file alone that already holds `data`."""
    digest = hash_bytes(data)
    if path.is_file() and path.stat().st_size == len(data) and sha256_file(path) == digest:
        return digest
    return write_bytes(path, data)


def read_bytes(path: Path, remedy: str) -> bytes:
    """Read a whole file that must be there.

    Args:
        path: The file.
        remedy: The command that repairs or remakes it, for the message.

    Raises:
        IntegrityError: It is missing or is no file.
        ResourceError: It cannot be read.
    """
    try:
        return path.read_bytes()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise IntegrityError(f"{path} is missing. {remedy}") from error
    except OSError as error:
        raise ResourceError(f"{path} cannot be read: {error.strerror}. {remedy}") from error


def write_json(path: Path, content: Mapping[str, object]) -> str:
    """Write a JSON file that carries the hash of its own canonical content.

    Args:
        path: Final name.
        content: Mapping without the key "sha256", which is added.

    Returns:
        SHA-256 of the canonical content, as it stands in the file.

    Raises:
        ConfigError: Something that JSON cannot hold.
        ResourceError: As for `write_bytes`.
    """
    data, digest = render_json(content)
    write_if_changed(path, data)
    return digest


def render_json(content: Mapping[str, object]) -> tuple[bytes, str]:
    """Bytes of a JSON file and the hash inside it; equal content gives equal bytes.

    Small files have one line per value, for people; large ones are one line, for speed.
    """
    if "sha256" in content:
        raise ConfigError("The key 'sha256' is reserved for the hash of the file's own content.")
    body = cast(dict[str, object], plain(content))
    canonical = compact(body)
    digest = body["sha256"] = hash_bytes(canonical)
    if len(canonical) > READABLE_BYTES:
        return compact(body) + b"\n", digest
    text = json.dumps(body, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    return text.encode() + b"\n", digest


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """Read a file of `write_json`; any altered bit is refused.

    Args:
        path: The file.
        remedy: The command that repairs it.

    Returns:
        The content without its "sha256".

    Raises:
        IntegrityError: Missing, not JSON, or not the bytes that were written.
    """
    content, _ = read_json_hash(path, remedy)
    return content


def read_json_hash(path: Path, remedy: str) -> tuple[dict[str, Any], str]:
    """Like `read_json`, with the hash that the file carries."""
    return parse_json(path, read_bytes(path, remedy), remedy)


def parse_json(path: Path, data: bytes, remedy: str) -> tuple[dict[str, Any], str]:
    """Like `read_json_hash`, for the bytes `data` that were read from `path`."""
    try:
        content = json.loads(data)
        digest = content.pop("sha256")
        # Comparing whole bytes also finds what parses alike: another layout, a repeated key.
        intact = render_json(content) == (data, digest)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, ConfigError):
        intact = False
    if not intact:
        raise IntegrityError(f"{path} is not what was written: its hash does not match. {remedy}")
    return content, digest


def write_parquet(path: Path, table: pa.Table) -> str:
    """Write a table with page checksums; equal tables give equal bytes.

    Args:
        path: Final name.
        table: Any table; chunks and kinds of text columns do not change the bytes.

    Returns:
        SHA-256 of the file.

    Raises:
        ResourceError: As for `write_bytes`.
    """
    return write_if_changed(path, render_parquet(table))


def render_parquet(table: pa.Table) -> bytes:
    """Bytes of a Parquet file with page checksums, independent of chunks and schema metadata."""
    schema = pa.schema([pa.field(f.name, _plain_type(f.type)) for f in table.schema])
    sink = pa.BufferOutputStream()
    pq.write_table(
        table.cast(schema).combine_chunks(), sink, compression="zstd", write_page_checksum=True
    )
    data: bytes = sink.getvalue().to_pybytes()
    return data


def read_parquet(path: Path, sha256: str | None, remedy: str) -> pa.Table:
    """Read a table and verify it.

    Args:
        path: The file.
        sha256: Its expected hash; None checks only the page checksums, not the footer.
        remedy: The command that repairs it.

    Raises:
        IntegrityError: Missing, another hash, a wrong page checksum, or not Parquet.
    """
    data = read_bytes(path, remedy)
    if sha256 is not None:
        require_hash(path, data, sha256, remedy)
    try:
        # Not read_table: a thread of its data set scan may still hold `data` when Python exits,
        # and then the process is aborted (exit code 134).
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        return file.read(use_threads=False)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise IntegrityError(f"{path} is not a whole Parquet file: {error}. {remedy}") from error


def require_hash(path: Path, data: bytes, sha256: str, remedy: str) -> None:
    """Raise IntegrityError unless `data`, read from `path`, has the given hash."""
    found = hash_bytes(data)
    if found != sha256:
        raise IntegrityError(
            f"{path} is not what was written: expected SHA-256 {sha256[:12]}…, found "
            f"{found[:12]}… in {len(data)} bytes. {remedy}"
        )


def hash_bytes(data: bytes | memoryview) -> str:
    """SHA-256 of bytes, 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """SHA-256 of a file of any size, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _plain_type(kind: pa.DataType) -> pa.DataType:
    """The one spelling of a type, whichever library made the column."""
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_large_list(kind) or pa.types.is_list(kind):
        return pa.list_(_plain_type(kind.value_type))
    if pa.types.is_dictionary(kind):
        return _plain_type(kind.value_type)
    return kind


def _make_folder(folder: Path) -> None:
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync_folder(folder.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network and user-space file systems cannot sync a folder; their rename is durable.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(handle)


def _discard(temporary: Path) -> None:
    try:
        temporary.unlink(missing_ok=True)
    except OSError:  # what failed is reported already; `cm2 cache gc` removes the rest
        return


def _explained(error: OSError, path: Path, needed: int) -> ConfigError | ResourceError:
    if error.errno in _BAD_PATH:
        return ConfigError(f"{path} cannot be written: {error.strerror}. Choose another path.")
    folder = path.parent
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    advice = _ADVICE.get(error.errno or 0, "Mend this")
    return ResourceError(
        f"{path} cannot be written: {error.strerror}; {needed} bytes needed, {free} free on its "
        f"disk. {advice}, then run the same command again: it continues."
    )
