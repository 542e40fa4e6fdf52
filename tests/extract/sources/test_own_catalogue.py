"""Variables of the user beside the 17: on the real demo, and every way to write them wrongly."""

from __future__ import annotations

import csv
import gzip
from collections import defaultdict
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from cm2.cache.cohort import Cohort, view
from cm2.errors import CM2Error, DataError, SchemaError
from cm2.extract.config import ExtractConfig
from cm2.extract.runner import extract, plan
from cm2.extract.sources.catalogue import published
from cm2.extract.sources.own_catalogue import with_own

VARIABLES = (
    "variable,kind,unit,normal,outlier_low,valid_low,valid_high,outlier_high,levels,texts\n"
    "Lactate,number,mmol/L,1.2,0,0,20,30,,\n"
    'Sedation,category,points,0,,,,,-1|0|1,"0  Alert and calm=0|+1 Anxious, apprehensive=1|'
    '-1 Awakens to voice (eye opening/contact) > 10 sec=-1"\n'
)
ITEMS = (
    "source,itemid,variable,unit,label\n"
    "mimic3_lab,50813,Lactate,mmol/L,Lactate\n"
    "mimic3_metavision,228096,Sedation,text,Richmond-RAS Scale\n"
)


def files(folder: Path, variables: str = VARIABLES, items: str = ITEMS) -> tuple[Path, Path]:
    (folder / "my_items.csv").write_text(items)
    (folder / "my_variables.csv").write_text(variables)
    return folder / "my_items.csv", folder / "my_variables.csv"


def lactate_by_hand(root: Path, cohort: Cohort) -> dict[int, dict[int, float]]:
    """stay_id -> bin -> the last lactate of that bin, largest of one instant; plain Python."""
    admission = {}
    for row in cohort.stays.to_pylist():
        admission[str(row["hadm_id"])] = (row["stay_id"], row["intime"])
    found: dict[int, dict[float, float]] = defaultdict(dict)
    with gzip.open(root / "LABEVENTS.csv.gz", "rt") as file:
        for row in csv.DictReader(file):
            if row["ITEMID"] != "50813" or row["HADM_ID"] not in admission:
                continue
            stay, intime = admission[row["HADM_ID"]]
            hours = (datetime.fromisoformat(row["CHARTTIME"]) - intime).total_seconds() / 3600
            value = float(row["VALUE"])
            if 0 <= hours <= 48 and 0 <= value <= 30:
                value = min(value, 20.0)
                found[stay][hours] = max(value, found[stay].get(hours, value))
    return {
        stay: {max(0, int(-(-hours // 2)) - 1): value for hours, value in sorted(times.items())}
        for stay, times in found.items()
    }


def test_a_number_and_a_category_more_are_read_from_the_real_demo(
    shared: Path, tmp_path: Path
) -> None:
    root, cache = shared / "data" / "mimiciii_demo", tmp_path / "cache"
    plain = extract(ExtractConfig(data=root, cache=cache))
    items, variables = files(tmp_path)
    config = ExtractConfig(data=root, cache=cache, items=items, variables=variables)
    more = extract(config)
    assert more.stays == plain.stays, "who is in the cohort does not hang on them"
    assert more.modalities[0].space != plain.modalities[0].space
    cohort = Cohort.open(cache)
    seen = view(cache, cohort, "ehr", more.modalities[0].space)
    base = view(cache, cohort, "ehr", plain.modalities[0].space)
    names = list(seen.columns)
    assert len(names) == 59 + 2 + 4
    both = seen.has & base.has
    assert both.sum() > 90
    old = [names.index(name) for name in base.columns]
    assert np.array_equal(seen.values[both][..., old], base.values[both])
    expected = lactate_by_hand(root, cohort)
    assert sum(map(len, expected.values())) > 100
    stays = cohort.stays["stay_id"].to_pylist()
    for row, stay in enumerate(stays):
        if not seen.has[row]:
            continue
        current, lactate, mask = 1.2, names.index("Lactate"), names.index("mask->Lactate")
        for step in range(24):
            measured = expected.get(stay, {}).get(step)
            current = current if measured is None else measured
            assert seen.values[row, step, lactate] == np.float32(current)
            assert seen.values[row, step, mask] == (measured is not None)
    table = {row["variable"]: row for row in more.modalities[0].plausibility}
    assert table["Sedation"]["measurements"] >= 40
    assert extract(config).modalities[0].seconds == 0, "nothing has changed"
    items.write_text(ITEMS.replace("50813", "50971").replace("Lactate\n", "Potassium\n"))
    third = extract(config).modalities[0]
    assert third.space != more.modalities[0].space, "other items, other vectors"


def test_a_row_replaces_the_built_in_one_and_an_empty_variable_drops_the_item(
    tmp_path: Path,
) -> None:
    items, variables = files(
        tmp_path,
        VARIABLES.splitlines()[0] + "\nHeart Rate,number,1/min,70,20,30,220,300,,\n",
        "source,itemid,variable,unit\nmimic3_carevue,211,,\nmimic3_lab,50971,Glucose,mg/dL\n",
    )
    own, base = with_own(items, variables), published("corrected")
    assert own.names == base.names
    rate = own.variables[own.place("Heart Rate")]
    assert (rate.normal, rate.low, rate.valid_high) == (70, 20, 220)
    gone, kept = ({(i.source, i.itemid) for i in c.items} for c in (base, own))
    assert gone - kept == {("mimic3_carevue", 211)}
    assert own.own
    assert with_own(None, variables).own != own.own
    assert with_own(None, None) == base


HEAD = VARIABLES.splitlines()[0] + "\n"
IHEAD = "source,itemid,variable,unit\n"


@pytest.mark.parametrize(
    ("variables", "items", "words"),
    [
        (HEAD + "Lactate,number,mmol/L,1.2,0,0,20,30,,\n", IHEAD, r"row 1: no item measures"),
        (HEAD + "Lactate,numbr,mmol/L,1.2,0,0,20,30,,\n", ITEMS, r"row 1: kind must be"),
        (HEAD + "Lactate,number,mmol/L,1.2,0,0,x,30,,\n", ITEMS, r"row 1: valid_high must be a n"),
        (HEAD + "Lactate,number,mmol/L,nan,0,0,20,30,,\n", ITEMS, r"row 1: normal must be a numb"),
        (HEAD + "Lactate,number,mmol/L,25,0,0,20,30,,\n", ITEMS, r"row 1: expected outlier_low <="),
        (HEAD + "Lactate,number,mmol/L,1.2,0,0,20,30,0|1,a=0\n", ITEMS, r"row 1: a number has no"),
        (HEAD + "Lactate,category,x,0,,,,,1|0,a=0\n", ITEMS, r"row 1: a category needs levels"),
        (HEAD + "Lactate,category,x,0,,,,,0|1,a=2\n", ITEMS, r"row 1: texts must read TEXT=LEVEL"),
        (HEAD + "Lactate,category,x,.5,,,,,0|1,a=1\n", ITEMS, r"row 1: normal must be one of"),
        (HEAD + "a->b,number,x,1,0,0,20,30,,\n", ITEMS, r"row 1: expected a name"),
        (HEAD + "hours,number,x,1,0,0,20,30,,\n", ITEMS, r"row 1: expected a name"),
        (HEAD + "Heart Rate,number,Hz,1,0,0,20,30,,\n", ITEMS, r"row 1: 'Heart Rate' is cleaned"),
        (VARIABLES + VARIABLES.splitlines()[1] + "\n", ITEMS, r"row 3: 'Lactate' stands in two"),
        (VARIABLES.replace("normal", "mean"), ITEMS, r"my_variables.csv: expected the columns"),
        (VARIABLES + "Short,number\n", ITEMS, r"row 3: expected 10 cells"),
        (VARIABLES, ITEMS.replace("mimic3_lab", "mimic5"), r"row 1: source must be one of"),
        (VARIABLES, ITEMS.replace("50813", "5e4"), r"row 1: itemid must be a whole number"),
        (VARIABLES, ITEMS.replace("3,Lactate", "3,Lactat"), r"row 1: no variable.*'Lactate'\?"),
        (VARIABLES, ITEMS.replace("mmol/L", "mg/dL"), r"row 1: 'Lactate' is read in mmol/L"),
        (VARIABLES, ITEMS + ITEMS.splitlines()[1] + "\n", r"row 3: item 50813 of mimic3_lab stand"),
        (VARIABLES, 'source,itemid,variable,unit\n"x', r"not readable as CSV"),
    ],
)
def test_what_is_wrong_is_told_with_file_and_row(
    variables: str, items: str, words: str, tmp_path: Path
) -> None:
    given = files(tmp_path, variables, items)
    with pytest.raises((SchemaError, DataError), match=words) as caught:
        with_own(*given)
    assert "my_" in str(caught.value)


def test_a_dry_run_looks_at_the_files_and_names_a_missing_one(mimic3, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    root = mimic3.write(tmp_path / "root")
    items, variables = files(tmp_path)
    config = ExtractConfig(data=root, cache=tmp_path / "c", items=items, variables=variables)
    assert plan(config)[0]["modality"] == "ehr"
    variables.unlink()
    with pytest.raises(CM2Error, match=r"my_variables.csv: expected a CSV file"):
        plan(config)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"preset": "reference"}, "--preset reference"),
        ({"modality": "static"}, "--modality ehr"),
        ({"from_tree": "x"}, "--modality ehr"),
        ({"stays": "s.csv", "modality": "a=b.csv"}, "--modality ehr"),
    ],
)
def test_they_are_refused_where_they_would_do_nothing(options: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ExtractConfig.model_validate({"data": "x", "items": "i.csv", **options})
