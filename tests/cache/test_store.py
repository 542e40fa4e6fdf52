from __future__ import annotations

import dataclasses
import logging
import math
from pathlib import Path
from random import Random
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cm2.cache import atomic, checkpoint, reader, record
from cm2.cache.layout import BLANK, MANIFEST, check_name
from cm2.cache.store import EncodedShard, Reject, Space, Store, StoreWriter
from cm2.errors import ConfigError, DataError, IntegrityError

SERIES = Space("ehr", "series", {"step": 2}, ("a", "b"))


def _series(lengths: list[int], steps: int, first: int = 0) -> EncodedShard:
    """Items of these real lengths, padded to `steps`; values are id + step / 100."""
    mask = np.arange(steps)[None, :] < np.array(lengths)[:, None]
    values = (np.arange(len(lengths))[:, None] + first + np.arange(steps)[None] / 100)[..., None]
    return EncodedShard(
        [f"i{first + n}" for n in range(len(lengths))],
        [f"h{first + n}" for n in range(len(lengths))],
        {"values": np.repeat(values, 2, axis=2).astype(np.float32), "mask": mask},
        {},
        [],
    )


def _commit(writer: StoreWriter, name: str, shard: EncodedShard, stamp: str = "s") -> None:
    ids = [*shard.item_ids, *(reject.item_id for reject in shard.rejects)]
    writer.commit(name, shard, dict.fromkeys(ids, stamp))


def test_items_read_back_in_the_order_asked(cache: Path, small: ModuleType) -> None:
    store = Store.open(cache, "cxr")
    asked = ["d21", "d00", "d21", "d13"]
    read = store.read(asked)["values"]
    for row, item in enumerate(asked):
        assert (read[row] == small.encode(int(item[1])).arrays["values"][int(item[2])]).all()
    assert store.read([])["values"].shape == (0, 6)


def test_the_tables_hold_facts_and_rejects_in_order_of_the_ids(
    cache: Path, small: ModuleType
) -> None:
    store = Store.open(cache, "cxr")
    assert store.items["item_id"].to_pylist() == [f"d{c}{r}" for c in range(3) for r in range(4)]
    assert store.items["view"].to_pylist() == ["AP", None, "PA", "AP"] * 3
    assert store.items["bytes"].to_pylist() == [0, 1, 2, 3] * 3
    assert store.rejects.select(["item_id", "stage", "error", "message"]).to_pylist() == [
        {"item_id": f"r{c}", "stage": "decode", "error": "OSError", "message": "truncated file"}
        for c in range(3)
    ]
    assert store.blank()["values"].tolist() == [0.0] * 6


def test_the_tables_are_ordered_by_id_whatever_the_shards_are_called(
    tmp_path: Path, small: ModuleType
) -> None:
    writer = StoreWriter(tmp_path, small.space(), {})
    for chunk, name in enumerate(("f" * 12, "a" * 12)):
        _commit(writer, name, small.encode(chunk))
    store = writer.finish(True)
    assert store.items["item_id"].to_pylist() == [f"d{c}{r}" for c in range(2) for r in range(4)]
    assert store.rejects["item_id"].to_pylist() == ["r0", "r1"]


def test_a_finished_store_needs_no_work(cache: Path, small: ModuleType) -> None:
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("*")}
    _, redone = small.fill(cache)
    assert redone == 0
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*")} == before


def test_the_bytes_do_not_depend_on_the_order_of_the_shards(
    tmp_path: Path, small: ModuleType
) -> None:
    small.fill(tmp_path / "a")
    small.fill(tmp_path / "b", chunks=range(2, -1, -1))
    assert small.tree(tmp_path / "a") == small.tree(tmp_path / "b")


def test_missing_items_and_stores_name_what_to_do(cache: Path) -> None:
    with pytest.raises(DataError, match=r"1 of 2 items.*'no'.*cm2 extract --modality cxr"):
        Store.open(cache, "cxr").read(["d00", "no"])
    with pytest.raises(
        DataError, match=r"there is cxr\. .*cm2 extract --modality report --data ROOT"
    ):
        Store.open(cache, "report")
    with pytest.raises(DataError, match=r"there is [0-9a-f]{12}"):
        Store.open(cache, "cxr", "0" * 12)


def test_several_stores_of_a_modality_must_be_told_apart(cache: Path, small: ModuleType) -> None:
    other = dataclasses.replace(small.space(), parts={"encoder": "other"})
    writer = StoreWriter(cache, other, {})
    _commit(writer, "0" * 12, small.encode(0))
    writer.finish(True)
    with pytest.raises(ConfigError, match=f"2 stores(.|\n)*cxr@{other.id}"):
        Store.open(cache, "cxr")
    assert Store.open(cache, "cxr", other.id).space == other


def test_a_limited_extraction_leaves_a_partial_store_that_a_full_one_completes(
    tmp_path: Path, small: ModuleType
) -> None:
    store, _ = small.fill(tmp_path / "a", chunks=range(1), complete=False)
    assert store.manifest["state"] == "partial"
    assert store.items.num_rows == 4
    store, redone = small.fill(tmp_path / "a")
    assert (store.manifest["state"], redone) == ("complete", 2)
    small.fill(tmp_path / "b")
    assert small.tree(tmp_path / "a") == small.tree(tmp_path / "b")


def test_a_limited_call_on_a_complete_store_leaves_it_complete(
    cache: Path, small: ModuleType
) -> None:
    store, redone = small.fill(cache, chunks=range(1), complete=False)
    assert (store.manifest["state"], redone) == ("complete", 0)
    store, redone = small.fill(cache, chunks=range(4), complete=False)
    assert (store.manifest["state"], redone) == ("partial", 1)


def test_a_new_stamp_supersedes_and_its_return_supersedes_again(
    cache: Path, small: ModuleType
) -> None:
    first = small.tree(cache)
    items = ["d00", "d23", "d11"]
    old = Store.open(cache, "cxr").read(items)["values"]
    store, redone = small.fill(cache, stamp="s1", chunks=range(1))
    assert redone == 1
    read = store.read(items)["values"]
    assert (read[0] == small.encode(0, "s1").arrays["values"][0]).all()
    assert (read[1:] == old[1:]).all()
    assert set(store.items["stamp"].to_pylist()) == {"s0", "s1"}
    assert store.rejects.num_rows == 3
    assert small.fill(cache, stamp="s1", chunks=range(1))[1] == 0

    store, redone = small.fill(cache)  # the source is as it was before
    assert redone == 1
    assert (store.read(items)["values"] == old).all()
    assert small.fill(cache)[1] == 0
    assert set(first) - set(small.tree(cache)) == set()


def test_superseding_does_not_depend_on_the_order_of_folding(
    tmp_path: Path, small: ModuleType
) -> None:
    small.fill(tmp_path / "a")
    small.fill(tmp_path / "a", stamp="s1")
    writer = StoreWriter(tmp_path / "b", small.space(), {"source": "small"})
    for stamp in ("s0", "s1"):
        for chunk in (2, 0, 1):
            encoded = small.encode(chunk, stamp)
            given = small.stamps(encoded, stamp)
            writer.commit(small.name_of(given), encoded, given)
    writer.write_blank({"values": np.zeros(6, np.float32)})
    writer.finish(True)
    assert small.tree(tmp_path / "a") == small.tree(tmp_path / "b")


def test_an_item_may_turn_from_reject_to_vector(cache: Path, small: ModuleType) -> None:
    writer = StoreWriter(cache, small.space(), {})
    mended = dataclasses.replace(small.encode(0, items=1), item_ids=["r0"], rejects=[])
    _commit(writer, "a" * 12, mended, "s1")
    store = writer.finish(True)
    assert "r0" not in store.rejects["item_id"].to_pylist()
    assert store.read(["r0"])["values"].shape == (1, 6)


def test_content_depends_on_the_vectors_alone(tmp_path: Path, small: ModuleType) -> None:
    a, _ = small.fill(tmp_path / "a")
    items = ["d00", "d11"]
    assert a.content(items) == a.content(items[::-1]) == a.content([*items, "d00"])
    assert a.content(items) != a.content(["d00", "d12"])
    one, _ = small.fill(tmp_path / "b", chunks=range(2), complete=False)
    assert one.content(items) == a.content(items)
    changed, _ = small.fill(tmp_path / "a", stamp="s1", chunks=range(1))
    assert changed.content(items) != a.content(items)
    assert changed.content(["d11"]) == a.content(["d11"])


def test_content_does_not_depend_on_the_padding_of_the_shard(tmp_path: Path) -> None:
    contents = set()
    for folder, steps in (("a", 5), ("b", 9)):
        writer = StoreWriter(tmp_path / folder, SERIES, {})
        _commit(writer, "0" * 12, _series([3, 5], steps))
        contents.add(writer.finish(True).content(["i0", "i1"]))
    assert len(contents) == 1


def test_shards_of_other_lengths_are_padded_to_the_longest_read(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path, SERIES, {})
    _commit(writer, "0" * 12, _series([3, 2], 3))
    _commit(writer, "1" * 12, _series([5, 4], 5, first=2))
    store = writer.finish(True)
    read = store.read(["i3", "i0"])
    assert read["values"].shape == (2, 5, 2)
    assert read["mask"].tolist() == [[True] * 4 + [False], [True] * 3 + [False] * 2]
    assert (read["values"][~read["mask"]] == 0).all()
    assert store.read(["i0"])["values"].shape == (1, 3, 2)
    assert store.manifest["arrays"]["values"] == {"dtype": "float32", "shape": [5, 2]}


def test_values_behind_the_mask_are_stored_as_zeros(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path, SERIES, {})
    _commit(writer, "0" * 12, _series([1], 2))
    assert writer.finish(True).read(["i0"])["values"][0, 1].tolist() == [0.0, 0.0]


def test_a_shard_of_rejects_alone_needs_no_data(tmp_path: Path, small: ModuleType) -> None:
    writer = StoreWriter(tmp_path, small.space(), {})
    rejects = [Reject("x", "read", "FileNotFoundError", "not there")]
    _commit(writer, "0" * 12, EncodedShard([], [], {}, {}, rejects))
    assert writer.committed("0" * 12)
    store = writer.finish(True)
    assert (store.items.num_rows, store.rejects.num_rows) == (0, 1)
    assert StoreWriter(tmp_path, small.space(), {}).known() == {"x": "s"}
    store.verify()


_GOOD = np.ones((1, 2, 2), np.float32)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"values": _GOOD * math.nan}, DataError, "item 'i0' holds NaN"),
        ({"values": _GOOD * math.inf}, DataError, "item 'i0' holds NaN or infinity"),
        ({"values": _GOOD, "more": _GOOD * math.nan}, DataError, "Array 'more' of item 'i0'"),
        ({"values": _GOOD.astype(np.float64)}, ConfigError, "found float64"),
        ({"values": np.ones((1, 2, 2), np.int32)}, ConfigError, "found int32"),
        ({"values": np.ones((2, 2, 2), np.float32)}, ConfigError, "expected 1 rows"),
        ({"values": np.ones((1, 2), np.float32)}, ConfigError, "series have 3 axes"),
        ({"values": np.ones((1, 0, 2), np.float32)}, ConfigError, "found shape"),
        ({"values": np.ones((1, 2, 3), np.float32)}, ConfigError, "2 columns.* have 3"),
        ({}, ConfigError, "needs the array 'values'"),
        ({"values": _GOOD, "../x": _GOOD}, ConfigError, "Array '../x'"),
        ({"values": _GOOD, "text": np.array(["a"])}, ConfigError, "Array 'text'"),
        ({"values": _GOOD, "object": np.array([None])}, ConfigError, "found object"),
        ({"values": _GOOD, "mask": np.zeros((1, 2), bool)}, DataError, "'i0' has no real step"),
        ({"values": _GOOD, "mask": np.ones((1, 3), bool)}, ConfigError, r"mask must be bool"),
        ({"values": _GOOD, "mask": np.ones((1, 2), np.uint8)}, ConfigError, "mask must be bool"),
    ],
)
def test_what_may_not_be_stored_is_refused_at_commit(
    tmp_path: Path, change: dict[str, np.ndarray], error: type[Exception], message: str
) -> None:
    writer = StoreWriter(tmp_path, SERIES, {})
    with pytest.raises(error, match=message):
        _commit(writer, "0" * 12, EncodedShard(["i0"], ["h"], change, {}, []))
    assert not writer.committed("0" * 12)
    assert not list(tmp_path.rglob("shard-*"))


@pytest.mark.parametrize(
    ("shard", "message"),
    [
        (EncodedShard(["a", "a"], ["h", "h"], {}, {}, []), "may stand once"),
        (EncodedShard(["a"], ["h"], {}, {}, [Reject("a", "read", "E", "m")]), "may stand once"),
        (EncodedShard([""], ["h"], {}, {}, []), "1 to 256 printable"),
        (EncodedShard(["a\0b"], ["h"], {}, {}, []), "1 to 256 printable"),
        (EncodedShard([1], ["h"], {}, {}, []), "printable characters, found 1"),  # type: ignore[list-item]
        (EncodedShard(["a"], [], {}, {}, []), "1 items, but 0 source hashes"),
        (EncodedShard([], [], {}, {}, [Reject("a", "lost", "E", "m")]), "stage is one of"),
        (EncodedShard(["i"], ["h"], {"values": _GOOD}, {"row": [1]}, []), "Fact 'row'"),
        (EncodedShard(["i"], ["h"], {"values": _GOOD}, {"f": [1, 2]}, []), "Fact 'f'"),
        (EncodedShard(["i"], ["h"], {"values": _GOOD}, {"f": [[1]]}, []), "found list"),
        (EncodedShard(["i"], ["h"], {"values": _GOOD}, {"f": [math.nan]}, []), "finite"),
    ],
)
def test_items_and_facts_are_checked_at_commit(
    tmp_path: Path, shard: EncodedShard, message: str
) -> None:
    writer = StoreWriter(tmp_path, SERIES, {})
    with pytest.raises(ConfigError, match=message):
        _commit(writer, "0" * 12, shard)
    assert not writer.committed("0" * 12)


def test_every_item_needs_its_stamp(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path, SERIES, {})
    with pytest.raises(ConfigError, match="1 stamps for 2 ids"):
        writer.commit("0" * 12, _series([1, 1], 2), {"i0": "s"})


def test_numpy_scalars_among_the_facts_are_stored_as_numbers(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path, SERIES, {})
    shard = dataclasses.replace(_series([1, 1], 2), facts={"n": [np.int64(3), None]})
    _commit(writer, "0" * 12, shard)
    assert writer.finish(True).items["n"].to_pylist() == [3, None]


def test_shards_of_unlike_arrays_are_refused(tmp_path: Path, small: ModuleType) -> None:
    writer = StoreWriter(tmp_path, small.space(), {})
    _commit(writer, "0" * 12, small.encode(0))
    half = small.encode(1)
    half.arrays["values"] = half.arrays["values"].astype(np.float16)
    _commit(writer, "1" * 12, half)
    with pytest.raises(DataError, match="must be encoded alike"):
        writer.finish(True)


@pytest.mark.parametrize("name", ["", "../x", "A" * 12, "0" * 11, "0" * 13, "/etc/passwd"])
def test_shard_names_are_twelve_hexadecimal_digits(tmp_path: Path, name: str) -> None:
    writer = StoreWriter(tmp_path, SERIES, {})
    with pytest.raises(ConfigError, match="12 hexadecimal digits"):
        writer.committed(name)
    with pytest.raises(ConfigError, match="12 hexadecimal digits"):
        _commit(writer, name, _series([1], 2))


BAD_NAMES = ["", ".", "..", "../x", "/x", "a/b", "a\\b", "~", "a b", "a\0", "é", "-x", ".x", "x."]


@pytest.mark.parametrize("name", [*BAD_NAMES, "con", "NUL", "aux.txt", "Com1", "x" * 65, "a\n"])
def test_names_that_leave_the_folder_or_some_system_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot name a folder on every system"):
        Space(name, "vector", {})
    with pytest.raises(ConfigError, match="cannot name a folder on every system"):
        Store.open(tmp_path, name)


@given(st.from_regex(r"[a-z0-9_][a-z0-9._-]{0,20}[a-z0-9_]", fullmatch=True))
def test_usual_names_are_accepted(name: str) -> None:
    reserved = name.split(".")[0] in {"con", "prn", "aux", "nul"} or name[:3] in {"com", "lpt"}
    if not reserved:
        assert check_name(name, "Cohort") == name


def test_a_name_that_differs_in_case_alone_is_refused(cache: Path) -> None:
    with pytest.raises(ConfigError, match="'cxr' only in upper and lower case"):
        StoreWriter(cache, Space("CXR", "vector", {}), {})


def test_a_store_that_leads_out_of_the_cache_is_refused(
    cache: Path, tmp_path: Path, small: ModuleType
) -> None:
    folder = cache / "stores" / "cxr"
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(IntegrityError, match="leads out of the cache"):
        Store.open(cache, "cxr")
    with pytest.raises(IntegrityError, match="leads out of the cache"):
        StoreWriter(cache, small.space(), {})


def test_a_cache_may_be_moved(cache: Path, tmp_path: Path, small: ModuleType) -> None:
    before = small.tree(cache)
    cache.rename(tmp_path / "moved")
    _, redone = small.fill(tmp_path / "moved")
    assert redone == 0
    assert small.tree(tmp_path / "moved") == before
    for path in (tmp_path / "moved").rglob("*.json"):
        assert str(tmp_path) not in path.read_text()


def test_the_space_names_the_folder_and_tells_views_apart() -> None:
    assert SERIES.id == Space("ehr", "series", {"step": 2}, ("a", "b")).id
    others = [
        dataclasses.replace(SERIES, parts={"step": 1}),
        dataclasses.replace(SERIES, columns=("b", "a")),
        dataclasses.replace(SERIES, view="vector"),
        dataclasses.replace(SERIES, modality="labs"),
    ]
    assert len({space.id for space in [SERIES, *others]}) == 5
    assert SERIES.id == "0db917fcde5b"  # a new id would orphan every store in the world
    with pytest.raises(ConfigError, match="finite"):
        Space("ehr", "series", {"step": math.nan})
    with pytest.raises(ConfigError, match="series, vector, pixels, files; found 'grid'"):
        Space("ehr", "grid", {})  # type: ignore[arg-type]


def test_a_half_built_store_wants_the_library_versions_it_was_begun_with(
    tmp_path: Path, small: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    small.fill(tmp_path, chunks=range(1), complete=False)
    now = record.library_versions()
    monkeypatch.setattr(record, "library_versions", lambda: {**now, "torch": "9.9"})
    with pytest.raises(ConfigError, match=r"half-built.*torch .*here is torch 9\.9"):
        small.fill(tmp_path)
    assert Store.open(tmp_path, "cxr").read(["d00"])["values"].shape == (1, 6)
    monkeypatch.undo()
    small.fill(tmp_path)
    monkeypatch.setattr(record, "library_versions", lambda: {**now, "torch": "9.9"})
    assert small.fill(tmp_path)[1] == 0
    store, redone = small.fill(tmp_path, chunks=range(4))
    assert redone == 1
    assert [versions["torch"] for versions in store.manifest["versions"]] == sorted(
        [now["torch"], "9.9"]
    )


def test_a_newer_schema_asks_for_a_newer_program(cache: Path) -> None:
    path = Store.open(cache, "cxr").path / MANIFEST
    content = atomic.read_json(path, "")
    atomic.write_json(path, {**content, "schema_version": 2})
    with pytest.raises(IntegrityError, match="schema version 2, this cm2 knows 1"):
        Store.open(cache, "cxr")


def test_a_store_in_the_folder_of_another_space_is_refused(cache: Path) -> None:
    path = Store.open(cache, "cxr").path
    path.rename(path.with_name("0" * 12))
    with pytest.raises(IntegrityError, match="manifest of the space"):
        Store.open(cache, "cxr")


def test_only_shards_of_the_manifest_are_read(cache: Path, small: ModuleType) -> None:
    writer = StoreWriter(cache, small.space(), {})
    _commit(writer, "a" * 12, small.encode(9))
    store = Store.open(cache, "cxr")
    assert not store.holds("d90")
    with pytest.raises(DataError, match="d90"):
        store.read(["d90"])
    assert writer.committed("a" * 12)
    assert "d90" not in writer.known()
    assert "d90" in StoreWriter(cache, small.space(), {}).finish(True).items["item_id"].to_pylist()


@pytest.mark.parametrize("victim", ["h5", "record"])
@pytest.mark.parametrize("how", ["delete", "cut", "flip"])
def test_a_damaged_shard_is_redone_and_nothing_else(
    cache: Path, small: ModuleType, victim: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = small.tree(cache)
    ending = ".h5" if victim == "h5" else ".json"
    path = sorted(Store.open(cache, "cxr").path.glob(f"shard-*{ending}"))[1]
    data = path.read_bytes()
    if how == "delete":
        path.unlink()
    else:
        path.write_bytes(data[:-9] if how == "cut" else data[:-9] + b"#" + data[-8:])
    with pytest.raises(IntegrityError, match=r"(missing|not what was written).*cm2 extract"):
        Store.open(cache, "cxr").verify()
    with caplog.at_level(logging.WARNING, "cm2.cache"):
        assert small.fill(cache)[1] == 1
    assert f"{path.stem[6:]} of" in caplog.text
    assert small.tree(cache) == before


@pytest.mark.parametrize("pattern", [MANIFEST, "items-*", "rejects-*", "blank.*", "provenance.*"])
@pytest.mark.parametrize("how", ["delete", "flip"])
def test_damaged_tables_are_folded_anew_without_encoding(
    cache: Path, small: ModuleType, pattern: str, how: str
) -> None:
    before = small.tree(cache)
    (path,) = Store.open(cache, "cxr").path.glob(pattern)
    data = path.read_bytes()
    path.unlink()
    if how == "flip":
        path.write_bytes(data[:-9] + b"#" + data[-8:])
    assert small.fill(cache)[1] == 0
    assert small.tree(cache) == before


@pytest.mark.parametrize("how", ["flip", "swap"])
def test_an_altered_blank_vector_is_removed_and_never_named_by_a_manifest(
    cache: Path, small: ModuleType, how: str
) -> None:
    path = Store.open(cache, "cxr").path / BLANK
    if how == "flip":
        path.write_bytes(path.read_bytes()[:-1] + b"#")
    else:
        path.write_bytes(checkpoint.encode({"values": np.ones(6)}, {"space": "0" * 12})[0])
    with pytest.raises(IntegrityError, match="blank"):
        Store.open(cache, "cxr").blank()
    writer = StoreWriter(cache, small.space(), {"source": "small"})
    assert not path.exists()
    assert writer.finish(True).blank() == {}
    path.write_bytes(b"altered after the writer was opened")
    with pytest.raises(IntegrityError, match="blank"):
        writer.finish(True)


def test_a_shard_lost_while_writing_is_never_called_complete(
    tmp_path: Path, small: ModuleType
) -> None:
    writer = StoreWriter(tmp_path, small.space(), {})
    _commit(writer, "0" * 12, small.encode(0))
    _commit(writer, "1" * 12, small.encode(1))
    next(writer.path.glob("shard-0*.h5")).write_bytes(b"another process wrote other bytes")
    with pytest.raises(IntegrityError, match="altered or removed while the store was written"):
        writer.finish(True)
    assert not (writer.path / MANIFEST).exists()


def test_a_reader_follows_a_manifest_that_is_replaced_while_it_opens(
    cache: Path, small: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = reader._load
    calls = []

    def slow(*args: object) -> Store:
        if not calls:  # the manifest is read, its tables are not: another process finishes
            calls.append(1)
            monkeypatch.setattr(reader, "_load", load)
            small.fill(cache, chunks=range(4))
        return load(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(reader, "_load", slow)
    assert Store.open(cache, "cxr").items.num_rows == 16
    assert calls


def test_a_commit_of_another_process_is_not_lost_by_an_older_fold(
    tmp_path: Path, small: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = StoreWriter(tmp_path, small.space(), {})
    _commit(writer, "0" * 12, small.encode(0))
    write = writer._write

    def late(*args: object) -> None:
        monkeypatch.setattr(writer, "_write", write)
        other = StoreWriter(tmp_path, small.space(), {})
        _commit(other, "1" * 12, small.encode(1))
        other.finish(True)
        write(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(writer, "_write", late)
    assert writer.finish(True).items.num_rows == 8
    assert Store.open(tmp_path, "cxr").items.num_rows == 8


def test_shards_beyond_the_memory_kept_are_read_again(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(cache, "cxr")
    wanted = store.read(["d00", "d10", "d20"])["values"]
    monkeypatch.setattr(reader, "HELD_BYTES", 1)
    fresh = Store.open(cache, "cxr")
    for _ in range(2):
        assert (fresh.read(["d00", "d10", "d20"])["values"] == wanted).all()
        assert len(fresh._shards) == 1


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=4), min_size=1, max_size=3),
    st.randoms(),
)
def test_any_series_reads_back(
    tmp_path_factory: pytest.TempPathFactory, shards: list[list[int]], random: Random
) -> None:
    writer = StoreWriter(tmp_path_factory.mktemp("c"), SERIES, {})
    expected = {}
    for number, lengths in enumerate(shards):
        shard = _series(lengths, max(lengths), first=10 * number)
        _commit(writer, f"{number:012x}", shard)
        for row, item in enumerate(shard.item_ids):
            expected[item] = shard.arrays["values"][row, : lengths[row]]
    store = writer.finish(True)
    items = random.sample(sorted(expected), len(expected))
    read = store.read(items)
    for row, item in enumerate(items):
        assert read["values"][row][read["mask"][row]].tobytes() == expected[item].tobytes()
