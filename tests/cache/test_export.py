from __future__ import annotations

import datetime
import tracemalloc
from pathlib import Path
from types import ModuleType
from typing import Literal

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from cm2.cache import atomic, blocks, reader
from cm2.cache.blocks import StayBlocks
from cm2.cache.cohort import Cohort, view, write_cohort, write_labels, write_links
from cm2.cache.export import export_arrays, export_labels
from cm2.cache.store import EncodedShard, Space, StoreWriter
from cm2.commands.cache import cache_app
from cm2.errors import ConfigError, DataError

COLUMNS = tuple(f"a column with quite a long name, number {i}" for i in range(3000))


def _series(cache: Path) -> None:
    """Stays 1 and 3 have a series, of two and three real steps."""
    mask = np.array([[True, True, False], [True, True, True]])
    values = np.ones((2, 3, len(COLUMNS)), np.float32) * mask[..., None]
    writer = StoreWriter(cache, Space("ehr", "series", {"step": 2}, COLUMNS), {})
    shard = EncodedShard(["a", "b"], ["h", "h"], {"values": values, "mask": mask}, {}, [])
    writer.commit("0" * 12, shard, {"a": "s", "b": "s"})
    writer.finish(complete=True)
    items = [["a"] if row == 1 else ["b"] if row == 3 else [] for row in range(8)]
    table = pa.table(
        {
            "stay_id": Cohort.open(cache).stays["stay_id"],
            "items": pa.array(items, pa.list_(pa.string())),
            "has": [bool(i) for i in items],
            "why_no": [None if i else "none" for i in items],
        }
    )
    write_links(cache, "default", "ehr", table, {})


def test_every_array_is_that_of_the_cache(cache: Path, tmp_path: Path) -> None:
    _series(cache)
    ids = [str(i) for i in Cohort.open(cache).stays["stay_id"].to_pylist()[:2]]
    aki = pa.table({"stay_id": ids, "y_aki": pa.array([1, None], pa.int8()), "in_aki": [True] * 2})
    cohort = write_labels(cache, "default", "aki", aki)
    export_arrays(cache, tmp_path / "all.h5")
    with h5py.File(tmp_path / "all.h5") as file:
        assert sorted(file) == [
            "available",
            "cxr",
            "ehr",
            "labels",
            "split",
            "stay_id",
            "subject_id",
        ]
        for name in ("stay_id", "subject_id"):
            assert file[name].dtype == np.int64
            assert file[name][:].tolist() == cohort.stays[name].to_pylist()
        assert file["split"].asstr()[:].tolist() == cohort.stays["split"].to_pylist()
        assert list(file["available"].attrs["modalities"]) == ["cxr", "ehr"]
        assert file["available"].dtype == bool
        for column, name in enumerate(("cxr", "ehr")):
            part = view(cache, cohort, name)
            assert np.array_equal(file["available"][:, column], part.has)
            assert np.array_equal(file[name]["values"], part.values)
            assert np.array_equal(file[name]["mask"], part.mask)
            assert file[name].attrs["view"] == part.view
        assert file["ehr/length"][:].tolist() == [0, 2, 0, 3, 0, 0, 0, 0]
        assert tuple(file["ehr"].attrs["columns"]) == COLUMNS
        assert "columns" not in file["cxr"].attrs
        assert file["labels/y_ihm"][:].tolist() == [0, 1] * 4
        assert file["labels/y_aki"][:].tolist() == [1] + [-1] * 7
        assert file["labels/in_aki"][:].tolist() == [True] * 2 + [False] * 6


def test_a_slash_in_a_label_makes_no_group(cache: Path, tmp_path: Path) -> None:
    stays = [str(i) for i in Cohort.open(cache).stays["stay_id"].to_pylist()]
    ones = pa.array([1] * len(stays), pa.int8())
    labels = pa.table({"stay_id": stays, "y_organs__liver": ones, "y_organs__liver/bile": ones})
    write_labels(cache, "default", "organs", labels)
    export_arrays(cache, tmp_path / "all.h5")
    with h5py.File(tmp_path / "all.h5") as file:
        for name in ("y_organs__liver", "y_organs__liver%2Fbile"):
            assert file["labels"][name].shape == (len(stays),)


@pytest.mark.parametrize("kind", ["series", "vector"])
def test_blocks_of_stays_are_those_of_the_whole_view(
    cache: Path, monkeypatch: pytest.MonkeyPatch, kind: Literal["series", "vector"]
) -> None:
    draw = np.random.default_rng(0)
    writer = StoreWriter(cache, Space("own", kind, {}, ("a", "b")), {})
    ids = [f"i{row}" for row in range(12)]
    for number, length in enumerate((2, 5, 3)):  # shards of their own lengths
        mine = ids[number::3]
        mask = np.arange(length) < draw.integers(1, length + 1, len(mine))[:, None]
        values = draw.normal(size=(len(mine), length, 2)).astype(np.float32) * mask[..., None]
        shard = EncodedShard(mine, ["h"] * 4, {"values": values, "mask": mask}, {}, [])
        writer.commit(f"{number}" * 12, shard, dict.fromkeys(mine, "s"))
    writer.finish(complete=True)
    items = [["i0"], [], ["i1", "i2", "i3"], ["i3"], ["i4", "i5"], ["i6"], [], ["i9", "i11"]]
    stays = Cohort.open(cache).stays["stay_id"]
    reasons = [None if i else "none" for i in items]
    has = [bool(i) for i in items]
    table = pa.table({"stay_id": stays, "items": items, "has": has, "why_no": reasons})
    write_links(cache, "default", "own", table, {})
    cohort = Cohort.open(cache)
    whole = view(cache, cohort, "own")
    for size in (1, 3, 100):
        monkeypatch.setattr(blocks, "STAYS", size)
        parts = StayBlocks(cache, cohort, "own")
        assert parts.shape == whole.values.shape
        assert np.array_equal(parts.has, whole.has)
        values, mask = zip(*parts, strict=True)
        assert max(map(len, values)) == min(size, 8)
        assert np.array_equal(np.concatenate(values), whole.values)
        assert np.array_equal(np.concatenate(mask), whole.mask)


def test_memory_does_not_grow_with_the_file(
    tmp_path: Path, small: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, width = 256, 8192
    cache = tmp_path / "c"
    write_cohort(cache, "default", small.stays(count), {})
    writer = StoreWriter(cache, Space("wide", "vector", {}, ()), {})
    ids = [f"i{row:04d}" for row in range(count)]
    for start in range(0, count, 16):
        mine = ids[start : start + 16]
        values = np.full((16, width), start, np.float32)
        shard = EncodedShard(mine, ["h"] * 16, {"values": values}, {}, [])
        writer.commit(f"{start:012d}", shard, dict.fromkeys(mine, "s"))
    writer.finish(complete=True)
    stays = small.stays(count)["stay_id"]
    reasons = pa.nulls(count, pa.string())
    has = [True] * count
    table = pa.table({"stay_id": stays, "items": [[i] for i in ids], "has": has, "why_no": reasons})
    write_links(cache, "default", "wide", table, {})
    monkeypatch.setattr(reader, "HELD_BYTES", 1)
    monkeypatch.setattr(blocks, "STAYS", 16)
    tracemalloc.start()
    export_arrays(cache, tmp_path / "x.h5")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    size = (tmp_path / "x.h5").stat().st_size
    assert size > 4 * count * width
    assert peak < 0.6 * size
    with h5py.File(tmp_path / "x.h5") as file:
        assert file["wide/values"][:, 0, -1].tolist() == [row // 16 * 16 for row in range(count)]


def test_modalities_can_be_chosen_and_text_ids_stay_text(tmp_path: Path, small: ModuleType) -> None:
    stays = small.stays()
    ids = pa.array([f"é-{i}" for i in range(8)])
    stays = stays.set_column(0, "stay_id", ids)
    write_cohort(tmp_path / "c", "default", stays, {})
    small.fill(tmp_path / "c")
    links = small.links().set_column(0, "stay_id", ids)
    write_links(tmp_path / "c", "default", "cxr", links, {})
    _series(tmp_path / "c")
    export_arrays(tmp_path / "c", tmp_path / "one.h5", modalities=["cxr"])
    with h5py.File(tmp_path / "one.h5") as file:
        assert "ehr" not in file
        assert file["available"].shape == (8, 1)
        assert file["stay_id"].asstr()[:].tolist() == ids.to_pylist()


def test_equal_caches_give_equal_bytes_and_an_old_file_needs_force(
    cache: Path, tmp_path: Path
) -> None:
    out = tmp_path / "x.h5"
    export_arrays(cache, out)
    first = atomic.sha256_file(out)
    for write in (export_arrays, export_labels):
        with pytest.raises(ConfigError, match="--force"):
            write(cache, out)
    assert atomic.sha256_file(out) == first
    export_arrays(cache, out, force=True)
    assert atomic.sha256_file(out) == first


def test_a_stop_leaves_the_old_file(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "x.h5"
    out.write_bytes(b"old")

    def stop(kind: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(atomic, "step_hook", stop)
    with pytest.raises(KeyboardInterrupt):
        export_arrays(cache, out, force=True)
    assert out.read_bytes() == b"old"


@pytest.mark.parametrize("names", [["labels"], ["cxr", "cxr@0123456789ab"]])
def test_a_modality_that_cannot_name_a_group_is_refused(
    cache: Path, tmp_path: Path, names: list[str]
) -> None:
    with pytest.raises(ConfigError, match="cannot name a group"):
        export_arrays(cache, tmp_path / "x.h5", modalities=names)


def test_labels_become_rows_of_eligible_stays_with_a_known_label(tmp_path: Path) -> None:
    times = [datetime.datetime(2150, 1, 1), datetime.datetime(2150, 1, 2, 3), None, None]
    stays = pa.table(
        {
            "stay_id": [1, 2, 3, 4],
            "subject_id": [11, 12, 13, 13],
            "split": ["train"] * 4,
            "intime": pa.array(times, pa.timestamp("us")),
            "in_ihm": [True, False, True, True],
            "y_ihm": pa.array([1, 1, 0, None], pa.int8()),
            "in_ph": [True] * 4,
            "y_ph__a": pa.array([None, 0, None, None], pa.int8()),
            "y_ph__b": pa.array([None, 1, None, None], pa.int8()),
        }
    )
    write_cohort(tmp_path, "default", stays, {"rules": {"prediction_hours": 48}})
    write_cohort(tmp_path, "own", stays, {"rules": {}})
    assert export_labels(tmp_path, tmp_path / "l.parquet") == 4
    table = pq.read_table(tmp_path / "l.parquet")
    assert table.schema.field("subject_id").type == pa.int64()
    assert table.schema.field("prediction_time").type == pa.timestamp("us")
    assert list(zip(*table.to_pydict().values(), strict=True)) == [
        (11, datetime.datetime(2150, 1, 3), True, "ihm", 1),
        (13, None, False, "ihm", 3),
        (12, datetime.datetime(2150, 1, 4, 3), False, "ph__a", 2),
        (12, datetime.datetime(2150, 1, 4, 3), True, "ph__b", 2),
    ]
    export_labels(tmp_path, tmp_path / "own.parquet", "own")
    assert pq.read_table(tmp_path / "own.parquet")["prediction_time"].null_count == 4


def test_a_cohort_without_what_is_asked_for_is_refused(tmp_path: Path, small: ModuleType) -> None:
    stays = small.stays().drop_columns(["in_ihm", "y_ihm"])
    write_cohort(tmp_path, "default", stays, {})
    with pytest.raises(DataError, match="no task"):
        export_labels(tmp_path, tmp_path / "l.parquet")
    with pytest.raises(DataError, match="no modality"):
        export_arrays(tmp_path, tmp_path / "x.h5")


def test_the_command_writes_both_and_reminds_of_the_terms_of_use(
    cache: Path, tmp_path: Path
) -> None:
    out, labels = tmp_path / "x.h5", tmp_path / "l.parquet"
    arguments = ["export", str(cache), "--out", str(out), "--labels", str(labels)]
    done = CliRunner().invoke(cache_app, [*arguments, "--modalities", "cxr"])
    assert done.exit_code == 0, done.output
    assert done.stdout.split() == [str(out), str(labels)]
    assert "Do not pass them on" in done.stderr
    assert pq.read_table(labels).num_rows == 8
    out.unlink()
    assert isinstance(CliRunner().invoke(cache_app, arguments).exception, ConfigError)
    assert not out.exists()  # nothing is written when one of both is in the way
    assert isinstance(CliRunner().invoke(cache_app, ["export", str(cache)]).exception, ConfigError)
    labels.unlink()
    alone = ["export", str(cache), "--labels", str(labels), "--modalities", "cxr"]
    assert "--modalities chooses arrays" in str(CliRunner().invoke(cache_app, alone).exception)
    assert not labels.exists()


def test_labels_under_another_name_than_that_of_their_kind_leave_no_arrays_behind(
    cache: Path, tmp_path: Path
) -> None:
    out, labels = tmp_path / "x.h5", tmp_path / "labels.csv"
    arguments = ["export", str(cache), "--out", str(out), "--labels", str(labels)]
    failed = CliRunner().invoke(cache_app, arguments).exception
    assert isinstance(failed, ConfigError)
    assert "ends in .parquet" in str(failed)
    assert not out.exists()
    assert not labels.exists()
