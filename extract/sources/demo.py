"""A synthetic hospital written as raw files: MIMIC-IV tables, chest films and reports.

The whole way from raw tables to a judged model can be tried on it without any credential, and
because the dependence between its modalities is known, it can be checked what a model finds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import polars as pl

from ...errors import ConfigError
from ...progress import Progress, silent
from .demo_films import HEIGHT, SIGNS, WIDTH, Film, Sign, Study, jpeg, schedule
from .demo_patients import SEVERITIES, THETA, Hospital, build_hospital
from .demo_reports import write_report
from .demo_tables import write_table, write_tables

MARKER = "SYNTHETIC.json"
VERSION = 1
_LABELS = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Enlarged Cardiomediastinum",
    "Fracture",
    "Lung Lesion",
    "Lung Opacity",
    "No Finding",
    "Pleural Effusion",
    "Pleural Other",
    "Pneumonia",
    "Pneumothorax",
    "Support Devices",
)


@dataclass(frozen=True)
class DemoTruth:
    """What is known about a synthetic tree, as its marker file records it.

    Args:
        theta: Parameter of the Frank copula of the severities `modalities`.
        task_stays: Stays that reach the 48 h task cohort.
        attrition: Stays left after each rule of the cohort, in order.
        task_deaths: Deaths in hospital among the task stays.
        films, reports: Files written.
        sign: How severity shows in films, see `demo_films`.
    """

    stays: int
    seed: int
    theta: float
    family: str
    modalities: Sequence[str]
    task_stays: int
    task_deaths: int
    attrition: Mapping[str, int]
    rows: Mapping[str, int]
    films: int
    reports: int
    version: int = VERSION
    sign: Sign = "haze"


def write_demo(
    out: Path, stays: int = 400, seed: int = 0, progress: Progress = silent, sign: Sign = "haze"
) -> DemoTruth:
    """Write the synthetic source tree; a complete one of the same arguments is left as it is.

    Args:
        out: Folder of the tree: new, empty, or an unfinished tree of the same arguments.
        stays: ICU stays in the 48 h task cohort; about a quarter more exist and are dropped by
            the cohort rules.
        seed: Seed of every random number; the same seed gives the same bytes.
        progress: Shows the number of films drawn.
        sign: How severity shows in films, see `demo_films`.

    Raises:
        ConfigError: `out` holds something else, `stays` is not positive, or there is no such sign.
    """
    if stays < 1:
        raise ConfigError(f"a synthetic hospital needs at least 1 stay; found {stays}")
    if sign not in SIGNS:
        raise ConfigError(f"severity shows in films as {' or '.join(SIGNS)}; found {sign!r}")
    finished = _claim(out, stays, seed, sign)
    if finished is not None:
        return finished
    hospital = build_hospital(stays, seed)
    rows = write_tables(out, hospital, seed)
    studies = list(schedule(hospital.stays, np.random.default_rng([seed, 5])))
    films = [film for study in studies for film in study.films]
    _write_cxr_tables(out, studies, seed)
    with progress("drawing films", len(films), "films") as advance:
        for film in films:
            path = out / film_path(film.subject_id, film.study_id, film.dicom_id)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(jpeg(film, seed, sign))
            advance(1)
    written = _write_reports(out, studies, seed)
    truth = _truth(hospital, stays, seed, rows, len(films), written, sign)
    _write_marker(out, {**asdict(truth), "complete": True})
    return truth


def film_path(subject_id: int, study_id: int, dicom_id: str) -> str:
    """Where MIMIC-CXR-JPG keeps a film, below its root."""
    return f"files/p{str(subject_id)[:2]}/p{subject_id}/s{study_id}/{dicom_id}.jpg"


def _write_marker(out: Path, content: Mapping[str, object]) -> None:
    text = json.dumps(
        {"what": "Synthetic data drawn by cm2; no patient is in it.", **content}, indent=1
    )
    (out / MARKER).write_text(text + "\n")


def _claim(out: Path, stays: int, seed: int, sign: Sign) -> DemoTruth | None:
    """Mark the folder as synthetic before anything is written, or find it finished."""
    asked = {"version": VERSION, "stays": stays, "seed": seed, "sign": sign}
    marker = out / MARKER
    if marker.exists():
        found = {"sign": "haze", **json.loads(marker.read_text())}  # once there was no other
        if any(found.get(key) != value for key, value in asked.items()):
            there = {key: found.get(key) for key in asked}
            raise ConfigError(
                f"{out} holds another synthetic tree: asked for {asked}, found {there}. "
                "Choose another folder, or remove that one."
            )
        if found.get("complete"):
            names = DemoTruth.__dataclass_fields__
            return DemoTruth(**{key: found[key] for key in found if key in names})
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(
            f"{out} is not empty and was not written by cm2 demo; choose a new or empty folder"
        )
    out.mkdir(parents=True, exist_ok=True)
    _write_marker(out, {**asked, "complete": False})
    return None


def _truth(
    hospital: Hospital,
    stays: int,
    seed: int,
    rows: Mapping[str, int],
    films: int,
    reports: int,
    sign: Sign,
) -> DemoTruth:
    kinds = [stay.kind for stay in hospital.stays]
    died = {a.hadm_id for a in hospital.admissions if a.died is not None}
    total, transfer, pair = len(kinds), kinds.count("transfer"), kinds.count("pair")
    attrition = {
        "ICU stays": total,
        "no transfer between units": total - transfer,
        "one stay per admission": total - transfer - pair,
        "48 hours or more": kinds.count("clean") + kinds.count("silent"),
        "a measurement in 48 hours": kinds.count("clean"),
    }
    deaths = sum(stay.kind == "clean" and stay.hadm_id in died for stay in hospital.stays)
    return DemoTruth(
        stays,
        seed,
        THETA,
        "frank",
        list(SEVERITIES),
        kinds.count("clean"),
        deaths,
        attrition,
        rows,
        films,
        reports,
        sign=sign,
    )


def _write_reports(out: Path, studies: Sequence[Study], seed: int) -> int:
    rng = np.random.default_rng([seed, 7])
    written = 0
    for study in studies:
        if study.text_z is not None:
            folder = out / film_path(study.subject_id, study.study_id, "x").rpartition("/s")[0]
            folder.mkdir(parents=True, exist_ok=True)
            text = write_report(study.text_z, rng)
            (folder / f"s{study.study_id}.txt").write_bytes(text.encode())
            written += 1
    return written


def _write_cxr_tables(out: Path, studies: Sequence[Study], seed: int) -> None:
    rng = np.random.default_rng([seed, 8])
    films = sorted((film for study in studies for film in study.films), key=lambda f: f.dicom_id)
    ids = {
        "dicom_id": [f.dicom_id for f in films],
        "subject_id": [f.subject_id for f in films],
        "study_id": [f.study_id for f in films],
    }
    write_table(out / "mimic-cxr-2.0.0-metadata.csv.gz", pl.DataFrame({**ids, **_metadata(films)}))
    shares = rng.choice(["train", "validate", "test"], size=len(films), p=[0.97, 0.01, 0.02])
    split = pl.DataFrame({**ids, "split": shares}).select(
        "dicom_id", "study_id", "subject_id", "split"
    )
    write_table(out / "mimic-cxr-2.0.0-split.csv.gz", split)
    write_table(out / "mimic-cxr-2.0.0-chexpert.csv.gz", _chexpert(studies, rng))


def _metadata(films: Sequence[Film]) -> dict[str, pl.Series]:
    names = {"AP": "antero-posterior", "PA": "postero-anterior", "LATERAL": "lateral"}
    count = len(films)
    columns: dict[str, Sequence[object]] = {
        "PerformedProcedureStepDescription": [
            "CHEST (PORTABLE AP)" if f.view == "AP" else "CHEST (PA AND LAT)" for f in films
        ],
        "ViewPosition": [f.view for f in films],
        "Rows": [HEIGHT] * count,
        "Columns": [WIDTH] * count,
        "StudyDate": [int(f"{f.taken:%Y%m%d}") for f in films],
        "StudyTime": [float(f"{f.taken:%H%M%S}") + 0.125 for f in films],
        "ProcedureCodeSequence_CodeMeaning": ["CHEST"] * count,
        "ViewCodeSequence_CodeMeaning": [names[f.view] for f in films],
        "PatientOrientationCodeSequence_CodeMeaning": ["Erect"] * count,
    }
    return {name: pl.Series(name, values) for name, values in columns.items()}


def _chexpert(studies: Sequence[Study], rng: np.random.Generator) -> pl.DataFrame:
    rows = []
    for study in sorted(studies, key=lambda s: (s.subject_id, s.study_id)):
        shown = study.films[0].z + rng.normal(scale=0.8, size=len(_LABELS))
        marks: list[float | None] = [1.0 if v > 0.8 else 0.0 if v < -1 else None for v in shown]
        if rng.random() < 0.1:
            marks[int(rng.integers(len(marks)))] = -1.0
        rows.append((study.subject_id, study.study_id, *marks))
    schema = {"subject_id": pl.Int64, "study_id": pl.Int64, **dict.fromkeys(_LABELS, pl.Float64)}
    return pl.DataFrame(rows, schema, orient="row")
