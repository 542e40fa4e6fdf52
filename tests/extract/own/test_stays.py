from __future__ import annotations

from pathlib import Path

import pytest

from cm2.cache.cohort import Cohort
from cm2.errors import ConfigError, DataError, SchemaError

from .conftest import Extract


def write(folder: Path, text: str) -> None:
    (folder / "stays.csv").write_text(text)
    (folder / "t.csv").write_text("stay_id,x\nA1,1\nA2,2\nB1,3\n")


def test_ids_may_be_text_and_the_split_follows_the_patient(folder: Path, run: Extract) -> None:
    write(folder, "stay_id,subject_id,y_aki\nA1,p1,0\nA2,p1,1\nB1,p2,\n")
    run("lab=t.csv")
    stays = Cohort.open(folder / "cache").stays.to_pydict()
    assert stays["stay_id"] == ["A1", "A2", "B1"]
    assert stays["split"][0] == stays["split"][1]
    assert stays["y_aki"] == [0, 1, None]
    assert stays["in_aki"] == [True] * 3


def test_stays_without_patients_need_a_word_of_the_user(folder: Path, run: Extract) -> None:
    write(folder, "stay_id,y_aki\nA1,0\nA2,1\nB1,0\n")
    with pytest.raises(ConfigError, match="--subject-is-stay"):
        run("lab=t.csv")
    run("lab=t.csv", subject_is_stay=True)
    assert Cohort.open(folder / "cache").stays["subject_id"].to_pylist() == ["A1", "A2", "B1"]


def test_stays_without_labels_are_extracted(folder: Path, run: Extract) -> None:
    write(folder, "stay_id,subject_id\nA1,p1\nA2,p2\nB1,p3\n")
    run("lab=t.csv")
    assert Cohort.open(folder / "cache").tasks == ()


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("stay_id,subject_id\nA1,p\nA1,q\n", DataError, "several rows"),
        ("stay_id,subject_id,y_x\nA1,p,0\nA2,p,2\n", SchemaError, "row 2.*0, 1 or nothing.*'2'"),
        ("stay_id,subject_id,y_x\nB,p,2\nA,q,0\n", SchemaError, "row 1.*'2'"),
        ("stay_id,subject_id,split\nB,p,test\nA,q,dev\n", DataError, "row 2.*'dev'"),
        ("stay_id,subject_id,split\nA1,p,train\nA2,q,dev\n", DataError, "row 2.*'dev'"),
        ("stay_id,subject_id\nA1,p\n,q\n", SchemaError, "row 2.*stay_id"),
        ("id,subject_id\nA1,p\n", SchemaError, "stay_id"),
    ],
)
def test_a_wrong_table_is_refused_with_its_row_and_nothing_is_written(
    folder: Path, run: Extract, text: str, error: type[Exception], message: str
) -> None:
    write(folder, text)
    with pytest.raises(error, match=message):
        run("lab=t.csv")
    assert not (folder / "cache" / "cohorts").exists()


def test_one_patient_in_two_splits_is_refused(folder: Path, run: Extract) -> None:
    write(folder, "stay_id,subject_id,split\nA1,p,train\nA2,p,test\nB1,q,val\n")
    with pytest.raises(DataError, match="p"):
        run("lab=t.csv")
