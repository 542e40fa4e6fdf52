"""What is present, missing or wrong before the work starts, and how long the work will take."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import re
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import CM2Error, ConfigError
from . import estimate
from .config import ExtractConfig
from .modalities import notes
from .sources import Source, open_source
from .sources.catalogue import published
from .sources.locate import find_parts
from .sources.mimic_cxr import find_metadata
from .sources.releases import drift
from .sources.report_texts import find_texts
from .sources.row_filter import COMPILED

MEMORY_GIB = 4.0
_CHECKSUMS = ("SHA256SUMS.txt", "SHA256SUMS")
_GIB = 2**30
_CHUNK = 1 << 22


@dataclass(frozen=True)
class Check:
    """One line of the examination.

    Args:
        name: What was looked at.
        ok: Whether work can go on as it is.
        detail: What was found.
        remedy: What to do when it is not; dropped otherwise.
    """

    name: str
    ok: bool
    detail: str
    remedy: str = ""

    def __post_init__(self) -> None:
        if self.ok:
            object.__setattr__(self, "remedy", "")


def doctor(data: Path | None, cache: Path, verify: bool) -> list[Check]:
    """Examine environment, source tree and disk, and estimate the work; changes nothing.

    Args:
        data: Root of the source tables; None leaves them out.
        cache: Where the cache is or would be.
        verify: Compare every file with the checksum list of the release.

    Returns:
        Checks in the order of the work.

    Raises:
        ConfigError: There are no data to verify.
    """
    if data is None and verify:
        raise ConfigError("--verify compares the files of a release: name its folder with --data")
    checks = [*_environment(), *_machine()]
    needed, tables = 0, list[Path]()
    if data is not None:
        try:
            source = open_source(data)
        except CM2Error as error:
            checks.append(Check("source", False, str(error), "Correct --data."))
        else:
            checks += _source(source)
            told, needed = _estimates(source, cache)
            checks += told
            tables = _tables(source)
    checks.append(_disk(cache, needed))
    if data is not None and verify:
        checks.append(_checksums(data, tables))
    return checks


def _environment() -> list[Check]:
    version = platform.python_version()
    checks = [
        Check("python", sys.version_info >= (3, 11), version, "cm2 needs Python 3.11 or later.")
    ]
    for requirement in importlib.metadata.requires("cm2") or []:
        found = re.fullmatch(r"([A-Za-z0-9_.-]+)>=([0-9.]+)", requirement.strip())
        if found is None:  # an extra
            continue
        name, floor = found.groups()
        try:
            present = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            checks.append(Check(name, False, "not installed", f"pip install '{name}>={floor}'"))
            continue
        enough = _numbers(present) >= _numbers(floor)
        detail = present if enough else f"{present}, expected {floor} or later"
        checks.append(Check(name, enough, detail, f"pip install -U '{name}>={floor}'"))
    return checks


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:3])


def _machine() -> list[Check]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    checks = [Check("cores", True, f"{cores}")]
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GIB
    except (AttributeError, ValueError, OSError):
        checks.append(Check("memory", True, "this system does not tell"))
    else:
        checks.append(
            Check(
                "memory",
                total >= MEMORY_GIB,
                f"{total:.1f} GiB",
                f"Full releases need about {MEMORY_GIB:.0f} GiB; the demos run with less.",
            )
        )
    device = "NVIDIA device present" if Path("/dev/nvidia0").exists() else "none: work runs on CPU"
    checks.append(Check("accelerator", True, device))
    compiled = (
        "compiled"
        if COMPILED
        else "not compiled, long tables are read in about twice the time; install a C compiler and "
        "Python's headers, then cm2 again"
    )
    checks.append(Check("row filter", True, compiled))
    return checks


def _source(source: Source) -> list[Check]:
    wrong = estimate.wrong_headers(source)
    checks = []
    for need in source.needs:
        try:
            paths = find_parts(source.root, need.name)
        except CM2Error as error:
            checks.append(Check(need.name, False, str(error), "Complete the table."))
            continue
        if not paths:
            detail = f"not found; needed for {need.purpose}"
            remedy = f"Download {need.name}.csv.gz into {source.root}."
            checks.append(Check(need.name, False, detail, remedy))
        elif need.name in wrong:
            checks.append(Check(need.name, False, "wrong header", wrong[need.name]))
        else:
            size = _size(sum(path.stat().st_size for path in paths))
            parts = f" and {len(paths) - 1} more parts" if len(paths) > 1 else ""
            checks.append(Check(need.name, True, f"{paths[0].name}{parts}, {size}"))
    try:
        release = f"{source.dataset} {source.release}" + (", synthetic" if source.synthetic else "")
        checks.insert(0, Check("source", True, release))
        checks.append(_lengths(source))
    except CM2Error as error:
        checks.insert(0, Check("source", False, str(error), "See the tables below."))
    films = find_metadata(source.root)
    checks.append(Check("films", True, str(films) if films else "none here: no modality cxr"))
    texts = find_texts(source.root) if films else None
    found = f"as a {texts.kind}" if texts else "none here: no modality report"
    checks.append(Check("reports", True, found))
    if source.dataset == "mimic3":
        offered = notes.is_offered(source)
        found = "NOTEEVENTS has rows" if offered else "no rows in NOTEEVENTS: no modality note"
        checks.append(Check("notes", True, found))
    if films is not None and not source.synthetic:
        detail = "name them with --weights when extracting films or reports"
        checks.append(Check("weights", True, detail))
    return checks


def _tables(source: Source) -> list[Path]:
    """The files of the tables that are there; what is wrong with them is said elsewhere."""
    found: list[Path] = []
    for need in source.needs:
        with suppress(CM2Error):
            found += find_parts(source.root, need.name)
    return found


def _lengths(source: Source) -> Check:
    """Compare the lengths of the small tables with those of the release."""
    rows = ", ".join(f"{name} {count:,}" for name, count in source.lengths.items())
    if source.known is None:
        return Check("rows", True, f"{rows}; no release with known counts")
    found = drift(source.known, source.lengths)
    detail = "; ".join(found) or f"{rows}, as in the release"
    return Check("rows", not found, detail, "Compare the files with --verify; a table may be cut.")


def _estimates(source: Source, cache: Path) -> tuple[list[Check], int]:
    config = ExtractConfig(data=source.root, cache=cache)
    told = estimate.ehr(source, config, published(config.preset))
    if told.missing:
        return [], 0
    detail = (
        f"about {told.rows:,} rows ({_size(told.read_bytes)}) in {max(told.minutes, 0.1):g} min, "
        f"{_size(told.write_bytes)} of cache"
    )
    return [Check("estimate ehr", True, detail)], told.write_bytes


def _disk(cache: Path, needed: int) -> Check:
    there = next(
        folder for folder in (cache.absolute(), *cache.absolute().parents) if folder.exists()
    )
    if not there.is_dir() or not os.access(there, os.W_OK):
        return Check("cache", False, f"{there} cannot be written to", "Choose another --cache.")
    free = shutil.disk_usage(there).free
    return Check(
        "cache",
        free > 2 * needed,
        f"{cache}: {_size(free)} free, about {_size(needed)} needed",
        "Free some space or choose another --cache.",
    )


def _checksums(root: Path, tables: Sequence[Path]) -> Check:
    lists = [root / name for name in _CHECKSUMS if (root / name).is_file()]
    if not lists:
        return Check(
            "checksums",
            False,
            f"no {_CHECKSUMS[0]} in {root}",
            "Download the checksum list of the release into this folder.",
        )
    checked, absent, wrong = set[Path](), 0, []
    for line in lists[0].read_text("utf-8", errors="replace").splitlines():
        expected, _, name = line.strip().partition(" ")
        name = name.strip().lstrip("*")
        if not re.fullmatch(r"[0-9a-fA-F]{64}", expected):
            continue
        # By name: a table may be a link to another disc.
        path = Path(os.path.normpath(root / name))
        if not path.is_relative_to(os.path.normpath(root)) or not path.is_file():
            absent += 1
            continue
        checked.add(path)
        if _sha256(path) != expected.lower():
            wrong.append(name)
    if wrong:
        detail = f"{len(wrong)} of {len(checked)} files differ: {', '.join(wrong[:5])}"
        return Check("checksums", False, detail, "Download these files again.")
    unlisted = [path.name for path in tables if Path(os.path.normpath(path)) not in checked]
    detail = f"{len(checked)} files match"
    detail += f", {absent} listed ones are not here" if absent else ""
    detail += f"; not in the list, so not checked: {', '.join(unlisted)}" if unlisted else ""
    ok = bool(checked) and not unlisted
    return Check("checksums", ok, detail, "Take the list of this release, and its files as named.")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_CHUNK):
            digest.update(block)
    return digest.hexdigest()


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


__all__ = ["Check", "doctor"]
