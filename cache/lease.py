"""A lease keeps two processes off one directory.

The holder writes who it is into a file and renews the file's time. A lease is void when its
process is gone, seen from the same host, or when it was not renewed for five minutes, seen from
another. It needs POSIX file locks for the moment of taking over.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
import secrets
import threading
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

from ..errors import BusyError, ResourceError
from .layout import LEASE

RENEW_SECONDS = 20.0
VOID_SECONDS = 300.0
_EMPTY_SECONDS = 10.0  # a process killed between making the file and filling it
_ATTEMPTS = 10
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)


class Lease:
    """Hold a folder for one process: `with Lease(folder): ...`.

    Args:
        folder: What is held; made when it is absent. The lease is the file `Lease.NAME` in it.

    Raises:
        BusyError: On entering, when another living process holds it; tells host, process and
            since when.
        ResourceError: The file cannot be written.
    """

    NAME: ClassVar[str] = LEASE

    def __init__(self, folder: Path) -> None:
        self.path = folder / self.NAME
        self._token = secrets.token_hex(16)
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._acquire()
        except OSError as error:
            raise ResourceError(
                f"The lease {self.path} cannot be written: {error.strerror}. Choose a folder that "
                "can be written to."
            ) from error
        self._end.clear()
        self._thread = threading.Thread(target=self._renew, name="cm2-lease", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end.set()
        if self._thread is not None:
            self._thread.join()
        if self._is_mine():
            self.path.unlink(missing_ok=True)

    def check(self) -> None:
        """Return while the lease is still held; call it before something is written.

        Raises:
            BusyError: Another process took it over, as this one did not renew it in time.
        """
        if not self._is_mine():
            raise BusyError(
                f"{self.path.parent} was taken over: {_holder(_read(self.path))} works on it now, "
                f"as this process did not renew its lease for {VOID_SECONDS:.0f} seconds. Nothing "
                "is lost; leave the work to the other process."
            )

    def _acquire(self) -> None:
        for _ in range(_ATTEMPTS):
            try:
                handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            except FileExistsError:
                if self._take_over():
                    return
                continue
            with os.fdopen(handle, "w") as file:
                json.dump(self._content(), file)
            return
        raise BusyError(
            f"{self.path.parent} changes hands all the time: other processes start and stop on it. "
            "Wait for them, then run the same command again."
        )

    def _take_over(self) -> bool:
        """Replace a void lease; False when it vanished or changed meanwhile.

        Raises:
            BusyError: It is not void.
        """
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return False
        with file:
            # Whoever finds the same void lease waits here, then sees that the file is another.
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
            try:
                if not os.path.samestat(os.fstat(file.fileno()), self.path.stat()):
                    return False
            except FileNotFoundError:
                return False
            content = _parse(file.read())
            if not _is_void(self.path, content):
                raise BusyError(
                    f"{self.path.parent} is being worked on by {_holder(content)}. Wait for it, or "
                    "end it; the lease of a process that is gone is taken over by itself."
                )
            new = self.path.with_name(f".{self.path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
            new.write_text(json.dumps(self._content()))
            new.replace(self.path)
        return True

    def _content(self) -> dict[str, Any]:
        return {
            "host": platform.node(),
            "machine": _machine(),
            "pid": os.getpid(),
            "born": _born(os.getpid()),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
            "token": self._token,
        }

    def _is_mine(self) -> bool:
        content = _read(self.path)
        return content is not None and content.get("token") == self._token

    def _renew(self) -> None:
        while not self._end.wait(RENEW_SECONDS):
            if not self._is_mine():
                return
            with suppress(OSError):  # tried again at the next beat
                os.utime(self.path)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return _parse(path.read_bytes())
    except OSError:
        return None


def _parse(data: bytes) -> dict[str, Any] | None:
    try:
        content = json.loads(data)
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


def _holder(content: dict[str, Any] | None) -> str:
    if content is None:
        return "a process that is just starting"
    return (
        f"process {content.get('pid')} on host {content.get('host')} since {content.get('since')}"
    )


def _is_void(path: Path, content: dict[str, Any] | None) -> bool:
    if content is None:
        return _age(path) > _EMPTY_SECONDS
    if content.get("machine") == _machine() and isinstance(content.get("pid"), int):
        return _born(content["pid"]) != content.get("born")
    return _age(path) > VOID_SECONDS


def _age(path: Path) -> float:
    """Seconds since the file was renewed, by the clock of its file system, not of this host."""
    probe = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        probe.touch()
        return probe.stat().st_mtime - path.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def _machine() -> str:
    """What process numbers are unique in: this host since its start, and its namespace."""
    parts = [platform.node()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with suppress(OSError):
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts)


def _born(pid: int) -> str | None:
    """When a living process of this machine was started; None when there is no such process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # no /proc on this system
        return "unknown"
    if fields[0] == "Z":  # ended, only its parent has not noticed
        return None
    return fields[19]
