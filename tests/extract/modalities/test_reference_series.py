"""The reference preset against a slow, plain restatement of the published rules."""

from __future__ import annotations

import csv
import gzip
import re
from collections import defaultdict
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cm2.cache.cohort import write_cohort
from cm2.extract import cohort as cohorts
from cm2.extract.config import ExtractConfig
from cm2.extract.modalities import ehr
from cm2.extract.sources import open_source
from cm2.extract.sources.catalogue import published

ITEMS = {
    "Capillary refill rate": "115 3348 8377",
    "Diastolic blood pressure": "8368 8440 8441 8502 8503 8504 8506 8507 8555 220051 220180 224643 "
    "225310",
    "Fraction inspired oxygen": "189 727 3420 3422 223835",
    "Glascow coma scale eye opening": "184 220739",
    "Glascow coma scale motor response": "454 223901",
    "Glascow coma scale total": "198",
    "Glascow coma scale verbal response": "723 223900",
    "Glucose": "807 811 1529 3745 220621 225664 226537 50809 50931 51478",
    "Heart Rate": "211 220045",
    "Height": "1394 226707 226730",
    "Mean blood pressure": "52 224 456 3312 3314 3316 3320 3322 6702 220052 220181 224322 225312",
    "Oxygen saturation": "646 834 8498 220227 220277 50817",
    "Respiratory rate": "614 615 618 651 3603 220210 224422 224689 224690",
    "Systolic blood pressure": "51 442 455 3313 3315 3317 3321 3323 6701 220050 220179 224167 "
    "225309 227243",
    "Temperature": "676 677 678 679 3654 3655 223761 223762",
    "Weight": "763 3580 3581 3582 3693 224639 226512 226531",
    "pH": "780 860 1126 1673 3839 4202 4753 220274 223830 50820 50831 51094 51491",
}
NORMAL: dict[str, Any] = {
    "Capillary refill rate": "0.0",
    "Diastolic blood pressure": 59.0,
    "Fraction inspired oxygen": 0.21,
    "Glascow coma scale eye opening": "4 Spontaneously",
    "Glascow coma scale motor response": "6 Obeys Commands",
    "Glascow coma scale total": "15",
    "Glascow coma scale verbal response": "5 Oriented",
    "Glucose": 128.0,
    "Heart Rate": 86,
    "Height": 170.0,
    "Mean blood pressure": 77.0,
    "Oxygen saturation": 98.0,
    "Respiratory rate": 19,
    "Systolic blood pressure": 118.0,
    "Temperature": 36.6,
    "Weight": 81.0,
    "pH": 7.4,
}
LEVELS = {
    "Capillary refill rate": ["0.0", "1.0"],
    "Glascow coma scale eye opening": [
        "To Pain",
        "3 To speech",
        "1 No Response",
        "4 Spontaneously",
        "None",
        "To Speech",
        "Spontaneously",
        "2 To pain",
    ],
    "Glascow coma scale motor response": [
        "1 No Response",
        "3 Abnorm flexion",
        "Abnormal extension",
        "No response",
        "4 Flex-withdraws",
        "Localizes Pain",
        "Flex-withdraws",
        "Obeys Commands",
        "Abnormal Flexion",
        "6 Obeys Commands",
        "5 Localizes Pain",
        "2 Abnorm extensn",
    ],
    "Glascow coma scale total": [str(n) for n in (11, 10, 13, 12, 15, 14, 3, 5, 4, 7, 6, 9, 8)],
    "Glascow coma scale verbal response": [
        "1 No Response",
        "No Response",
        "Confused",
        "Inappropriate Words",
        "Oriented",
        "No Response-ETT",
        "5 Oriented",
        "Incomprehensible sounds",
        "1.0 ET/Trach",
        "4 Confused",
        "2 Incomp sounds",
        "3 Inapprop words",
    ],
}


def rows(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        return [{k.upper(): v for k, v in row.items()} for row in csv.DictReader(file)]


def when(text: str) -> datetime:
    return datetime.fromisoformat(text)


def kept_stays(folder: Path) -> list[dict[str, str]]:
    admissions = {row["HADM_ID"]: row for row in rows(folder / "ADMISSIONS.csv.gz")}
    patients = {row["SUBJECT_ID"]: row for row in rows(folder / "PATIENTS.csv.gz")}
    stays = [
        row
        for row in rows(folder / "ICUSTAYS.csv.gz")
        if row["FIRST_CAREUNIT"] == row["LAST_CAREUNIT"]
        and row["FIRST_WARDID"] == row["LAST_WARDID"]
        and row["HADM_ID"] in admissions
        and row["SUBJECT_ID"] in patients
    ]
    per_admission: dict[str, int] = defaultdict(int)
    for row in stays:
        per_admission[row["HADM_ID"]] += 1
    stays = [row for row in stays if per_admission[row["HADM_ID"]] == 1]

    def age(row: dict[str, str]) -> float:
        return (when(row["INTIME"]) - when(patients[row["SUBJECT_ID"]]["DOB"])).days / 365

    return [row for row in stays if age(row) >= 18]


def clean(variable: str, text: str, unit: str, label: str) -> float | str | None:
    unit, label = unit.lower(), label.lower()
    if variable.startswith("Glascow"):
        return text
    if variable == "Capillary refill rate":
        known = {"Normal <3 secs": 0.0, "Brisk": 0.0, "Abnormal >3 secs": 1.0, "Delayed": 1.0}
        return known.get(text)
    if variable in ("Systolic blood pressure", "Diastolic blood pressure") and "/" in text:
        pair = re.match(r"^(\d+)/(\d+)$", text)
        assert pair is not None
        return float(pair.group(1 if variable.startswith("Systolic") else 2))
    if variable in ("Glucose", "pH", "Oxygen saturation"):
        if not re.match(r"^(\d+(\.\d*)?|\.\d+)$", text):
            return None
        value = float(text)
        return value * 100 if variable == "Oxygen saturation" and value <= 1 else value
    value = float(text)
    if variable == "Fraction inspired oxygen" and "torr" not in unit:
        value = value / 100
    if variable == "Temperature" and value >= 79:
        value = (value - 32) * 5.0 / 9
    if variable == "Weight":
        if "oz" in unit or "oz" in label:
            value = value / 16.0
        if "oz" in unit or "oz" in label or "lb" in unit or "lb" in label:
            value = value * 0.453592
    if variable == "Height" and ("in" in unit or "in" in label):
        value = float(round(value * 2.54))
    return value


def subject_series(
    folder: Path, stays: list[dict[str, str]]
) -> dict[str, dict[datetime, tuple[str, dict[str, float | str]]]]:
    """subject -> time -> (stay id, variable -> value)."""
    variable_of = {itemid: variable for variable, ids in ITEMS.items() for itemid in ids.split()}
    labels = {row["ITEMID"]: row["LABEL"] for row in rows(folder / "D_ITEMS.csv.gz")}
    labels |= {row["ITEMID"]: row["LABEL"] for row in rows(folder / "D_LABITEMS.csv.gz")}
    stay_of = {row["HADM_ID"]: row["ICUSTAY_ID"] for row in stays}
    found: dict[str, list[tuple[datetime, str, float | str, str]]] = defaultdict(list)
    for name in ("CHARTEVENTS", "LABEVENTS"):
        for row in rows(folder / f"{name}.csv.gz"):
            if row["ITEMID"] not in variable_of or row["HADM_ID"] not in stay_of:
                continue
            stay = stay_of[row["HADM_ID"]]
            if row.get("ICUSTAY_ID", "") not in ("", stay) or row["VALUE"] == "":
                continue
            variable = variable_of[row["ITEMID"]]
            value = clean(variable, row["VALUE"], row["VALUEUOM"], labels[row["ITEMID"]])
            if value is not None:
                event = (when(row["CHARTTIME"]), variable, value, stay)
                found[row["SUBJECT_ID"]].append(event)
    series: dict[str, dict[datetime, tuple[str, dict[str, float | str]]]] = {}
    for subject, events in found.items():
        lines: dict[datetime, tuple[str, dict[str, float | str]]] = {}
        for time, variable, value, stay in sorted(events, key=lambda e: (e[0], e[1], e[2])):
            lines.setdefault(time, (stay, {}))[1][variable] = value
        series[subject] = lines
    return series


def discretise(hours_and_values: list[tuple[float, dict[str, float | str]]]) -> list[list[float]]:
    names = list(ITEMS)
    count = int(48 / 2.0 + 1 - 1e-6)
    seen: list[dict[str, float | str]] = [{} for _ in range(count)]
    for hours, values in hours_and_values:
        if hours > 48 + 1e-6:
            continue
        seen[int(hours / 2.0 - 1e-6)].update(values)
    grid = []
    last: dict[str, Any] = dict(NORMAL)
    for cell in seen:
        line: list[float] = []
        last.update(cell)
        for name in names:
            if name in LEVELS:
                assert str(last[name]) in LEVELS[name]
                line += [float(str(last[name]) == level) for level in LEVELS[name]]
            else:
                line.append(float(last[name]))
        grid.append(line + [float(name in cell) for name in names])
    return grid


@pytest.fixture(scope="module")
def demo(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = shared / "data" / "mimiciii_demo"
    cache = tmp_path_factory.mktemp("cache")
    config = ExtractConfig(data=folder, cache=cache, preset="reference")
    source = open_source(folder)
    cohort = write_cohort(cache, "default", *cohorts.build(source, config))
    plan = ehr.plan(source, cohort, config, published("reference"))
    return folder, cohort, plan, plan.encode(plan.work)


def test_every_cell_of_the_demo_equals_the_plain_restatement(demo: Any) -> None:
    folder, cohort, _, shard = demo
    stays = kept_stays(folder)
    series = subject_series(folder, stays)
    ours = dict(zip(shard.item_ids, shard.arrays["values"], strict=True))
    eligible = 0
    for stay in stays:
        start, end = when(stay["INTIME"]), when(stay["OUTTIME"])
        lines = []
        for time, (owner, values) in sorted(series.get(stay["SUBJECT_ID"], {}).items()):
            if owner == stay["ICUSTAY_ID"] or start <= time <= end:
                hours = (time - start).total_seconds() / 60.0 / 60
                if -1e-6 < hours < 48 + 1e-6:
                    lines.append((hours, values))
        if not lines:
            assert stay["ICUSTAY_ID"] not in ours
            continue
        expected = np.array(discretise(lines))
        assert expected.shape == (24, 76)
        np.testing.assert_allclose(ours[stay["ICUSTAY_ID"]], expected, rtol=1e-6, atol=0)
        eligible += 24 * float(stay["LOS"]) >= 48 - 1e-6
    assert eligible == 57
    assert sum(cohort.stays.column("in_ihm").to_pylist()) == 57


def test_the_76_columns_have_the_published_names_and_order(demo: Any) -> None:
    names = []
    for name in ITEMS:
        names += [f"{name}->{level}" for level in LEVELS[name]] if name in LEVELS else [name]
    assert list(demo[2].space.columns) == names + [f"mask->{name}" for name in ITEMS]


def test_closed_eyes_survive_as_the_level_none(demo: Any) -> None:
    _, _, plan, shard = demo
    column = plan.space.columns.index("Glascow coma scale eye opening->None")
    assert shard.arrays["values"][..., column].sum() > 100
