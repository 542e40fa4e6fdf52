"""Table ingest: this project against pandas and against inflating the file and nothing else.

    python -m benchmarks.extract_ingest [--rows 10000000] [--rounds 5] [--small] [--out result.json]

A synthetic CHARTEVENTS.csv.gz of MIMIC-III (a sixth of the rows is wanted) is read several ways,
each in a process of its own, in turn: `cm2`, which streams, assigns rows to stays, cleans,
deduplicates and sorts; `scan`, where polars alone splits the lines into the columns that cm2 needs
and keeps the wanted items; `pandas`, which reads the needed columns in blocks, keeps the wanted
items of the first 48 h and the last value of each hour; `inflate`, zlib alone; and `isal`, the
fastest inflation there is (left out, and said, where it is not installed).
pandas does less work than cm2, so its factor is a lower bound. Both must find the same stays, hours
and variables before any time counts. Peak memory is that of each process; ratios are of CPU
seconds beside those of the clock, since other jobs stretch the clock alone.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np

BLOCK = 500_000
ITEMS_WANTED = (211, 220045, 618, 646, 51, 8368, 52, 678, 3655, 198, 184, 454, 723, 807, 763, 189)
HEART_RATE = (211, 220045)
START = np.datetime64("2150-01-01T00:00:00")
HEADER = (
    "ROW_ID,SUBJECT_ID,HADM_ID,ICUSTAY_ID,ITEMID,CHARTTIME,STORETIME,CGID,VALUE,VALUENUM,VALUEUOM,"
    "WARNING,ERROR,RESULTSTATUS,STOPPED\n"
)


def write_tree(root: Path, rows: int, stays: int) -> None:
    """Write the tables of a MIMIC-III that has one stay of 72 h per patient."""
    root.mkdir(parents=True, exist_ok=True)
    ids = np.arange(stays)
    first = START + (ids * 7 % 3650).astype("timedelta64[D]")
    _table(
        root / "PATIENTS.csv",
        "SUBJECT_ID,GENDER,DOB,DOD",
        ([i, "F", "2090-01-01 00:00:00", ""] for i in ids),
    )
    _table(
        root / "ADMISSIONS.csv",
        "SUBJECT_ID,HADM_ID,ADMITTIME,DISCHTIME,DEATHTIME,ETHNICITY,HOSPITAL_EXPIRE_FLAG",
        (
            [i, i, _text(first[i]), _text(first[i] + np.timedelta64(96, "h")), "", "WHITE", 0]
            for i in ids
        ),
    )
    _table(
        root / "ICUSTAYS.csv",
        "SUBJECT_ID,HADM_ID,ICUSTAY_ID,FIRST_CAREUNIT,LAST_CAREUNIT,FIRST_WARDID,LAST_WARDID,"
        "INTIME,OUTTIME,LOS",
        (
            [
                i,
                i,
                i,
                "MICU",
                "MICU",
                1,
                1,
                _text(first[i]),
                _text(first[i] + np.timedelta64(72, "h")),
                3.0,
            ]
            for i in ids
        ),
    )
    _table(
        root / "LABEVENTS.csv",
        "SUBJECT_ID,HADM_ID,ITEMID,CHARTTIME,VALUE,VALUENUM,VALUEUOM",
        [[0, 0, 50931, _text(first[0] + np.timedelta64(2, "h")), "110", "110", "mg/dL"]],
    )
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    with (root / "CHARTEVENTS.csv.gz").open("wb") as file:
        file.write(packer.compress(HEADER.encode()))
        for start in range(0, rows, BLOCK):
            block = _chart(np.arange(start, min(start + BLOCK, rows)), rows, stays, first)
            file.write(packer.compress(block))
        file.write(packer.flush())


def _chart(row: np.ndarray, rows: int, stays: int, first: np.ndarray) -> bytes:
    """Rows in order of patients, as in the release; a sixth of the items is wanted."""
    import polars as pl

    generator = np.random.default_rng(int(row[0]))
    stay = row * stays // rows
    wanted = generator.random(len(row)) < 1 / 6
    item = np.where(
        wanted,
        np.array(ITEMS_WANTED)[generator.integers(0, len(ITEMS_WANTED), len(row))],
        900_000 + generator.integers(0, 200, len(row)),
    )
    seconds = generator.integers(0, 72 * 60, len(row)) * 60
    time_of = (first[stay] + seconds.astype("timedelta64[s]")).astype("M8[us]")
    value = generator.integers(40, 160, len(row))
    frame = pl.DataFrame(
        {"row": row, "s": stay, "h": stay, "i": stay, "item": item, "t": time_of, "store": time_of}
    ).with_columns(
        cg=pl.lit(17525),
        value=pl.Series(value),
        num=pl.Series(value),
        uom=pl.lit("units"),
        w=pl.lit(0),
        e=pl.lit(0),
        r=pl.lit(""),
        x=pl.lit("NotStopd"),
    )
    text = frame.write_csv(include_header=False, datetime_format="%Y-%m-%d %H:%M:%S")
    return text.encode()


def _table(path: Path, header: str, rows: object) -> None:
    with path.open("w", newline="") as file:
        file.write(header + "\n")
        csv.writer(file, lineterminator="\n").writerows(rows)  # type: ignore[arg-type]


def _text(when: np.datetime64) -> str:
    return str(np.datetime64(when, "s")).replace("T", " ")


def run_cm2(root: Path) -> set[tuple[int, int, int]]:
    """Measure as `cm2 extract --modality ehr` does, without the cache."""
    from cm2.extract.modalities import events
    from cm2.extract.selection import select
    from cm2.extract.sources import open_source
    from cm2.extract.sources.catalogue import published

    source = open_source(root)
    catalogue = published("corrected")
    found = events.measure(source, select(source)[0], catalogue)[0].found
    names = {item.itemid: item.variable for item in catalogue.items_of(["mimic3_carevue"])}
    compared = names[211]  # heart rate: a number that no rule changes
    rows = found.filter(found["variable"] == compared)
    hours = rows["hours"].floor().cast(int)
    return set(zip(rows["stay_id"].to_list(), hours.to_list(), [211] * rows.height, strict=True))


def run_pandas(root: Path) -> set[tuple[int, int, int]]:
    """Read blocks, keep the wanted items of the first 48 h, the last value of each hour."""
    import pandas as pd

    stays = pd.read_csv(root / "ICUSTAYS.csv", parse_dates=["INTIME"])
    intime = stays.set_index("ICUSTAY_ID")["INTIME"]
    kept = []
    blocks = pd.read_csv(
        root / "CHARTEVENTS.csv.gz",
        usecols=["ICUSTAY_ID", "ITEMID", "CHARTTIME", "VALUE"],
        dtype={"VALUE": str},
        chunksize=BLOCK,
    )
    for block in blocks:
        block = block[block["ITEMID"].isin(ITEMS_WANTED)]
        seconds = (
            pd.to_datetime(block["CHARTTIME"]) - block["ICUSTAY_ID"].map(intime)
        ).dt.total_seconds()
        block = block.assign(hour=(seconds // 3600), value=pd.to_numeric(block["VALUE"]))
        kept.append(block[(seconds >= 0) & (seconds <= 48 * 3600)])
    found = pd.concat(kept).groupby(["ICUSTAY_ID", "hour", "ITEMID"])["value"].last().reset_index()
    found = (
        found[found["ITEMID"].isin(HEART_RATE)]
        .assign(ITEMID=211)
        .drop_duplicates(["ICUSTAY_ID", "hour"])
    )
    return set(zip(found["ICUSTAY_ID"], found["hour"].astype(int), found["ITEMID"], strict=True))


def run_scan(root: Path) -> set[tuple[int, int, int]]:
    """Split the lines and keep the wanted items: what is left to cm2 is the difference."""
    import polars as pl

    table = root / "CHARTEVENTS.csv.gz"
    header = dict.fromkeys(HEADER.strip().split(","), pl.String)
    columns = ("HADM_ID", "ICUSTAY_ID", "ITEMID", "CHARTTIME", "VALUE", "VALUENUM", "ERROR")
    wanted = pl.col("ITEMID").cast(pl.Int64, strict=False).is_in(ITEMS_WANTED)
    pl.scan_csv(table, schema=header).select(columns).filter(wanted).collect(engine="streaming")
    return set()


def run_isal(root: Path) -> set[tuple[int, int, int]]:
    """Inflate the file with ISA-L and throw the bytes away."""
    from isal import igzip

    with igzip.open(root / "CHARTEVENTS.csv.gz", "rb") as file:
        while file.read(1 << 20):
            pass
    return set()


def run_inflate(root: Path) -> set[tuple[int, int, int]]:
    """Inflate the file and throw the bytes away."""
    unpacker = zlib.decompressobj(31)
    with (root / "CHARTEVENTS.csv.gz").open("rb") as file:
        while block := file.read(1 << 20):
            unpacker.decompress(block)
    return set()


WAYS = {
    "cm2": run_cm2,
    "scan": run_scan,
    "pandas": run_pandas,
    "inflate": run_inflate,
    "isal": run_isal,
}


def once(way: str, root: Path) -> None:
    """Run one way in this process and print what it took."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = WAYS[way](root)
    print(
        json.dumps(
            {
                "wall": time.perf_counter() - wall,
                "cpu": time.process_time() - cpu,
                "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                "cells": len(found),
                "digest": hash(frozenset(found)),
            }
        )
    )


def in_process(way: str, root: Path) -> dict[str, float]:
    """Run one way in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.extract_ingest", "--way", way, "--tree", str(root)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))


def main() -> None:
    """Write the tree, run every way in turn, compare, and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--small", action="store_true", help="seconds; checks agreement only")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--tree", type=Path, help="a tree made by an earlier call")
    parser.add_argument("--way", choices=sorted(WAYS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        once(options.way, options.tree)
        return
    rows, rounds = (200_000, 1) if options.small else (options.rows, options.rounds)
    with tempfile.TemporaryDirectory() as scratch:
        root = options.tree or Path(scratch) / "tree"
        if options.tree is None:
            write_tree(root, rows, max(10, rows // 1300))
        ways = [way for way in WAYS if way != "isal" or find_spec("isal")]
        if "isal" not in ways:
            print("isal is not installed: no ratio to it", file=sys.stderr)
        results: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
        for _ in range(rounds):
            for way in ways:
                results[way].append(in_process(way, root))
    ours, theirs = results["cm2"][0], results["pandas"][0]
    if (ours["cells"], ours["digest"]) != (theirs["cells"], theirs["digest"]) or not ours["cells"]:
        raise SystemExit(f"cm2 and pandas disagree: {ours} against {theirs}")
    summary = {
        way: {
            key: {"median": statistics.median(values), "min": min(values), "max": max(values)}
            for key in ("wall", "cpu", "peak_mb")
            for values in [[result[key] for result in found]]
        }
        for way, found in results.items()
    }
    ratios = {
        clock: {
            way: round(summary["cm2"][clock]["median"] / summary[way][clock]["median"], 2)
            for way in summary
            if way != "cm2"
        }
        for clock in ("cpu", "wall")
    }
    report = {
        "rows": rows,
        "rounds": rounds,
        "ways": summary,
        "cm2_takes_times": ratios,
        "load": os.getloadavg()[0],
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }
    text = json.dumps(report, indent=2)
    if options.out:
        options.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
