"""Raw MIMIC-III tables to the 24 x 76 grid: this project against the per-patient way of doing it.

    python -m benchmarks.extract_grid --data MIMIC3_DEMO [--copies 20] [--rounds 3] [--out FILE]

The open demo is repeated: `--copies` times the same patients under other ids, so that 17 M rows
come of 0.85 M. Two ways take turns in one process and must agree in every cell:

* `cm2`: `extract --modality ehr --preset reference` into a fresh cache, cohort and labels included.
* `files`: a plain-Python re-statement of the work of mimic3-benchmarks in its order, made from its
  description: split the tables by patient into files, row by row; per patient read them back, clean
  each row, and write one file per stay; read each of these and put it on the grid. It is NOT the
  original, which is not at hand here and does more (validation with pandas, diagnoses, lists).

Rules and grid of `files` are those of tests/extract/modalities/test_reference_series.py.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import importlib.util
import json
import os
import statistics
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from .timing import in_turns

APART = 1_000_000  # between the ids of two copies
IDS = ("SUBJECT_ID", "HADM_ID", "ICUSTAY_ID")
TABLES = ("PATIENTS", "ADMISSIONS", "ICUSTAYS", "CHARTEVENTS", "LABEVENTS", "D_ITEMS", "D_LABITEMS")
EVENTS = ("SUBJECT_ID", "HADM_ID", "ICUSTAY_ID", "CHARTTIME", "ITEMID", "VALUE", "VALUEUOM")
Grid = dict[int, np.ndarray]


def repeat(demo: Path, root: Path, copies: int) -> int:
    """Write the demo `copies` times into one set of tables; returns the rows of events."""
    import polars as pl

    events = 0
    for name in TABLES:
        frame = pl.read_csv(demo / f"{name}.csv.gz", infer_schema=False)
        frame = frame.rename(str.upper)
        ids = [column for column in IDS if column in frame.columns]
        with gzip.open(root / f"{name}.csv.gz", "wb", compresslevel=1) as file:
            for copy in range(copies if ids else 1):
                moved = (pl.col(column).cast(pl.Int64) + copy * APART for column in ids)
                file.write(
                    frame.with_columns(moved).write_csv(include_header=copy == 0).encode("utf-8")
                )
        events += frame.height * copies if name.endswith("EVENTS") else 0
    return events


def restated() -> Any:
    """The published rules as the tests state them."""
    path = Path(__file__).parents[1] / "tests/extract/modalities/test_reference_series.py"
    spec = importlib.util.spec_from_file_location("restated", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def by_files(root: Path, tree: Path, rules: Any) -> Grid:
    """Patients to folders, rows to files, files to grids."""
    stays = rules.kept_stays(root)
    labels = {row["ITEMID"]: row["LABEL"] for row in rules.rows(root / "D_ITEMS.csv.gz")}
    labels |= {row["ITEMID"]: row["LABEL"] for row in rules.rows(root / "D_LABITEMS.csv.gz")}
    subjects = {row["SUBJECT_ID"] for row in stays}
    for name in ("CHARTEVENTS", "LABEVENTS"):
        split(root / f"{name}.csv.gz", tree, subjects)
    mine: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in stays:
        mine[row["SUBJECT_ID"]].append(row)
    grids: Grid = {}
    for subject, own in mine.items():
        for file in episodes(tree / subject, own, labels, rules):
            with file.open(newline="") as lines:
                series = [
                    (
                        float(row.pop("Hours")),
                        {k: v if k in rules.LEVELS else float(v) for k, v in row.items() if v},
                    )
                    for row in csv.DictReader(lines)
                ]
            grids[int(file.stem)] = np.array(rules.discretise(series), dtype=np.float32)
    return grids


def split(table: Path, tree: Path, subjects: set[str]) -> None:
    """Append each row to the file of its patient; rows of one patient mostly stand together."""
    current, waiting = "", []

    def flush() -> None:
        if not waiting:
            return
        file = tree / current / "events.csv"
        fresh = not file.exists()
        file.parent.mkdir(exist_ok=True)
        with file.open("a", newline="") as out:
            writer = csv.DictWriter(out, EVENTS, restval="", extrasaction="ignore")
            if fresh:
                writer.writeheader()
            writer.writerows(waiting)
        waiting.clear()

    with gzip.open(table, "rt", encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            if row["SUBJECT_ID"] not in subjects:
                continue
            if row["SUBJECT_ID"] != current:
                flush()
                current = row["SUBJECT_ID"]
            waiting.append(row)
    flush()


def episodes(
    folder: Path, stays: list[dict[str, str]], labels: dict[str, str], rules: Any
) -> list[Path]:
    """Clean the events of a patient and write one series per stay, first 48 h."""
    if not (folder / "events.csv").exists():
        return []
    variable_of = {item: name for name, ids in rules.ITEMS.items() for item in ids.split()}
    stay_of = {row["HADM_ID"]: row["ICUSTAY_ID"] for row in stays}
    events = []
    with (folder / "events.csv").open(newline="") as lines:
        for row in csv.DictReader(lines):
            stay = stay_of.get(row["HADM_ID"])
            if row["ITEMID"] not in variable_of or stay is None or row["VALUE"] == "":
                continue
            if row["ICUSTAY_ID"] not in ("", stay):
                continue
            name = variable_of[row["ITEMID"]]
            value = rules.clean(name, row["VALUE"], row["VALUEUOM"], labels[row["ITEMID"]])
            if value is not None:
                events.append((rules.when(row["CHARTTIME"]), name, value, stay))
    series: dict[Any, tuple[str, dict[str, Any]]] = {}
    for time, name, value, stay in sorted(events, key=lambda e: (e[0], e[1], e[2])):
        series.setdefault(time, (stay, {}))[1][name] = value
    written = []
    for row in stays:
        start, end = rules.when(row["INTIME"]), rules.when(row["OUTTIME"])
        lines_of = []
        for time, (owner, values) in sorted(series.items()):
            hours = (time - start).total_seconds() / 60.0 / 60
            mine = owner == row["ICUSTAY_ID"] or start <= time <= end
            if mine and -1e-6 < hours < 48 + 1e-6:
                lines_of.append({"Hours": repr(hours), **values})
        if lines_of:
            file = folder / f"{row['ICUSTAY_ID']}.csv"
            with file.open("w", newline="") as out:
                writer = csv.DictWriter(out, ("Hours", *rules.ITEMS), restval="")
                writer.writeheader()
                writer.writerows(lines_of)
            written.append(file)
    return written


def by_cm2(root: Path, cache: Path) -> Grid:
    """The series of a fresh cache."""
    from cm2.cache.cohort import Cohort, view
    from cm2.extract.config import ExtractConfig
    from cm2.extract.runner import extract

    options = {"preset": "reference", "allow_count_drift": True}
    extract(ExtractConfig.model_validate({"data": root, "cache": cache, **options}))
    cohort = Cohort.open(cache)
    series = view(cache, cohort, "ehr")
    ids = cohort.stays["stay_id"].to_pylist()
    return {s: x for s, x, has in zip(ids, series.values, series.has, strict=True) if has}


def main() -> None:
    """Repeat the demo, let both ways take turns, compare every cell, print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the MIMIC-III demo")
    parser.add_argument("--copies", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rules, found = restated(), {}
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "tables"
        root.mkdir()
        rows = repeat(options.data, root, options.copies)

        def fresh(name: str) -> Path:
            return Path(tempfile.mkdtemp(prefix=name, dir=scratch))

        works = {
            "cm2": lambda: found.update(cm2=by_cm2(root, fresh("cache"))),
            "files": lambda: found.update(files=by_files(root, fresh("tree"), rules)),
        }
        times = in_turns(works, options.rounds, warm=False)
    ours, theirs = found["cm2"], found["files"]
    if set(ours) != set(theirs) or not ours:
        raise SystemExit(f"cm2 has {len(ours)} stays, the files have {len(theirs)}")
    for stay, grid in theirs.items():
        np.testing.assert_allclose(ours[stay], grid, rtol=1e-6, err_msg=f"stay {stay}")
    cpu, wall = (
        {way: statistics.median(t[i] for t in rounds) for way, rounds in times.items()}
        for i in (0, 1)
    )
    report = {
        "rows": rows,
        "stays": len(ours),
        "equal cells": len(ours) * 24 * 76,
        "cpu seconds": cpu,
        "wall seconds": wall,
        "files over cm2": {"cpu": cpu["files"] / cpu["cm2"], "wall": wall["files"] / wall["cm2"]},
        "rounds": times,
        "load": os.getloadavg()[0],
        "cores": os.cpu_count(),
    }
    text = json.dumps(report, indent=2)
    if options.out:
        options.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
