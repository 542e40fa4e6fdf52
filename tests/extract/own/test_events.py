from __future__ import annotations

import random
import re
from pathlib import Path

import numpy as np
import pytest

from cm2.errors import RejectsError, SchemaError

from .conftest import Extract, View, column, why_not


def test_the_grid_equals_its_plain_restatement(folder: Path, run: Extract, look: View) -> None:
    source = random.Random(0)
    events = [
        (100 + source.randrange(12), source.uniform(-1, 55), source.choice("ab"), source.random())
        for _ in range(900)
    ]
    lines = [f"{s},{h},{v},{x}" for s, h, v, x in events]
    (folder / "e.csv").write_text("\n".join(["stay_id,hours,variable,value", *lines]) + "\n")
    run("vitals=e.csv", step_hours=4.0)
    found = look("vitals")
    assert found.values.shape == (12, 12, 6)
    for row in range(12):
        for variable in "ab":
            last, known = 0.0, 0.0
            for step in range(12):
                # right-closed bins; the first one also holds hour 0
                inside = [
                    (h, x)
                    for s, h, v, x in events
                    if s == 100 + row and v == variable and 0 <= h <= 48
                    if (4 * step < h <= 4 * step + 4) or (step == 0 and h == 0)
                ]
                if inside:
                    last, known = max(inside)[1], 1.0
                cell = (
                    column(found, variable)[row, step],
                    column(found, f"known:{variable}")[row, step],
                    column(found, f"measured:{variable}")[row, step],
                )
                assert cell == (np.float32(last), known, float(bool(inside)))


def test_nothing_after_the_prediction_time_is_read(folder: Path, run: Extract, look: View) -> None:
    (folder / "e.csv").write_text(
        "stay_id,time,variable,value\n"
        "100,2150-01-01 08:00:00,a,1\n100,2150-01-03 06:00:01,a,9\n101,2150-01-09 00:00:00,a,5\n"
    )
    run("vitals=e.csv")
    assert column(look("vitals"), "a")[0].max() == 1
    assert why_not(folder / "cache", "vitals")[101] == "after_prediction_time"


def test_times_are_required_and_their_columns_named(folder: Path, run: Extract) -> None:
    (folder / "e.csv").write_text("stay_id,variable,value\n100,a,1\n")
    with pytest.raises(SchemaError, match="'hours', 'minute', 'time'"):
        run("vitals=e.csv")


def test_words_among_numbers_reject_their_stay(folder: Path, run: Extract) -> None:
    (folder / "e.csv").write_text(
        "stay_id,hours,variable,value\n100,1,a,1\n101,1,a,error\n102,1,a,3\n"
    )
    with pytest.raises(RejectsError, match="1 of 3"):
        run("vitals=e.csv")


def test_a_kept_variable_that_the_file_has_not_is_a_warning_with_the_nearest_name(
    folder: Path, run: Extract
) -> None:
    (folder / "e.csv").write_text("stay_id,hours,variable,value\n100,1,HR,80\n100,1,MAP,70\n")
    for keep, caution in (
        (["HR", "map"], r"labs: `keep` .* e\.csv .*: 'map'\. Did you mean 'MAP'\?$"),
        (["HR", "MAP"], "^$"),
    ):
        (folder / "own.toml").write_text(f'[modality.labs]\nfile = "e.csv"\nkeep = {keep}\n')
        found = run("labs", config=folder / "own.toml", cache=folder / keep[1]).modalities[0]
        assert re.search(caution, found.caution)
