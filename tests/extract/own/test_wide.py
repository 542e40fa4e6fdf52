from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cm2.cache.cohort import Cohort
from cm2.cache.view import view
from cm2.errors import DataError, RejectsError, SchemaError

from .conftest import Extract, View, column, why_not


def test_unknown_cells_are_marked_and_absent_rows_have_their_reason(
    folder: Path, run: Extract, look: View
) -> None:
    (folder / "t.csv").write_text(
        "stay_id,pulse,ward,note\n100,80,A,x\n101,,B,y\n102,,,\n103,90.5,A,x\n999,1,A,x\n"
    )
    summary = run("lab=t.csv")
    found = look("lab")
    assert found.has.tolist() == [True, True, False, True] + [False] * 8
    assert column(found, "pulse")[:4, 0].tolist() == [80, 0, 0, 90.5]
    assert column(found, "known:pulse")[:4, 0].tolist() == [1, 0, 0, 1]
    assert column(found, "ward=A")[:4, 0].tolist() == [1, 0, 0, 1]
    assert column(found, "ward=B")[:4, 0].tolist() == [0, 1, 0, 0]
    reasons = why_not(folder / "cache", "lab")
    assert (reasons[100], reasons[102], reasons[105]) == (None, "all_empty", "no_row")
    assert summary.modalities[0].rejected == 0


def test_an_infinite_value_is_a_reject_and_honest_absence_is_none(
    folder: Path, run: Extract, look: View
) -> None:
    (folder / "t.csv").write_text("stay_id,pulse\n100,80\n101,inf\n102,70\n")
    with pytest.raises(RejectsError, match="1 of 3"):
        run("lab=t.csv")
    assert look("lab").has[:4].tolist() == [True, False, True, False]
    assert run("lab=t.csv", max_reject=0.5).modalities[0].rejected == 1


def test_two_rows_of_one_stay_are_refused_with_the_way_out(folder: Path, run: Extract) -> None:
    (folder / "t.csv").write_text("stay_id,pulse\n100,80\n100,81\n")
    with pytest.raises(DataError, match=r"100 stands in several rows.*long table"):
        run("lab=t.csv")


def test_strangers_are_refused_with_an_id_of_both_sides(folder: Path, run: Extract) -> None:
    (folder / "t.csv").write_text("stay_id,pulse\nS007,80\nS008,81\n")
    with pytest.raises(DataError, match=r"t\.csv: .*stay_id is 100, that of the file 'S007'"):
        run("lab=t.csv")


def test_a_column_of_many_words_is_no_category(folder: Path, run: Extract) -> None:
    rows = "\n".join(f"{100 + i % 12},word{i}" for i in range(12))
    many = "\n".join(f"{500 + i},word{i}" for i in range(60))
    (folder / "t.csv").write_text(f"stay_id,text\n{rows}\n{many}\n")
    with pytest.raises(SchemaError, match=r"\b(72|60)\b"):
        run("lab", config=_toml(folder, "[modality.lab]\nfile='t.csv'\nkind='table'\n"))


@pytest.mark.parametrize("word", ["NA", "n/a", "<0.5", '"1,234.5"'])
def test_a_column_of_numbers_and_words_is_refused_until_the_user_says_what_it_is(
    folder: Path, run: Extract, look: View, word: str
) -> None:
    (folder / "t.csv").write_text(f"stay_id,crp\n100,1.5\n101,{word}\n102,2\n103,2\n")
    plain = word.strip('"')
    told = rf"'crp' .*3 cells with a number and 1 with another word \(such as '{plain}'\)"
    with pytest.raises(SchemaError, match=told):
        run("lab=t.csv")
    run("lab", config=_toml(folder, f'[modality.lab]\nfile="t.csv"\nmissing=["{plain}"]\n'))
    assert look("lab").columns == ("crp", "known:crp")
    text = '[modality.lab]\nfile="t.csv"\ncategories=["crp"]\n'
    run("lab", config=_toml(folder, text), cache=folder / "other")
    found = view(folder / "other", Cohort.open(folder / "other"), "lab")
    assert set(found.columns) == {"crp=1.5", "crp=2", f"crp={plain}"}


def test_a_column_of_zero_and_one_is_of_numbers_and_one_of_words_is_of_categories(
    folder: Path, run: Extract, look: View
) -> None:
    (folder / "t.csv").write_text("stay_id,dead,ward\n100,0,A\n101,1,B\n102,,\n")
    run("lab=t.csv")
    assert look("lab").columns == ("dead", "ward=A", "ward=B", "known:dead")


@pytest.mark.parametrize("note", ["zebrafish " * 7, '"zebrafish\nunicorn"', '"5\nzebrafish"'])
@pytest.mark.parametrize("first", ["short", "7"])
def test_texts_under_another_name_are_refused_and_not_one_word_is_told_or_stored(
    folder: Path, run: Extract, note: str, first: str
) -> None:
    (folder / "t.csv").write_text(f"stay_id,note\n100,{first}\n101,{note}\n")
    told = "column 'note' .*column of texts must be called 'text'"
    with pytest.raises(SchemaError, match=told) as caught:
        run("note=t.csv")
    assert "zebrafish" not in str(caught.value)
    stored = [p for p in (folder / "cache").rglob("*") if p.is_file()]
    assert not [p for p in stored if b"zebrafish" in p.read_bytes()]


def test_the_order_of_rows_changes_no_byte_of_the_store(folder: Path, run: Extract) -> None:
    rows = [f"{100 + i},{i * 1.5},{'AB'[i % 2]}" for i in range(12)]
    stores = []
    for order in (rows, rows[::-1]):
        (folder / "t.csv").write_text("\n".join(["stay_id,x,w", *order]) + "\n")
        cache = folder / f"cache{len(stores)}"
        run("lab=t.csv", cache=cache)
        store = next((cache / "stores" / "lab").iterdir())
        stores.append({p.name: p.read_bytes() for p in store.iterdir() if p.suffix == ".h5"})
    assert stores[0]
    assert stores[0] == stores[1]


def test_vectors_are_shared_by_cohorts(folder: Path, run: Extract) -> None:
    (folder / "t.csv").write_text("stay_id,x\n" + "".join(f"{100 + i},{i}\n" for i in range(12)))
    run("lab=t.csv")
    again = run("lab=t.csv", cohort="other")
    assert again.modalities[0].encoded == 0
    assert again.modalities[0].stays == 12


def _toml(folder: Path, text: str) -> Path:
    (folder / "own.toml").write_text(text)
    return folder / "own.toml"


def test_missing_words_and_chosen_columns_come_from_the_toml_table(
    folder: Path, run: Extract, look: View
) -> None:
    (folder / "t.csv").write_text("record,x,y\n100,-1,5\n101,2,6\n")
    text = '[modality.lab]\nfile = "t.csv"\nid = "record"\nkeep = ["x"]\nmissing = [-1]\n'
    run("lab", config=_toml(folder, text))
    found = look("lab")
    assert found.columns == ("x", "known:x")
    assert np.flatnonzero(found.has).tolist() == [1]


def test_stays_without_a_label_are_not_counted_into_the_task(folder: Path, run: Extract) -> None:
    (folder / "stays.csv").write_text("stay_id,subject_id,y_x\n3,1,1\n2,2,\n1,3,0\n")
    (folder / "t.csv").write_text("stay_id,pulse\n3,80\n2,81\n")
    summary = run("lab=t.csv")
    assert summary.tasks["x"]["stays"] == 2
    assert (summary.modalities[0].stays, summary.modalities[0].tasks["x"]) == (2, 1)
