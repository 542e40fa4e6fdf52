from __future__ import annotations

import importlib.util
import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
import pyarrow as pa
import pytest

from cm2.cache.store import EncodedShard, Reject, Space
from cm2.errors import ConfigError, Interrupted, ResourceError
from cm2.extract import engine
from cm2.extract.config import ExtractConfig
from cm2.extract.engine import encode
from cm2.extract.work import Plan, Work
from cm2.progress import Stop, never, silent

ITEMS, PER_SHARD = 23, 4
needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="ray is not installed (extra `ray`)"
)


class Doubling:
    """Encodes an item to twice its number; every fifth is unreadable."""

    parallel = True

    def __call__(self, work: Sequence[Work]) -> EncodedShard:
        return self.finish(work, [self.prepare(item) for item in work])

    def prepare(self, item: Work) -> float:
        return 2.0 * item.payload

    def finish(self, work: Sequence[Work], prepared: Sequence[float]) -> EncodedShard:
        good = [(w, p) for w, p in zip(work, prepared, strict=True) if w.payload % 5]
        bad = [w.item_id for w in work if not w.payload % 5]
        return EncodedShard(
            [w.item_id for w, _ in good],
            [f"{w.payload:064x}" for w, _ in good],
            {"values": np.array([[p] for _, p in good], np.float32).reshape(len(good), 1)},
            {},
            [Reject(item, "read", "Torn", "the file is torn") for item in bad],
        )


class Counting(Doubling):
    """Remembers how many shards were begun and not yet finished."""

    def __init__(self, parallel: bool) -> None:
        self.parallel = parallel
        self.lock = threading.Lock()
        self.busy = self.most = 0
        self.prepared = self.finished = self.ahead = 0

    def prepare(self, item: Work) -> float:
        with self.lock:
            self.prepared += 1
            self.ahead = max(self.ahead, self.prepared - self.finished)
        return super().prepare(item)

    def finish(self, work: Sequence[Work], prepared: Sequence[float]) -> EncodedShard:
        with self.lock:
            self.busy += 1
            self.most = max(self.most, self.busy)
        time.sleep(0.01)
        shard = super().finish(work, prepared)
        with self.lock:
            self.busy -= 1
            self.finished += len(work)
        return shard


class Dying(Doubling):
    """Kills its own process once, with the first shard that comes after a marker is gone."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __call__(self, work: Sequence[Work]) -> EncodedShard:
        if work[0].payload >= 2 * PER_SHARD and self.marker.exists():
            self.marker.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(work)


class Tripling(Doubling):
    """An encoder of the same space that holds other rows."""

    def prepare(self, item: Work) -> float:
        return 3.0 * item.payload


class Refusing(Doubling):
    """Cannot encode where it is."""

    def __call__(self, work: Sequence[Work]) -> EncodedShard:
        raise ConfigError("weights.safetensors is not here")


def make_plan(how: Doubling) -> Plan:
    work = [Work(f"item{i:03d}", f"stamp{i}", i, {}) for i in range(ITEMS)]
    links = pa.table({"stay_id": pa.array([], pa.int64())})
    space = Space("film", "vector", {"encoder": "doubling"})
    return Plan(space, work[::-1], links, {}, {"made": True}, how, PER_SHARD)


def config(cache: Path, **options: object) -> ExtractConfig:
    given = {"data": cache, "cache": cache, "workers": 1, **options}
    return ExtractConfig.model_validate(given)


def make(cache: Path, how: Doubling | None = None, **options: object) -> tuple[int, bool]:
    _, encoded, complete = encode(
        config(cache, **options), make_plan(how or Doubling()), silent, never()
    )
    return encoded, complete


def content(cache: Path) -> dict[str, bytes]:
    """All files of the store that its identity rests on."""
    files = [p for p in cache.rglob("*") if p.is_file() and p.name != "provenance.json"]
    return {str(p.relative_to(cache)): p.read_bytes() for p in files}


@pytest.fixture
def whole(tmp_path: Path) -> dict[str, bytes]:
    assert make(tmp_path / "whole") == (ITEMS, True)
    return content(tmp_path / "whole")


@pytest.mark.parametrize("parallel", [True, False])
@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_workers_changes_no_byte(
    tmp_path: Path, whole: dict[str, bytes], parallel: bool, workers: int
) -> None:
    make(tmp_path / "c", Counting(parallel), workers=workers)
    assert content(tmp_path / "c") == whole


@pytest.mark.parametrize("parts", [["0/2", "1/2"], ["1/2", "0/2"], ["2/3", "0/2", "1/3", "1/2"]])
def test_parts_of_a_job_array_end_with_the_bytes_of_one_call(
    tmp_path: Path, whole: dict[str, bytes], parts: list[str]
) -> None:
    complete = [make(tmp_path / "c", shard=part)[1] for part in parts]
    assert complete == [False] * (len(parts) - 1) + [True]
    assert content(tmp_path / "c") == whole
    assert make(tmp_path / "c") == (0, True)


def test_parallel_encoders_work_at_once_and_in_bounded_number(tmp_path: Path) -> None:
    how = Counting(parallel=True)
    make(tmp_path / "c", how, workers=3)
    assert 2 <= how.most <= 3


def test_readers_do_not_run_ahead_of_a_slow_encoder(tmp_path: Path) -> None:
    how = Counting(parallel=False)
    make(tmp_path / "c", how, workers=3)
    assert how.most == 1
    assert how.ahead <= 3 * PER_SHARD


@pytest.mark.parametrize("workers", [1, 3])
def test_a_stop_keeps_what_was_under_way_and_the_next_call_ends_with_the_same_bytes(
    tmp_path: Path, whole: dict[str, bytes], workers: int
) -> None:
    class After(Stop):
        asked = 0

        def check(self, finished: str) -> None:
            self.asked += 1
            if self.asked > 3:
                raise Interrupted(finished)

    with pytest.raises(Interrupted, match=rf"of {ITEMS} items of film are stored"):
        encode(config(tmp_path / "c", workers=workers), make_plan(Doubling()), silent, After())
    stored = len(list((tmp_path / "c").rglob("shard-*.h5")))
    assert 3 <= stored < 6
    encoded, complete = make(tmp_path / "c", workers=workers)
    assert complete
    assert encoded == ITEMS - stored * PER_SHARD
    assert content(tmp_path / "c") == whole


def test_a_limit_is_a_part_that_a_full_call_completes(tmp_path: Path) -> None:
    assert make(tmp_path / "c", limit=6) == (6, False)
    encoded, complete = make(tmp_path / "c")
    assert (encoded, complete) == (ITEMS - 6, True)


def test_workers_are_counted_from_the_cores_that_may_be_used(tmp_path: Path) -> None:
    assert engine.workers(config(tmp_path, workers="auto")) == len(os.sched_getaffinity(0))
    assert engine.workers(config(tmp_path, workers=5)) == 5


@needs_ray
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_two_ray_workers_end_with_the_same_bytes(tmp_path: Path, whole: dict[str, bytes]) -> None:
    make(tmp_path / "c", engine="ray", workers=2)
    assert content(tmp_path / "c") == whole


@needs_ray
@pytest.mark.slow
@pytest.mark.fault
@pytest.mark.filterwarnings("ignore")
def test_a_killed_ray_worker_changes_nothing(tmp_path: Path, whole: dict[str, bytes]) -> None:
    marker = tmp_path / "marker"
    marker.touch()
    make(tmp_path / "c", Dying(marker), engine="ray", workers=2)
    assert not marker.exists()
    assert content(tmp_path / "c") == whole


@needs_ray
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_two_extractions_of_one_space_in_one_ray_each_have_their_own_rows(tmp_path: Path) -> None:
    import ray

    make(tmp_path / "whole", Tripling())
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        make(tmp_path / "doubled", engine="ray")
        make(tmp_path / "tripled", Tripling(), engine="ray")
    finally:
        ray.shutdown()
    assert content(tmp_path / "tripled") == content(tmp_path / "whole")


@needs_ray
@pytest.mark.filterwarnings("ignore")
def test_a_lost_node_is_no_bug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    def lost(**_: object) -> NoReturn:
        raise ray.exceptions.NodeDiedError("its heartbeat is missing")

    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "remote", lost)
    with pytest.raises(ResourceError, match=r"NodeDiedError.*the same command continues"):
        make(tmp_path / "c", engine="ray", workers=1)


@needs_ray
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_what_a_ray_worker_raises_is_the_error_itself(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        make(tmp_path / "c", Refusing(), engine="ray", workers=1)
    assert str(raised.value) == "weights.safetensors is not here"
