"""Small source trees whose every number is known."""

from __future__ import annotations

import csv
import gzip
import io
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

TIME = "2150-01-{day:02d} {hour:02d}:{minute:02d}:00"


def at(hours: float, start_day: int = 1) -> str:
    """Time of day so many hours after midnight of a day in January 2150."""
    minutes = round(hours * 60)
    return TIME.format(
        day=start_day + minutes // 1440, hour=minutes % 1440 // 60, minute=minutes % 60
    )


@dataclass
class Tree:
    """Tables as lists of dicts; a test changes cells and then writes the tree."""

    tables: dict[str, list[dict[str, str]]]
    headers: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, rows in self.tables.items():
            self.headers.setdefault(name, list(rows[0]))

    def write(
        self,
        root: Path,
        *,
        upper: bool = False,
        gz: bool = True,
        flat: bool = False,
        shuffle: int | None = None,
        newline: str = "\n",
        bom: bool = False,
    ) -> Path:
        for name, rows in self.tables.items():
            header = self.headers[name]
            if shuffle is not None:
                rows = random.Random(shuffle).sample(rows, len(rows))
            text = io.StringIO(newline="")
            writer = csv.writer(text, lineterminator=newline)
            writer.writerow([column.upper() if upper else column for column in header])
            writer.writerows([row.get(column, "") for column in header] for row in rows)
            data = text.getvalue().encode()
            data = b"\xef\xbb\xbf" + data if bom else data
            stem = name.rpartition("/")[2] if flat else name
            path = root / f"{stem.upper() if upper else stem}.csv{'.gz' if gz else ''}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(gzip.compress(data, mtime=0) if gz else data)
        return root


def chart(itemid: int, hours: float, value: str, uom: str = "", **more: str) -> dict[str, str]:
    """A charted row of the first stay of the small trees."""
    row = {
        "subject_id": "10",
        "hadm_id": "100",
        "icustay_id": "1000",
        "stay_id": "1000",
        "itemid": str(itemid),
        "charttime": at(hours),
        "value": value,
        "valuenum": "",
        "valueuom": uom,
        "error": "",
    }
    return row | more


def _mimic3() -> Tree:
    patients = [
        {"subject_id": s, "gender": g, "dob": dob, "dod": ""}
        for s, g, dob in (
            ("10", "F", "2100-01-01 00:00:00"),
            ("11", "M", "1850-01-01 00:00:00"),
            ("12", "M", "2149-06-01 00:00:00"),
        )
    ]
    admissions = [
        {
            "subject_id": s,
            "hadm_id": h,
            "admittime": at(0, day),
            "dischtime": at(72, day),
            "deathtime": "",
            "ethnicity": race,
            "hospital_expire_flag": "0",
        }
        for s, h, day, race in (
            ("10", "100", 1, "WHITE"),
            ("10", "101", 20, "WHITE"),
            ("11", "110", 1, "BLACK/CAPE VERDEAN"),
            ("12", "120", 1, "UNABLE TO OBTAIN"),
        )
    ]
    icustays = [
        {
            "subject_id": s,
            "hadm_id": h,
            "icustay_id": i,
            "first_careunit": "MICU",
            "last_careunit": "MICU",
            "first_wardid": "7",
            "last_wardid": "7",
            "intime": at(0, day),
            "outtime": at(60, day),
            "los": "2.5",
        }
        for s, h, i, day in (
            ("10", "100", "1000", 1),
            ("10", "101", "1001", 20),
            ("11", "110", "1100", 1),
            ("12", "120", "1200", 1),
        )
    ]
    events = [
        chart(211, 1, "80"),
        chart(211, 3, "90"),
        chart(211, 1, "70", subject_id="11", hadm_id="110", icustay_id="1100", charttime=at(1)),
    ]
    labs = [chart(50931, 2, "110", "mg/dL")]
    for row in events + labs:
        row.pop("stay_id")
    for row in labs:
        row.pop("icustay_id")
        row.pop("error")
    return Tree(
        {
            "patients": patients,
            "admissions": admissions,
            "icustays": icustays,
            "chartevents": events,
            "labevents": labs,
        }
    )


def _mimic4() -> Tree:
    tree = _mimic3().tables
    for row in tree["patients"]:
        row.pop("dob")
        row |= {"anchor_age": "50", "anchor_year": "2147"}
    for row in tree["admissions"]:
        row["race"] = row.pop("ethnicity")
    for row in tree["icustays"]:
        row["stay_id"] = row.pop("icustay_id")
        row.pop("first_wardid")
        row.pop("last_wardid")
    for row in tree["chartevents"]:
        row["stay_id"] = row.pop("icustay_id")
        row["itemid"] = "220045"
        row.pop("error")
    return Tree(
        {
            "hosp/patients": tree["patients"],
            "hosp/admissions": tree["admissions"],
            "icu/icustays": tree["icustays"],
            "icu/chartevents": tree["chartevents"],
            "hosp/labevents": tree["labevents"],
        }
    )


@pytest.fixture
def mimic3() -> Tree:
    """Three patients, four ICU stays, one of them of an infant, one of somebody over 89."""
    return _mimic3()


@pytest.fixture
def mimic4() -> Tree:
    """The same people in the layout of MIMIC-IV 2.x."""
    return _mimic4()


@pytest.fixture
def charted() -> Callable[..., dict[str, str]]:
    """Makes a charted row of stay 1000: (itemid, hours, value, unit text, other columns)."""
    return chart
