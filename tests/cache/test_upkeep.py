from __future__ import annotations

import json
import os
import time
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pytest
import torch
from typer.testing import CliRunner

from cm2.cache import atomic, checkpoint, upkeep
from cm2.cache.store import Space, Store, StoreWriter
from cm2.commands.cache import cache_app
from cm2.errors import DataError, IntegrityError


def _old(path: Path) -> Path:
    os.utime(path, (time.time() - 7200, time.time() - 7200))
    return path


@pytest.fixture
def run(cache: Path) -> Path:
    """A finished run in the cache, and a table of events."""
    folder = cache / "runs" / "cm2-ihm-0123"
    digest = atomic.write_parquet(folder / "predictions" / "val.parquet", pa.table({"p": [0.5]}))
    atomic.write_json(folder / "config.json", {"model": "cm2"})
    content = {"status": "finished", "model": "cm2", "predictions": {"val": digest}}
    atomic.write_json(folder / "run.json", content)
    checkpoint.save(folder / "best.safetensors", {"w": torch.ones(3)}, {"epoch": 1})
    (folder / "lease.json").write_text("{}")
    digest = atomic.write_parquet(cache / "events" / "ab.parquet", pa.table({"hours": [1.0]}))
    atomic.write_json(cache / "events" / "ab.json", {"parquet": digest})
    return folder


def test_ls_tells_every_part_of_a_cache(cache: Path, run: Path, small: ModuleType) -> None:
    StoreWriter(cache, small.space("report"), {}).commit(
        "0" * 12, small.encode(0), small.stamps(small.encode(0))
    )
    (cache / "runs" / "begun").mkdir()
    told = {row["name"]: row for row in upkeep.ls(cache)}
    parts = {name: (row["kind"], row["state"], row["rows"]) for name, row in told.items()}
    assert parts == {
        "default": ("cohort", "complete", 8),
        f"cxr@{small.space().id}": ("store", "complete", 12),
        f"report@{small.space('report').id}": ("store", "unfinished", None),
        "ab": ("events", "complete", None),
        "begun": ("run", "unfinished", None),
        "cm2-ihm-0123": ("run", "finished", None),
    }
    sizes = sum(row["bytes"] for row in told.values())
    assert sizes == sum(
        p.stat().st_size for p in cache.rglob("*") if p.is_file() and p.name != "ab.json"
    )
    json.dumps(upkeep.ls(cache))


def test_ls_goes_on_past_a_damaged_part(cache: Path, run: Path) -> None:
    manifest = next(cache.glob("stores/*/*/manifest.json"))
    manifest.write_text("{}")
    told = {row["kind"]: row for row in upkeep.ls(cache)}
    assert told["store"]["state"] == "damaged"
    assert "cm2 extract --modality cxr" in told["store"]["detail"]
    assert told["cohort"]["state"] == "complete"


def test_a_whole_cache_verifies(cache: Path, run: Path) -> None:
    assert upkeep.verify(cache) == []
    assert upkeep.inspect(cache, True)["kind"] == "cache"
    assert upkeep.inspect(run, True)["kind"] == "run"


def test_verify_finds_every_file_that_was_altered(cache: Path, run: Path) -> None:
    files = [p for p in sorted(cache.rglob("*")) if p.is_file() and p.name != "lease.json"]
    assert len(files) == 4 + 11 + 4 + 2
    for path in files:
        data = path.read_bytes()
        middle = len(data) // 2
        path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
        problems = upkeep.verify(cache)
        assert problems, path
        assert any(str(path) in problem for problem in problems), (path, problems)
        with pytest.raises(IntegrityError):
            upkeep.inspect(cache, True)
        path.write_bytes(data)
    assert upkeep.verify(cache) == []


def test_verify_names_a_store_that_is_gone_with_the_vectors_of_a_cohort(cache: Path) -> None:
    (manifest,) = cache.glob("stores/cxr/*/manifest.json")
    manifest.unlink()
    (problem,) = upkeep.verify(cache)
    assert "'default' links" in problem
    assert "cm2 extract --modality cxr" in problem


def test_verify_lists_all_problems_not_the_first_alone(cache: Path) -> None:
    for path in cache.glob("stores/*/*/shard-*.h5"):
        path.write_bytes(b"")
    problems = upkeep.verify(cache)
    assert len(problems) == 3
    assert all("cm2 extract --modality cxr" in problem for problem in problems)


@pytest.mark.parametrize("function", [upkeep.ls, upkeep.verify, lambda p: upkeep.gc(p, True)])
def test_what_is_no_cache_is_named(tmp_path: Path, function: object) -> None:
    with pytest.raises(DataError, match="is no cache"):
        function(tmp_path)  # type: ignore[operator]


def test_gc_removes_old_leftovers_and_nothing_that_counts(
    cache: Path, run: Path, small: ModuleType
) -> None:
    for path in cache.rglob("*"):
        if path.is_file():
            _old(path)
    assert upkeep.gc(cache, False) == []

    store = Store.open(cache, "cxr").path
    writer = StoreWriter(cache, small.space(), {})
    committed = small.encode(7)
    writer.commit("c" * 12, committed, small.stamps(committed))  # not folded yet
    kept = small.tree(cache)
    name = ".shard-x.h5.1-0123abcd.tmp"
    (store / ".shard-y.h5.1-0123abcd.tmp").touch()  # young: perhaps still written
    (store / "notes.txt").touch()
    leftovers = [
        store / name,
        cache / name,
        run / name,
        store / "shard-aaaaaaaaaaaa.h5",  # killed before its record
        store / "shard-bbbbbbbbbbbb.json",  # altered, so never committed
        store / "items-0123456789ab.parquet",
        cache / "cohorts/default/links/cxr-0123456789ab.parquet",
    ]
    for path in leftovers:
        path.write_bytes(b"")
    assert upkeep.gc(cache, True) == []  # all of them are young
    for path in [*leftovers, *store.glob("shard-c*"), store / "notes.txt"]:
        _old(path)
    assert upkeep.gc(cache, True) == sorted(leftovers)
    assert all(path.exists() for path in leftovers)
    assert upkeep.gc(cache, False) == sorted(leftovers)
    assert not any(path.exists() for path in leftovers)
    (store / "notes.txt").unlink()
    assert small.tree(cache) == kept


def test_gc_removes_superseded_shards_and_old_links(cache: Path, small: ModuleType) -> None:
    first = set(cache.rglob("shard-*")) | set(cache.glob("cohorts/*/links/*.parquet"))
    small.fill(cache, stamp="s1")
    from cm2.cache.cohort import write_links

    links = small.links().slice(0, 8)
    items = pa.array([["d00"] if row % 2 else [] for row in range(8)])
    write_links(cache, "default", "cxr", links.set_column(1, "items", items), {})
    for path in cache.rglob("*"):
        if path.is_file():
            _old(path)
    assert set(upkeep.gc(cache, False)) == first
    assert upkeep.verify(cache) == []
    assert small.fill(cache, stamp="s1")[1] == 0


def test_gc_refuses_to_guess_what_an_altered_manifest_names(cache: Path) -> None:
    manifest = next(cache.glob("stores/*/*/manifest.json"))
    manifest.write_text(manifest.read_text().replace("complete", "completE"))
    with pytest.raises(IntegrityError, match=r"manifest\.json"):
        upkeep.gc(cache, False)


def test_inspect_describes_each_kind(cache: Path, run: Path, small: ModuleType) -> None:
    store = Store.open(cache, "cxr").path
    kinds = {
        cache: "cache",
        cache / "cohorts/default": "cohort",
        store: "store",
        next(store.glob("shard-*.h5")): "shard",
        next(store.glob("shard-*.json")): "json",
        next(store.glob("items-*")): "table",
        store / "blank.safetensors": "checkpoint",
        run / "best.safetensors": "checkpoint",
        run: "run",
    }
    for path, kind in kinds.items():
        told = upkeep.inspect(path, True)
        assert told["kind"] == kind
        json.dumps(told)
    shard = upkeep.inspect(next(store.glob("shard-*.h5")))
    assert shard["arrays"] == {"values": {"dtype": "float32", "shape": [4, 6]}}
    best = upkeep.inspect(run / "best.safetensors")
    assert (best["meta"], best["tensors"]) == ({"epoch": 1}, {"w": {"dtype": "F32", "shape": [3]}})
    cohort = upkeep.inspect(cache / "cohorts/default")
    assert cohort["links"]["cxr"] == {"stays": 4, "rules": {"film": "last"}}


def test_inspect_refuses_what_is_altered_or_not_ours(cache: Path, run: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        upkeep.inspect(cache / "nowhere")
    (cache / "x.txt").touch()
    with pytest.raises(DataError, match="nothing that cm2 writes"):
        upkeep.inspect(cache / "x.txt")
    empty = cache / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match="is no cache"):
        upkeep.inspect(empty)
    for path in [run / "best.safetensors", next(cache.glob("stores/*/*/shard-*.h5"))]:
        path.write_bytes(path.read_bytes()[:-1] + b"#")
        with pytest.raises(IntegrityError, match="not what was written"):
            upkeep.inspect(path)
    with pytest.raises(IntegrityError, match="best"):
        upkeep.inspect(run, True)


def test_ls_says_what_stores_of_one_modality_have_of_their_own(
    tmp_path: Path, small: ModuleType
) -> None:
    parts: list[dict[str, object]] = [
        {"step": 2.0, "normal": {"pH": 7.4}, "rules": 1},
        {"step": 1.0, "normal": {"pH": 7.4, "Lactate": 1.2}, "rules": 1},
    ]
    for part in parts:
        writer = StoreWriter(tmp_path, Space("ehr", "vector", part), {})
        shard = small.encode(0)
        writer.commit("0" * 12, shard, small.stamps(shard))
        writer.finish(complete=True)
    said = sorted(row["detail"].partition("; ")[2] for row in upkeep.ls(tmp_path))
    assert said == ["own: Lactate, step 1.0", "own: step 2.0"]


def test_ls_calls_a_group_finished_when_its_runs_are(cache: Path, run: Path) -> None:
    group = run.parent / "seeds-of-one"
    members = [{"run": f"../{run.name}", "seed": 0, "fold": 0}]
    atomic.write_json(group / "group.json", {"members": members})
    states = []
    for status in ("finished", "running"):
        atomic.write_json(run / "run.json", {"status": status, "model": "cm2"})
        states += [row["state"] for row in upkeep.ls(cache) if row["name"] == group.name]
    assert states == ["finished", "unfinished"]


def test_gc_says_so_when_nothing_is_to_remove(cache: Path) -> None:
    assert CliRunner().invoke(cache_app, ["gc", str(cache)]).stdout == "nothing to remove\n"
