"""Kill, flip, cut, swap, fill the disk, write twice at once: nothing wrong is ever read."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from cm2.cache import atomic, upkeep
from cm2.cache.cohort import Cohort, view
from cm2.cache.store import Store
from cm2.errors import CM2Error, DataError, IntegrityError, ResourceError

PROGRAM = Path(__file__).with_name("small_store.py")


def _run(cache: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(PROGRAM), str(cache), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """The small cache written by a process, and the number of its durable steps."""
    cache = tmp_path_factory.mktemp("undisturbed") / "cache"
    done = _run(cache)
    assert done.returncode == 0, done.stderr
    return cache, int(done.stdout)


def _readable(cache: Path, small: ModuleType) -> int:
    """Read what a killed process left as a user would; every vector is right or absent."""
    try:
        store = Store.open(cache, "cxr")
    except DataError:
        return 0
    ids = store.items["item_id"].to_pylist()
    read = store.read(ids)["values"]
    for row, item in enumerate(ids):
        expected = small.encode(int(item[1])).arrays["values"][int(item[2])]
        assert (read[row] == expected).all()
    return len(ids)


def _check_kill(tmp_path: Path, small: ModuleType, reference: Path, step: int) -> None:
    cache = tmp_path / f"kill-{step}"
    done = _run(cache, "--kill", str(step))
    assert done.returncode == -signal.SIGKILL, done.stderr
    committed = len(list(cache.glob("stores/*/*/shard-*.json")))
    assert _readable(cache, small) in (0, 12)
    redone = small.build(cache)
    assert redone == small.SHARDS - committed, "a committed shard was encoded again"
    assert small.tree(cache) == small.tree(reference)
    leftovers = [p for p in cache.rglob("*") if atomic.TEMPORARY.fullmatch(p.name)]
    assert len(leftovers) <= 1
    for path in leftovers:
        os.utime(path, (0, 0))
    assert upkeep.gc(cache, False) == leftovers
    shutil.rmtree(cache)


def test_a_killed_extraction_resumes_to_identical_bytes(
    tmp_path: Path, small: ModuleType, undisturbed: tuple[Path, int]
) -> None:
    reference, steps = undisturbed
    for step in random.Random(0).sample(range(steps), 4):
        _check_kill(tmp_path, small, reference, step)


@pytest.mark.fault
def test_a_kill_at_any_durable_step_resumes_to_identical_bytes(
    tmp_path: Path, small: ModuleType, undisturbed: tuple[Path, int]
) -> None:
    reference, steps = undisturbed
    assert steps > 60
    for step in range(steps):
        _check_kill(tmp_path, small, reference, step)


@pytest.mark.fault
def test_a_kill_while_rejects_are_struck_resumes_to_identical_bytes(
    tmp_path: Path, small: ModuleType, undisturbed: tuple[Path, int]
) -> None:
    mended = tmp_path / "mended"
    shutil.copytree(undisturbed[0], mended)
    done = _run(mended, "--mended")
    assert done.returncode == 0, done.stderr
    assert Store.open(mended, "cxr").rejects["item_id"].to_pylist() == [f"r{small.SHARDS - 1}"]
    for step in range(int(done.stdout)):
        cache = tmp_path / f"kill-{step}"
        shutil.copytree(undisturbed[0], cache)
        killed = _run(cache, "--mended", "--kill", str(step))
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert _readable(cache, small) == small.SHARDS * small.ITEMS
        small.strike(cache)
        for path in cache.rglob("*"):
            os.utime(path, (0, 0))
        assert len(upkeep.gc(cache, False)) <= 1  # half a file, or the table of before
        assert small.tree(cache) == small.tree(mended)


def _load(cache: Path) -> None:
    """Everything that training reads of a cache, and what `--verify` adds."""
    cohort = Cohort.open(cache)
    view(cache, cohort, "cxr")
    store = Store.open(cache, "cxr")
    store.verify()
    atomic.read_json(store.path / "provenance.json", "Again.")


def _flip(path: Path, count: int, source: random.Random, load: Callable[[], object]) -> None:
    data = path.read_bytes()
    for _ in range(count):
        bit = source.randrange(len(data) * 8)
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with pytest.raises(IntegrityError) as caught:
            load()
        assert path.name in str(caught.value)
        assert "cm2 extract" in str(caught.value) or "Again" in str(caught.value)
    path.write_bytes(data)


@pytest.mark.parametrize("count", [6, pytest.param(200, marks=pytest.mark.fault)])
def test_a_flipped_bit_in_any_file_is_refused(cache: Path, count: int) -> None:
    files = [path for path in sorted(cache.rglob("*")) if path.is_file()]
    assert len(files) == 4 + 11
    for number, path in enumerate(files):
        _flip(path, count, random.Random(number), lambda: _load(cache))
    _load(cache)


@pytest.mark.parametrize("part", [0, 0.1, 0.5, 0.9, 0.999])
def test_a_cut_file_is_refused(cache: Path, part: float) -> None:
    for path in [path for path in sorted(cache.rglob("*")) if path.is_file()]:
        data = path.read_bytes()
        path.write_bytes(data[: int(part * len(data))])
        with pytest.raises(IntegrityError, match=path.name):
            _load(cache)
        path.write_bytes(data)


def test_swapped_and_duplicated_shards_are_refused_and_mended(
    cache: Path, small: ModuleType
) -> None:
    before = small.tree(cache)
    store = Store.open(cache, "cxr").path
    first, second, _ = sorted(store.glob("shard-*.h5"))
    one, two = first.read_bytes(), second.read_bytes()
    first.write_bytes(two)
    second.write_bytes(one)
    with pytest.raises(IntegrityError, match=r"shard-.*not what was written"):
        view(cache, Cohort.open(cache), "cxr")
    assert small.build(cache) == 2
    assert small.tree(cache) == before

    records = [path.with_suffix(".json") for path in (first, second)]
    one, two = (path.read_bytes() for path in records)
    records[0].write_bytes(two)
    records[1].write_bytes(one)
    with pytest.raises(IntegrityError, match=r"shard-.*json is not what was written"):
        Store.open(cache, "cxr").verify()
    assert small.build(cache) == 2
    assert small.tree(cache) == before

    for path in (first, records[0]):
        shutil.copy(path, path.with_name(f"shard-{'f' * 12}{path.suffix}"))
    _load(cache)  # nothing names the copy
    assert small.build(cache) == 0
    _load(cache)
    assert Store.open(cache, "cxr").items.num_rows == 12


def test_a_shard_of_another_store_is_refused_even_with_a_fitting_hash(
    cache: Path, small: ModuleType
) -> None:
    """A manifest, record and shard that agree, made for another name."""
    store = Store.open(cache, "cxr").path
    first, second, _ = sorted(store.glob("shard-*.h5"))
    shutil.copy(first, second)
    record = atomic.read_json(second.with_suffix(".json"), "")
    manifest = atomic.read_json(store / "manifest.json", "")
    data = {"bytes": second.stat().st_size, "sha256": atomic.sha256_file(second)}
    atomic.write_json(second.with_suffix(".json"), {**record, "data": data})
    digest = atomic.sha256_file(second.with_suffix(".json"))
    for entry in manifest["shards"]:
        if entry["name"] == record["name"]:
            entry.update(data=data, record=digest)
    atomic.write_json(store / "manifest.json", manifest)
    with pytest.raises(IntegrityError, match="expected the attributes"):
        Store.open(cache, "cxr").verify()


def test_a_file_size_limit_is_a_clean_error_and_the_work_continues(
    tmp_path: Path, small: ModuleType, undisturbed: tuple[Path, int]
) -> None:
    reference, _ = undisturbed
    cache = tmp_path / "cache"
    for limit in (100, 2500, 4000):
        done = _run(cache, "--limit", str(limit))
        assert done.returncode == 1, done.stderr  # neither a segmentation fault nor SIGXFSZ
        last = done.stderr.strip().splitlines()[-1]
        assert last.startswith("cm2.errors.ResourceError")
        assert "bytes needed" in last
        assert "ulimit -f" in last
        assert not [p for p in cache.rglob("*") if atomic.TEMPORARY.fullmatch(p.name)]
    small.build(cache)
    assert small.tree(cache) == small.tree(reference)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
@pytest.mark.parametrize(
    "every", [pytest.param(1, marks=pytest.mark.fault), 17], ids=["all", "some"]
)
def test_a_full_disk_at_any_step_is_a_clean_error_and_the_work_continues(
    tmp_path: Path,
    small: ModuleType,
    undisturbed: tuple[Path, int],
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    every: int,
) -> None:
    reference, _ = undisturbed
    fail_at = failures = 0
    while True:
        cache = tmp_path / str(fail_at)
        count = 0

        def hook(step: str, last: int = fail_at) -> None:
            nonlocal count
            count += 1
            if count > last:
                raise OSError(code, os.strerror(code))

        monkeypatch.setattr(atomic, "step_hook", hook)
        error = _failure(lambda folder=cache: small.build(folder))
        monkeypatch.undo()
        if error is None:
            break
        assert "bytes needed" in str(error)
        failures += 1
        assert not [p for p in cache.rglob("*") if atomic.TEMPORARY.fullmatch(p.name)]
        assert _readable(cache, small) in (0, 12)
        small.build(cache)
        assert small.tree(cache) == small.tree(reference)
        shutil.rmtree(cache)
        fail_at += every
    assert failures == len(range(0, count, every))


def _failure(work: Callable[[], object]) -> ResourceError | None:
    try:
        work()
    except ResourceError as error:
        return error
    return None


def _at_once(commands: list[list[str]]) -> None:
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for command in commands
    ]
    complaints = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(commands), complaints


@pytest.mark.parametrize("rounds", [1, pytest.param(10, marks=pytest.mark.fault)])
def test_two_extractions_at_once_end_as_one_after_the_other(
    tmp_path: Path, small: ModuleType, undisturbed: tuple[Path, int], rounds: int
) -> None:
    reference, _ = undisturbed
    serial = tmp_path / "serial"
    shutil.copytree(reference, serial)
    small.build(serial, "report")
    for number in range(rounds):
        cache = tmp_path / f"cache-{number}"
        command = [sys.executable, str(PROGRAM), str(cache)]
        _at_once([command, command, [*command, "--modality", "report"]])
        assert small.tree(cache) == small.tree(serial)
        assert not [p for p in cache.rglob("*") if atomic.TEMPORARY.fullmatch(p.name)]


READER = """
import sys, time
from pathlib import Path
from cm2.cache.cohort import Cohort, view
from cm2.cache.store import Store
cache, seen = Path(sys.argv[1]), set()
while not (cache / "stop").exists():
    seen.add(Store.open(cache, "cxr").items.num_rows)
    view(cache, Cohort.open(cache), "cxr")
assert max(seen) > 12, seen
"""


@pytest.mark.parametrize("rounds", [6, pytest.param(40, marks=pytest.mark.fault)])
def test_readers_never_stumble_over_a_writer(cache: Path, small: ModuleType, rounds: int) -> None:
    readers = [
        subprocess.Popen(
            [sys.executable, "-c", READER, str(cache)], stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    try:
        for number in range(rounds):
            small.fill(cache, chunks=range(4 + number % 5))
            small.fill(cache, stamp=f"s{number}", chunks=range(2))
        time.sleep(3)  # the last state is read too, by the slowest to start
    finally:
        (cache / "stop").touch()
        complaints = [process.communicate(timeout=300)[1] for process in readers]
    assert [process.returncode for process in readers] == [0, 0], complaints


def test_every_deliberate_error_has_a_remedy(cache: Path) -> None:
    """Whatever single file of a cache is removed, the message says what to run."""
    for path in [path for path in sorted(cache.rglob("*")) if path.is_file()]:
        data = path.read_bytes()
        path.unlink()
        with pytest.raises(CM2Error, match=r"cm2 extract|Again"):
            _load(cache)
        path.write_bytes(data)
