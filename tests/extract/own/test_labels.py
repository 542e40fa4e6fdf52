from __future__ import annotations

from pathlib import Path

import pytest

from cm2.errors import DataError, SchemaError
from cm2.extract.own.labels import read


def _file(folder: Path, text: str) -> Path:
    path = folder / "labels.csv"
    path.write_text(text)
    return path


@pytest.mark.parametrize("column", ["y", "aki", "y_aki"])
def test_one_label_may_have_any_of_three_names(tmp_path: Path, column: str) -> None:
    table = read(_file(tmp_path, f"stay_id,{column},age\n 7 ,1,3\nb,,4\nc,false,5\n"), "aki")
    assert table.to_pydict() == {"stay_id": ["7", "b", "c"], "y_aki": [1, None, 0]}


def test_several_labels_and_eligibility_are_kept(tmp_path: Path) -> None:
    table = read(_file(tmp_path, "stay_id,y_ph__a,y_ph__b,in_ph\n1,1,0,1\n2,,1,0\n"), "ph")
    assert table.to_pydict() == {
        "stay_id": ["1", "2"],
        "y_ph__a": [1, None],
        "y_ph__b": [0, 1],
        "in_ph": [True, False],
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("stay_id,y,y_aki\n1,1,1\n", "found y, y_aki"),
        ("stay_id,z\n1,1\n", "found none of them"),
        ("id,y\n1,1\n", "'stay_id'"),
        ("stay_id,y\n1,1\n,1\n", "row 2: expected a stay_id"),
        ("stay_id,y\n1,0.5\n", "row 1: y must hold 0, 1 or nothing"),
        ("stay_id,y,in_aki\n1,0,\n", "row 1: in_aki must be 0 or 1"),
    ],
)
def test_other_tables_are_refused_with_the_row(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(SchemaError, match=words):
        read(_file(tmp_path, text), "aki")


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.csv"):
        read(tmp_path / "none.csv", "aki")
