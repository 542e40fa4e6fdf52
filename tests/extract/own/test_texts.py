from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from cm2.cache.upkeep import verify

from .conftest import Extract, View, why_not

ENCODED = {"encoder": ["note=tinybert"], "weights": ["random:0"]}


def test_texts_of_a_stay_stand_in_the_order_of_their_hours(
    folder: Path, run: Extract, look: View
) -> None:
    (folder / "n.csv").write_text(
        "stay_id,hours,text\n100,5,chest pain\n100,1,fever\n101,1,fever\n102,60,fever\n103,2,\n"
    )
    run("note=n.csv", **ENCODED)
    found = look("note")
    assert found.mask[:2].sum(1).tolist() == [2, 1]
    assert (found.values[0, 0] == found.values[1, 0]).all()
    assert (found.values[0, 0] != found.values[0, 1]).any()
    reasons = why_not(folder / "cache", "note")
    assert reasons[102] == "after_prediction_time"
    assert reasons[103] == "all_empty"


def test_no_word_of_a_text_enters_a_table_of_the_cache(folder: Path, run: Extract) -> None:
    (folder / "n.csv").write_text("stay_id,text\n100,zebrafish disease\n101,\x01\x02 unicorn\n")
    run("note=n.csv", max_reject=1.0, **ENCODED)
    for path in (folder / "cache").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert b"zebrafish" not in content
            assert b"unicorn" not in content


def test_without_hours_the_ledger_says_not_checked(folder: Path, run: Extract) -> None:
    (folder / "n.csv").write_text("stay_id,text\n100,fever\n101,pain\n")
    assert run("note=n.csv", **ENCODED).modalities[0].timing == "not checked"


def test_the_reject_of_a_mended_text_is_gone_and_its_stay_has_it(
    folder: Path, run: Extract, look: View
) -> None:
    def rejects(text: str) -> list[str]:
        (folder / "n.csv").write_text(f"stay_id,text\n100,fever\n101,{text}\n")
        result = run("note=n.csv", max_reject=1.0, **ENCODED).modalities[0]
        table = pq.read_table(folder / "cache" / result.rejects)
        return table["error"].to_pylist()

    broken = "\x01\x02 unicorn"
    assert len(rejects(broken)) == 1
    assert look("note").mask[:2, 0].tolist() == [True, False]
    assert rejects("pain") == []
    assert look("note").mask[:2, 0].tolist() == [True, True]
    assert len(rejects(broken)) == 1  # broken again, and told again
    assert look("note").mask[:2, 0].tolist() == [True, False]
    assert verify(folder / "cache") == []
