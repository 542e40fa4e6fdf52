"""The tables of the synthetic hospital, in the layout and with the headers of MIMIC-IV."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import polars as pl
from numpy.random import Generator

from .demo_events import chartevents, d_items, d_labitems, labevents
from .demo_patients import Hospital

_DIAGNOSES = (("4019", 9), ("486", 9), ("51881", 9), ("I10", 10), ("J189", 10), ("N179", 10))


def write_table(path: Path, table: pl.DataFrame) -> None:
    """Write one .csv.gz whose bytes depend on the content alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    csv = table.write_csv(datetime_format="%Y-%m-%d %H:%M:%S", date_format="%Y-%m-%d")
    path.write_bytes(gzip.compress(csv.encode(), compresslevel=6, mtime=0))


def write_tables(root: Path, hospital: Hospital, seed: int) -> dict[str, int]:
    """Write hosp/ and icu/ below `root`; return the number of rows per table."""
    rng = np.random.default_rng([seed, 4])
    tables = {
        "hosp/patients": _patients(hospital),
        "hosp/admissions": _admissions(hospital, rng),
        "hosp/diagnoses_icd": _diagnoses(hospital, rng),
        "hosp/d_labitems": d_labitems(),
        "hosp/labevents": labevents(hospital, rng),
        "icu/icustays": _icustays(hospital),
        "icu/d_items": d_items(),
        "icu/chartevents": chartevents(hospital, rng),
    }
    for name, table in tables.items():
        write_table(root / f"{name}.csv.gz", table)
    return {name: table.height for name, table in tables.items()}


def _patients(hospital: Hospital) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "subject_id": [p.subject_id for p in hospital.patients],
            "gender": [p.gender for p in hospital.patients],
            "anchor_age": [p.anchor_age for p in hospital.patients],
            "anchor_year": [p.anchor_year for p in hospital.patients],
            "anchor_year_group": ["2011 - 2013"] * len(hospital.patients),
            "dod": [None if p.dod is None else p.dod.date() for p in hospital.patients],
        },
        schema_overrides={"dod": pl.Date},
    ).sort("subject_id")


def _admissions(hospital: Hospital, rng: Generator) -> pl.DataFrame:
    rows = hospital.admissions
    race = {p.subject_id: p.race for p in hospital.patients}
    died = [a.died is not None for a in rows]
    return pl.DataFrame(
        {
            "subject_id": [a.subject_id for a in rows],
            "hadm_id": [a.hadm_id for a in rows],
            "admittime": [a.admitted for a in rows],
            "dischtime": [a.discharged for a in rows],
            "deathtime": [a.died for a in rows],
            "admission_type": ["EW EMER."] * len(rows),
            "admit_provider_id": [f"P{int(n):05d}" for n in rng.integers(100_000, size=len(rows))],
            "admission_location": ["EMERGENCY ROOM"] * len(rows),
            "discharge_location": ["DIED" if d else "HOME" for d in died],
            "insurance": ["Other"] * len(rows),
            "language": ["ENGLISH"] * len(rows),
            "marital_status": [None] * len(rows),
            "race": [race[a.subject_id] for a in rows],
            "edregtime": [None] * len(rows),
            "edouttime": [None] * len(rows),
            "hospital_expire_flag": [int(d) for d in died],
        },
        schema_overrides={"deathtime": pl.Datetime("us")},
    ).sort("subject_id", "admittime")


def _diagnoses(hospital: Hospital, rng: Generator) -> pl.DataFrame:
    rows = [
        (a.subject_id, a.hadm_id, place + 1, *_DIAGNOSES[int(code)])
        for a in hospital.admissions
        for place, code in enumerate(rng.permutation(len(_DIAGNOSES))[: int(rng.integers(1, 5))])
    ]
    header = ["subject_id", "hadm_id", "seq_num", "icd_code", "icd_version"]
    return pl.DataFrame(rows, header, orient="row").sort("subject_id", "hadm_id", "seq_num")


def _icustays(hospital: Hospital) -> pl.DataFrame:
    rows = hospital.stays
    return pl.DataFrame(
        {
            "subject_id": [s.subject_id for s in rows],
            "hadm_id": [s.hadm_id for s in rows],
            "stay_id": [s.stay_id for s in rows],
            "first_careunit": [s.units[0] for s in rows],
            "last_careunit": [s.units[1] for s in rows],
            "intime": [s.entered for s in rows],
            "outtime": [s.left for s in rows],
            "los": [s.hours / 24 for s in rows],
        }
    ).sort("subject_id", "intime")
