from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from cm2.errors import DataError, SchemaError
from cm2.extract.selection import select
from cm2.extract.sources import open_source
from cm2.extract.sources.mimic3 import AGE_OVER_89, Mimic3Source
from cm2.extract.sources.mimic4 import Mimic4Source


def test_the_layout_is_told_by_the_header_of_the_stays(
    mimic3: Any, mimic4: Any, tmp_path: Path
) -> None:
    three = open_source(mimic3.write(tmp_path / "a"))
    four = open_source(mimic4.write(tmp_path / "b"))
    assert (type(three), three.dataset) == (Mimic3Source, "mimic3")
    assert (type(four), four.dataset) == (Mimic4Source, "mimic4")
    assert not three.synthetic


def test_a_wrong_folder_says_what_was_expected_and_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "holiday-photos").mkdir()
    with pytest.raises(DataError, match=r"expected ICUSTAYS.*found holiday-photos"):
        open_source(tmp_path)
    with pytest.raises(DataError, match="expected a folder"):
        open_source(tmp_path / "nowhere")


def test_ages_over_89_become_their_documented_median(mimic3: Any, tmp_path: Path) -> None:
    kept, _ = select(open_source(mimic3.write(tmp_path)))
    ages = dict(kept.select("stay_id", "age").iter_rows())
    assert ages[1000] == pytest.approx(50.0, abs=0.01)
    assert ages[1100] == AGE_OVER_89
    assert 1200 not in ages, "an infant is not kept"


def test_mimic4_age_counts_the_years_since_the_anchor(mimic4: Any, tmp_path: Path) -> None:
    kept, _ = select(open_source(mimic4.write(tmp_path)))
    assert set(kept["age"]) == {53.0}


def test_release_1_0_with_core_folder_and_ethnicity_reads_like_2_x(
    mimic4: Any, tmp_path: Path
) -> None:
    late = open_source(mimic4.write(tmp_path / "late"))
    for row in mimic4.tables["hosp/admissions"]:
        row["ethnicity"] = row.pop("race")
    mimic4.headers["hosp/admissions"] = list(mimic4.tables["hosp/admissions"][0])
    for name in ("patients", "admissions"):
        mimic4.tables[f"core/{name}"] = mimic4.tables.pop(f"hosp/{name}")
        mimic4.headers[f"core/{name}"] = mimic4.headers.pop(f"hosp/{name}")
    early = open_source(mimic4.write(tmp_path / "early"))
    assert early.release == "1.x"
    assert late.release == "2.x or 3.x"
    a, b = select(early)[0], select(late)[0]
    assert a.select(sorted(a.columns)).equals(b.select(sorted(b.columns)))


def test_a_flat_unpacked_shuffled_upper_case_copy_reads_like_the_release(
    mimic4: Any, tmp_path: Path
) -> None:
    plain = select(open_source(mimic4.write(tmp_path / "a")))[0]
    other = mimic4.write(
        tmp_path / "b", flat=True, gz=False, upper=True, shuffle=3, newline="\r\n", bom=True
    )
    assert plain.equals(select(open_source(other))[0])


def test_a_renamed_column_of_a_source_is_refused(mimic3: Any, tmp_path: Path) -> None:
    mimic3.headers["icustays"] = [
        "in_time" if column == "intime" else column for column in mimic3.headers["icustays"]
    ]
    source = open_source(mimic3.write(tmp_path))
    with pytest.raises(SchemaError, match="Did you rename in_time"):
        select(source)


def test_the_real_releases_are_recognised(shared: Path) -> None:
    three = open_source(shared / "data" / "mimiciii_demo")
    four = open_source(shared / "data" / "mimiciv_demo")
    assert (three.dataset, three.release) == ("mimic3", "1.4 demo")
    assert (four.dataset, four.release) == ("mimic4", "2.2 demo")


def test_nine_real_patients_over_89_have_a_plausible_age(shared: Path) -> None:
    kept, _ = select(open_source(shared / "data" / "mimiciii_demo"))
    assert kept.height == 114
    assert kept.filter(pl.col("age") > 89).height == 9
    assert kept["age"].max() == AGE_OVER_89
