from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import pytest

from cm2.errors import DataError, LeakageError
from cm2.extract import splits
from cm2.extract.splits import assign, hashed


def test_the_hash_is_the_documented_one() -> None:
    for subject in range(2000):
        digest = hashlib.sha256(f"mimic4:{subject}:3".encode()).hexdigest()
        fraction = int(digest, 16) / 2**256
        expected = "train" if fraction < 0.7 else "val" if fraction < 0.8 else "test"
        assert hashed("mimic4", subject, 3) == expected


def test_the_hash_gives_70_10_20_and_depends_on_seed_and_data_set() -> None:
    counts = Counter(hashed("mimic3", subject, 0) for subject in range(20000))
    assert counts["train"] / 20000 == pytest.approx(0.7, abs=0.01)
    assert counts["val"] / 20000 == pytest.approx(0.1, abs=0.01)
    base = [hashed("mimic3", subject, 0) for subject in range(200)]
    assert base != [hashed("mimic3", subject, 1) for subject in range(200)]
    assert base != [hashed("mimic4", subject, 0) for subject in range(200)]


def test_a_patient_keeps_his_split_when_others_come_and_go() -> None:
    few, _ = assign("mimic3", [1, 2, 3], None, 0)
    many, _ = assign("mimic3", range(1000), None, 0)
    assert all(many[subject] == split for subject, split in few.items())


def test_a_table_of_splits_is_followed(tmp_path: Path) -> None:
    path = tmp_path / "Mine.CSV"
    path.write_text("SUBJECT_ID,split\n1,train\n2,validation\n3,TEST\n4,test\n")
    found, rule = assign("mimic3", [3, 1, 2], path, 0)
    assert found == {1: "train", 2: "val", 3: "test"}
    assert rule["rule"] == "lists"
    assert str(tmp_path) not in str(rule)


def test_a_pair_of_lists_is_followed_as_published(tmp_path: Path) -> None:
    (tmp_path / "testset.csv").write_text("1,0\n2,0\n3,1\n4,0\n")
    (tmp_path / "valset.csv").write_text("1,0\n2,1\n")
    found, _ = assign("mimic3", [1, 2, 3, 4], tmp_path, 0)
    assert found == {1: "train", 2: "val", 3: "test", 4: "train"}


@pytest.mark.parametrize(
    ("test", "val", "error", "says"),
    [
        ("1,1\n", "1,1\n", LeakageError, "test and in the validation list"),
        ("1,1\n1,0\n", "2,1\n", LeakageError, "listed with 0 and with 1"),
        ("1,1\n", "2,1\n", DataError, "2 of the cohort's 4 patients are in no list"),
        ("1,yes\n", "2,1\n", DataError, "line 1: expected subject_id,0"),
    ],
)
def test_bad_lists_are_refused(
    tmp_path: Path, test: str, val: str, error: type[Exception], says: str
) -> None:
    (tmp_path / "testset.csv").write_text(test)
    (tmp_path / "valset.csv").write_text(val)
    with pytest.raises(error, match=says):
        assign("mimic3", [1, 2, 3, 4], tmp_path, 0)


def test_a_patient_in_two_splits_of_a_table_is_a_leak(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("subject_id,split\n1,train\n1,test\n")
    with pytest.raises(LeakageError, match="subject_id 1 is in train and in test"):
        assign("mimic3", [1], path, 0)


def test_an_unknown_split_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("subject_id,split\n1,training\n")
    with pytest.raises(DataError, match="'training'"):
        assign("mimic3", [1], path, 0)
    with pytest.raises(DataError, match="found none"):
        assign("mimic3", [1], tmp_path / "no.csv", 0)
    with pytest.raises(DataError, match=r"exactly one file testset"):
        assign("mimic3", [1], tmp_path, 0)


def test_published_lists_of_another_data_set_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "testset.csv").write_text("1,1\n")
    (tmp_path / "valset.csv").write_text("2,1\n")
    digest = hashlib.md5(b"1,1\n", usedforsecurity=False).hexdigest()
    monkeypatch.setitem(splits.PUBLISHED_LISTS, digest, ("mimic3", "published test list"))
    with pytest.raises(DataError, match="published test list, whose ids mean nothing in mimic4"):
        assign("mimic4", [1, 2], tmp_path, 0)
    assert assign("mimic3", [1, 2], tmp_path, 0)[1]["lists"] == ["published test list", "your list"]
