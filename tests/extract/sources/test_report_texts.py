"""Reports as a tree, as the released zip and as a sectioned table: the same texts, one answer."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from cm2.cache.store import EncodedShard
from cm2.errors import DataError
from cm2.extract.encoders.text import TextEncoder
from cm2.extract.encoders.weights import Weights
from cm2.extract.modalities.reports import ReportEncoder
from cm2.extract.modalities.sections import SECTIONS, encoded_parts
from cm2.extract.sources.report_texts import SECTIONED, ZIP, ReportTexts, find_texts, open_texts
from cm2.extract.work import Work

TEXTS = {
    50000001: "\n COMPARISON: None.\n \n FINDINGS: Lungs are clear.\n \n IMPRESSION: No edema.\n",
    50000002: "     FINAL REPORT\n Portable film.\n \n Heart is normal.\n",
    50000003: "\n INDICATION: Fever.\n",
}
STUDIES = pl.DataFrame({"subject_id": [10000001] * 4, "study_id": [*TEXTS, 50000004]})


@pytest.fixture(scope="module")
def encoder() -> ReportEncoder:
    return ReportEncoder(TextEncoder("tinybert", Weights("report", seed=0)))


def member(study: int) -> str:
    return f"files/p10/p10000001/s{study}.txt"


def tree(root: Path) -> Path:
    for study, text in TEXTS.items():
        path = root / member(study)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def zipped(root: Path, texts: Mapping[str, str | bytes] | None = None) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(root / ZIP, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("files/p10/p10000001/", "")
        found = texts or {member(study): text for study, text in TEXTS.items()}
        for name, text in found.items():
            out.writestr(name, text)
    return root


def sectioned(root: Path) -> Path:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["study", *SECTIONS])
    for study, text in TEXTS.items():
        writer.writerow([f"s{study}", *encoded_parts(text)])
    root.mkdir(parents=True, exist_ok=True)
    (root / f"{SECTIONED}.csv").write_text(out.getvalue())
    return root


def encode(texts: ReportTexts, encoder: ReportEncoder) -> EncodedShard:
    found = texts.of(STUDIES)
    return encoder([Work(f"s{study}", *found[study], {}) for study in sorted(found)])


def test_a_zip_is_read_in_place_and_gives_what_the_unzipped_tree_gives(
    tmp_path: Path, encoder: ReportEncoder
) -> None:
    apart = open_texts(tree(tmp_path / "a"))
    packed = open_texts(zipped(tmp_path / "b" / "mimic-cxr").parent)
    assert (apart.kind, packed.kind) == ("tree", "zip")
    stamps = [{k: v[0] for k, v in texts.of(STUDIES).items()} for texts in (apart, packed)]
    assert stamps[0] == stamps[1]
    assert sorted(stamps[0]) == sorted(TEXTS)
    one, other = encode(apart, encoder), encode(packed, encoder)
    assert one.item_ids == other.item_ids == ["s50000001", "s50000002"]
    assert one.source_hashes == other.source_hashes
    assert one.rejects == other.rejects
    for name, array in one.arrays.items():
        np.testing.assert_array_equal(array, other.arrays[name])
    assert sorted(path.name for path in (tmp_path / "b").rglob("*")) == ["mimic-cxr", ZIP]


def test_a_sectioned_table_gives_the_vectors_of_its_texts(
    tmp_path: Path, encoder: ReportEncoder
) -> None:
    whole = encode(open_texts(tree(tmp_path / "a")), encoder)
    table = open_texts(sectioned(tmp_path / "b"))
    assert table.kind == "table"
    found = encode(table, encoder)
    assert found.item_ids == whole.item_ids
    for name in ("values", "mask", "ids", "length"):
        np.testing.assert_array_equal(found.arrays[name], whole.arrays[name])
    assert [reject.error for reject in found.rejects] == ["NoSection"]


def test_texts_stand_above_the_zip_and_the_zip_above_the_table(tmp_path: Path) -> None:
    sectioned(tmp_path)
    zipped(tmp_path)
    assert open_texts(tmp_path).kind == "zip"
    tree(tmp_path)
    assert open_texts(tmp_path).kind == "tree"
    assert find_texts(tmp_path / "files" / "p10") is None
    with pytest.raises(DataError, match=r"mimic-cxr-reports\.zip"):
        open_texts(tmp_path / "nowhere")


def test_one_damaged_text_of_a_zip_is_a_reject_and_the_others_are_read(
    tmp_path: Path, encoder: ReportEncoder
) -> None:
    path = zipped(tmp_path) / ZIP
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo(member(50000002))
    begin = entry.header_offset + 30 + len(entry.filename)
    content[begin + 3 : begin + 8] = b"\xff" * 5
    path.write_bytes(content)
    shard = encode(open_texts(tmp_path), encoder)
    assert shard.item_ids == ["s50000001"]
    assert ("s50000002", "read", "DamagedZip") in [
        (r.item_id, r.stage, r.error) for r in shard.rejects
    ]


def test_a_text_that_unpacks_to_a_flood_is_not_unpacked(
    tmp_path: Path, encoder: ReportEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    zipped(tmp_path, {member(50000001): b"x" * 50_000_000, member(50000002): "\n IMPRESSION: a"})
    real = zipfile.ZipFile.read

    def counted(self: zipfile.ZipFile, name: str) -> bytes:
        assert "50000001" not in name
        return real(self, name)

    monkeypatch.setattr(zipfile.ZipFile, "read", counted)
    shard = encode(open_texts(tmp_path), encoder)
    assert shard.item_ids == ["s50000002"]
    assert [(r.error, r.stage) for r in shard.rejects] == [("TooLong", "read")]


def test_a_file_that_is_no_zip_and_a_study_twice_are_errors(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / ZIP).write_bytes(b"PK no")
    with pytest.raises(DataError, match="not a readable zip"):
        open_texts(tmp_path / "a").of(STUDIES)
    zipped(tmp_path / "b", {member(50000001): "x", "old/p10000001/s50000001.txt": "y"})
    with pytest.raises(DataError, match="s50000001 twice"):
        open_texts(tmp_path / "b").of(STUDIES)
    path = sectioned(tmp_path / "c") / f"{SECTIONED}.csv"
    path.write_text(path.read_text() + "s50000001,a,b,c,d\n")
    with pytest.raises(DataError, match="a study twice"):
        open_texts(tmp_path / "c").of(STUDIES)
