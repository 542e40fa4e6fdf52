from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cm2.cache import atomic
from cm2.cache.fingerprint import fingerprint
from cm2.errors import ConfigError, IntegrityError, ResourceError

STEPS = ("write", "fsync", "replace", "sync-folder")


def _failing(step: str, code: int) -> Callable[[str], None]:
    def hook(found: str) -> None:
        if found == step:
            raise OSError(code, os.strerror(code))

    return hook


def test_bytes_are_written_with_their_hash_and_replace_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file"
    for data in (b"first", b"", b"second"):
        digest = atomic.write_bytes(path, data)
        assert path.read_bytes() == data
        assert digest == atomic.sha256_file(path) == atomic.hash_bytes(data)
    assert [p.name for p in path.parent.iterdir()] == ["file"]


def test_every_durable_step_is_announced_before_it_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    seen = []

    def hook(step: str) -> None:
        temporary = [p.stat().st_size for p in tmp_path.iterdir() if p != path]
        seen.append((step, temporary, path.exists()))

    monkeypatch.setattr(atomic, "step_hook", hook)
    atomic.write_bytes(path, b"abc")
    assert seen == [
        ("write", [], False),
        ("fsync", [3], False),
        ("replace", [3], False),
        ("sync-folder", [], True),
    ]


def test_the_file_is_synced_before_it_is_renamed_and_every_new_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "new" / "folder" / "file"
    synced = []
    fsync = os.fsync

    def watch(handle: int) -> None:
        state = os.fstat(handle)
        folders = (tmp_path, path.parents[1], path.parent)
        inode = {p.stat().st_ino: p.name for p in folders if p.exists()}
        synced.append((inode.get(state.st_ino, f"{state.st_size} bytes"), path.exists()))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", watch)
    atomic.write_bytes(path, b"abc")
    assert synced == [
        (tmp_path.name, False),
        ("new", False),
        ("3 bytes", False),
        ("folder", True),
    ]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("name", ["ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EACCES", "EIO"])
def test_a_full_or_closed_disk_is_a_resource_error_that_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, name: str
) -> None:
    path = tmp_path / "file"
    atomic.write_bytes(path, b"old")
    monkeypatch.setattr(atomic, "step_hook", _failing(step, getattr(errno, name)))
    with pytest.raises(ResourceError, match=r"3 bytes needed, \d+ free") as caught:
        atomic.write_bytes(path, b"new")
    assert str(path) in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == (b"new" if step == "sync-folder" else b"old")


def test_an_interrupt_leaves_no_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hook(step: str) -> None:
        if step == "replace":
            raise KeyboardInterrupt

    monkeypatch.setattr(atomic, "step_hook", hook)
    with pytest.raises(KeyboardInterrupt):
        atomic.write_bytes(tmp_path / "file", b"new")
    assert list(tmp_path.iterdir()) == []


def test_a_partial_write_of_the_system_is_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: write(handle, data[:3]))
    atomic.write_bytes(tmp_path / "file", bytes(range(100)))
    assert (tmp_path / "file").read_bytes() == bytes(range(100))


def test_a_file_in_place_of_a_folder_is_named(tmp_path: Path) -> None:
    atomic.write_bytes(tmp_path / "file", b"")
    with pytest.raises(ConfigError, match="Choose another path"):
        atomic.write_bytes(tmp_path / "file" / "below", b"")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match="directory"):
        atomic.write_bytes(tmp_path / "folder", b"")


def test_long_names_still_fit_with_their_temporary_name(tmp_path: Path) -> None:
    atomic.write_bytes(tmp_path / ("n" * 255), b"x")
    with pytest.raises(ConfigError, match="Choose another path"):
        atomic.write_bytes(tmp_path / ("n" * 256), b"x")


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=10,
)


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.text(st.characters(codec="utf-8")), json_values))
def test_json_reads_back_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, content: dict[str, object]
) -> None:
    content.pop("sha256", None)
    path = tmp_path_factory.mktemp("json") / "file.json"
    digest = atomic.write_json(path, content)
    assert atomic.read_json(path, "Again.") == content
    assert json.loads(path.read_bytes())["sha256"] == digest == fingerprint(content)


def test_every_flipped_bit_of_a_json_file_is_found(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    # Exponents and escapes hold bits whose flip parses to the same value.
    atomic.write_json(path, {"a": 1e-6, "é": "\u001f \\ x", "b": [True, 1.0, -7], "c": {}})
    data = path.read_bytes()
    for bit in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with pytest.raises(IntegrityError, match=r"file\.json.*Do this\."):
            atomic.read_json(path, "Do this.")


def test_large_json_files_are_one_line_and_as_safe(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    content = {"a": [f"é{n}" for n in range(20_000)], "e": 1e-6}
    atomic.write_json(path, content)
    data = path.read_bytes()
    assert data.count(b"\n") == 1
    assert atomic.read_json(path, "") == content
    for offset in (2, 1000, data.index(b"1e-06") + 1, len(data) - 1):
        path.write_bytes(data[:offset] + bytes([data[offset] ^ 32]) + data[offset + 1 :])
        with pytest.raises(IntegrityError, match="not what was written"):
            atomic.read_json(path, "")


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[]", b"1", b'{"sha256": "0"}', b"[" * 100_000, b"\xff\xfe", b'{"a": NaN}'],
)
def test_what_is_no_json_file_of_ours_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "file.json").write_bytes(data)
    with pytest.raises(IntegrityError, match="Do this"):
        atomic.read_json(tmp_path / "file.json", "Do this.")


def test_a_missing_file_names_the_remedy(tmp_path: Path) -> None:
    for read in (
        lambda path: atomic.read_json(path, "Do this."),
        lambda path: atomic.read_parquet(path, None, "Do this."),
    ):
        with pytest.raises(IntegrityError, match=r"nowhere is missing\. Do this\."):
            read(tmp_path / "nowhere")


def test_the_reserved_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="reserved"):
        atomic.write_json(tmp_path / "file.json", {"sha256": "mine"})


def test_equal_tables_give_equal_bytes_whichever_library_made_them(tmp_path: Path) -> None:
    columns = {"id": ["a", "b", None], "items": [["x"], [], ["y", "z"]], "n": [1, None, 3]}
    plain = pa.table(columns)
    chunked = pa.concat_tables([plain.slice(0, 1), plain.slice(1)])
    noted = plain.replace_schema_metadata({"when": "now"})
    dictionary = plain.set_column(0, "id", plain["id"].dictionary_encode())
    tables = [plain, chunked, noted, dictionary, pl.DataFrame(columns).to_arrow()]
    digests = {atomic.write_parquet(tmp_path / "t.parquet", table) for table in tables}
    assert len(digests) == 1
    assert atomic.read_parquet(tmp_path / "t.parquet", digests.pop(), "").to_pydict() == columns


def test_every_flipped_bit_of_a_table_is_found_by_its_hash(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    digest = atomic.write_parquet(path, pa.table({"a": [1, 2]}))
    data = path.read_bytes()
    for bit in range(0, len(data) * 8, 7):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with pytest.raises(IntegrityError, match="expected SHA-256"):
            atomic.read_parquet(path, digest, "")


def test_page_checksums_find_flipped_data_without_the_hash(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    values = os.urandom(4096)
    atomic.write_parquet(path, pa.table({"a": pa.array([values])}))
    data = path.read_bytes()
    begin = data.index(values[:16])
    for offset in range(0, 4096, 512):
        flipped = bytearray(data)
        flipped[begin + offset] ^= 1
        path.write_bytes(flipped)
        with pytest.raises(IntegrityError, match="not a whole Parquet file"):
            atomic.read_parquet(path, None, "")


def test_an_unchanged_file_is_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "file"
    atomic.write_if_changed(path, b"same")
    before = path.stat().st_ino
    atomic.write_if_changed(path, b"same")
    assert path.stat().st_ino == before
    atomic.write_if_changed(path, b"size")
    assert path.read_bytes() == b"size"
