from __future__ import annotations

import math
from itertools import product

import polars as pl
import pytest

from cm2.extract.modalities.cleaning import clean, reference_rank
from cm2.extract.sources.catalogue import published

CATALOGUE = published("corrected")
NAMES = CATALOGUE.names
EYE = "Glasgow coma scale eye opening"
VERBAL = "Glasgow coma scale verbal response"
MOTOR = "Glasgow coma scale motor response"
TOTAL = "Glasgow coma scale total"
SBP, DBP = "Systolic blood pressure", "Diastolic blood pressure"
FIO2, SPO2 = "Fraction inspired oxygen", "Oxygen saturation"
CRR = "Capillary refill rate"


def one(
    preset: str,
    variable: str,
    value: str | None,
    unit: str = "",
    uom: str | None = None,
    label: str = "",
    valuenum: str | None = None,
) -> float | None:
    frame = pl.DataFrame(
        {
            "variable": [NAMES.index(variable)],
            "value": [value],
            "unit": [unit],
            "valueuom": [uom],
            "label": [label],
            "valuenum": [valuenum],
        },
        schema_overrides={
            "variable": pl.UInt8,
            "value": pl.String,
            "valueuom": pl.String,
            "valuenum": pl.String,
        },
    )
    return clean(frame.lazy(), published(preset)).collect()["value"].item()  # type: ignore[arg-type]


CORRECTED = [
    ("Heart Rate", "80", "", 80.0),
    ("Heart Rate", " 80 ", "", 80.0),
    ("Heart Rate", "391", "", None),
    ("Heart Rate", "370", "", 350.0),
    ("Heart Rate", "eighty", "", None),
    ("Heart Rate", "1e2", "", None),
    ("Heart Rate", "nan", "", None),
    ("Heart Rate", "inf", "", None),
    ("Heart Rate", "-5", "", None),
    ("pH", ".2", "", None),
    ("pH", "7.", "", 7.0),
    ("pH", ".", "", None),
    ("pH", "8.9", "", 8.4),
    ("Glucose", ">500", "", None),
    ("Glucose", "12", "", 33.0),
    ("Glucose", "2500", "", None),
    (FIO2, ".5", "fraction", 0.5),
    (FIO2, "0.5", "percent", 0.5),
    (FIO2, "50", "percent", 0.5),
    (FIO2, "1", "fraction", 1.0),
    (FIO2, "100", "percent", 1.0),
    (FIO2, "0", "percent", None),
    (FIO2, "0.205", "fraction", 0.21),
    (FIO2, "2", "percent", None),
    (SPO2, ".97", "%", 97.0),
    (SPO2, "97", "%", 97.0),
    (SPO2, "120", "%", 100.0),
    (SBP, "120/80", "mmHg", 120.0),
    (DBP, "120/80", "mmHg", 80.0),
    (SBP, "120/", "mmHg", None),
    (DBP, "/80", "mmHg", None),
    ("Temperature", "98.6", "degF", 37.0),
    ("Temperature", "98.6", "degC", 37.0),
    ("Temperature", "37", "degC", 37.0),
    ("Temperature", "37", "degF", 37.0),
    ("Temperature", "60", "degF", 26.0),
    ("Temperature", "50", "degF", None),
    ("Weight", "100", "lb", 45.3592),
    ("Weight", "100", "kg", 100.0),
    ("Weight", "1600", "oz", 45.3592),
    ("Weight", "300", "kg", None),
    ("Height", "70", "inch", 177.8),
    ("Height", "170", "cm", 170.0),
    (CRR, "Normal <3 secs", "text", 0.0),
    (CRR, "Normal <3 Seconds", "text", 0.0),
    (CRR, "Brisk", "text", 0.0),
    (CRR, "Abnormal >3 Seconds", "text", 1.0),
    (CRR, "Delayed", "text", 1.0),
    (CRR, "Other/Remarks", "text", None),
    (EYE, "None", "text", 1.0),
    (EYE, "1 No Response", "text", 1.0),
    (EYE, "To Pain", "text", 2.0),
    (EYE, "3 To speech", "text", 3.0),
    (EYE, "Spontaneously", "text", 4.0),
    (MOTOR, "Abnormal extension", "text", 2.0),
    (MOTOR, "6 Obeys Commands", "text", 6.0),
    (VERBAL, "No Response-ETT", "text", 1.0),
    (VERBAL, "1.0 ET/Trach", "text", 1.0),
    (VERBAL, "Oriented", "text", 5.0),
    (VERBAL, "4", "text", None),
    (TOTAL, "15", "points", 15.0),
    (TOTAL, "15.0", "points", 15.0),
    (TOTAL, "16", "points", None),
    (TOTAL, "7.5", "points", None),
]


@pytest.mark.parametrize(("variable", "text", "unit", "expected"), CORRECTED)
def test_corrected_cleaning(variable: str, text: str, unit: str, expected: float | None) -> None:
    found = one("corrected", variable, text, unit)
    assert found == (expected if expected is None else pytest.approx(expected))


def test_a_masked_value_is_taken_from_the_numeric_column_in_the_corrected_preset_only() -> None:
    assert one("corrected", "Glucose", "___", "mg/dL", valuenum="120") == 120
    assert one("reference", "Glucose", "___", "mg/dL", valuenum="120") is None
    assert one("corrected", "Glucose", ">500", "mg/dL", valuenum="120") is None


REFERENCE = [
    ("Heart Rate", "80", None, "", 80.0),
    ("Heart Rate", "9999", None, "", 9999.0),
    (FIO2, "0.5", None, "", 0.005),
    (FIO2, "50", "decFrc", "", 0.5),
    (FIO2, "0.5", "Torr", "", 0.5),
    ("Glucose", " 7", None, "", None),
    ("Glucose", "1e2", None, "", None),
    ("pH", ".2", None, "", 0.2),
    (SPO2, "0.97", None, "", 97.0),
    (SPO2, "0", None, "", 0.0),
    ("Temperature", "78", "?F", "Temperature Fahrenheit", 78.0),
    ("Temperature", "98.6", "?C", "", 37.0),
    ("Weight", "100", None, "Admission Weight (lbs.)", 45.3592),
    ("Weight", "100", "kg", "Daily Weight", 100.0),
    ("Weight", "160", "oz", "", 4.53592),
    ("Height", "67", "Inch", "Height", 170.0),
    ("Height", "67", None, "Height Inches", 170.0),
    ("Height", "67", None, "Height", 67.0),
    (SBP, "120/80", None, "", 120.0),
    (DBP, "120/80", None, "", 80.0),
    (CRR, "Normal <3 Seconds", None, "", None),
    (CRR, "Brisk", None, "", 0.0),
    (EYE, "none", None, "", None),
]


@pytest.mark.parametrize(("variable", "text", "uom", "label", "expected"), REFERENCE)
def test_reference_cleaning_keeps_its_quirks(
    variable: str, text: str, uom: str | None, label: str, expected: float | None
) -> None:
    found = one("reference", variable, text, uom=uom, label=label)
    assert found == (expected if expected is None else pytest.approx(expected))


def test_reference_ranks_follow_the_order_of_texts() -> None:
    for variable in CATALOGUE.variables:
        if not variable.name.startswith("Glasgow"):
            continue
        for text in variable.reference_levels:
            rank = one("reference", variable.name, text)
            assert rank is not None
            place = reference_rank(variable)[int(rank)]
            assert variable.reference_levels[int(place)] == text
    nine, fifteen = one("reference", TOTAL, "9"), one("reference", TOTAL, "15")
    assert nine is not None
    assert fifteen is not None
    assert nine > fifteen, "the published code compares coma-scale totals as text"


def test_every_corrected_value_is_finite_and_within_its_bounds() -> None:
    texts = ["0", "1", "1.0", "5", "30", "79", "100", "300", "5000", "120/80", "None", "", "nan"]
    units = ["degF", "lb", "oz", "inch", "percent", ""]
    cases = pl.DataFrame(
        list(product(range(len(NAMES)), texts, units)),
        schema={"variable": pl.UInt8, "value": pl.String, "unit": pl.String},
        orient="row",
    ).with_columns(
        valueuom=pl.lit(None, pl.String), label=pl.lit(""), valuenum=pl.lit(None, pl.String)
    )
    found = clean(cases.lazy(), CATALOGUE).collect().drop_nulls("value")
    assert found.height > 200
    for position, value in found.select("variable", "value").iter_rows():
        assert math.isfinite(value)
        assert (
            CATALOGUE.variables[position].valid_low
            <= value
            <= CATALOGUE.variables[position].valid_high
        )
