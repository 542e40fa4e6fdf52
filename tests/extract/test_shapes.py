"""One source in every shape it may come in: the same bytes in the cache."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cm2.extract.config import ExtractConfig
from cm2.extract.runner import extract
from cm2.extract.sources.demo import write_demo

Rows = list[list[str]]
TABLES = ("patients", "admissions", "icustays", "chartevents", "labevents")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tree")
    write_demo(out, 60, 4)
    return out


def made(root: Path, cache: Path, modality: str) -> dict[str, bytes]:
    """Everything in a cache but provenance: shards, items, links, stays, measurements' values."""
    extract(ExtractConfig(data=root, cache=cache, modality=(modality,)))
    parts = ("stores", "cohorts/default/links", "cohorts/default/stays.parquet")
    files = [f for part in parts for f in sorted([*cache.glob(part), *cache.glob(f"{part}/**/*")])]
    return {
        file.relative_to(cache).as_posix(): content(file)
        for file in files
        if file.is_file() and file.name != "provenance.json"
    }


def content(file: Path) -> bytes:
    """Bytes of a file; of links without the hash of the cohort, which names the release."""
    if file.parent.name != "links" or file.suffix != ".json":
        return file.read_bytes()
    links = json.loads(file.read_bytes())
    return json.dumps({k: v for k, v in links.items() if k not in ("cohort", "sha256")}).encode()


def read(path: Path) -> Rows:
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def write(path: Path, rows: Rows, *, newline: str = "\n") -> None:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=newline).writerows(rows)
    data = text.getvalue().encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data, mtime=0) if path.name.endswith("gz") else data)


def reshaped(tree: Path, root: Path, change: Callable[[Path, Path, Rows], None]) -> Path:
    """Copy a tree; every table of MIMIC-IV goes through `change(root, its relative path, rows)`."""
    for path in sorted(tree.rglob("*")):
        name = path.relative_to(tree)
        if path.is_dir():
            continue
        if name.parts[0] in ("hosp", "icu") and name.name.partition(".")[0] in TABLES:
            change(root, name, read(path))
        else:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, root / name)
    return root


def plain(name: Path) -> Path:
    return name.with_name(name.name.removesuffix(".gz"))


def unpacked(root: Path, name: Path, rows: Rows) -> None:
    write(root / plain(name), rows)


def flat_upper_crlf(root: Path, name: Path, rows: Rows) -> None:
    header = [column.upper() for column in rows[0]]
    write(root / plain(name).name.upper(), [header, *rows[1:]], newline="\r\n")


def shuffled(root: Path, name: Path, rows: Rows) -> None:
    write(root / name, [rows[0], *random.Random(name.name).sample(rows[1:], len(rows) - 1)])


def in_parts(root: Path, name: Path, rows: Rows) -> None:
    stem = name.name.partition(".")[0]
    for part in range(3):
        ending = ("csv", "csv.gz", "csv")[part]
        mine = [rows[0], *rows[1 + part :: 3]]
        if part == 2:  # columns in another order
            mine = [row[::-1] for row in mine]
        write(root / name.parent / f"{stem}_{part}.{ending}", mine)


def release_1_0(root: Path, name: Path, rows: Rows) -> None:
    """Patients and admissions in core/, `ethnicity` for `race`."""
    header = ["ethnicity" if column == "race" else column for column in rows[0]]
    core = name.name.startswith(("patients", "admissions"))
    write(root / (Path("core") / name.name if core else name), [header, *rows[1:]])


def release_3(root: Path, name: Path, rows: Rows) -> None:
    """A further column in front, as `order_provider_id` and `caregiver_id` came."""
    write(root / name, [["further_id", *rows[0]], *(["7", *row] for row in rows[1:])])


@pytest.mark.parametrize(
    "change", [unpacked, flat_upper_crlf, shuffled, in_parts, release_1_0, release_3]
)
def test_the_shape_of_the_tables_changes_no_byte(
    change: Callable[[Path, Path, Rows], None], tree: Path, tmp_path: Path
) -> None:
    first = made(tree, tmp_path / "a", "ehr")
    again = made(reshaped(tree, tmp_path / "tree", change), tmp_path / "b", "ehr")
    assert first.keys() == again.keys()
    assert any(name.endswith(".h5") for name in first)
    assert [name for name in first if first[name] != again[name]] == []


def test_other_measurements_change_the_bytes(tree: Path, tmp_path: Path) -> None:
    def hotter(root: Path, name: Path, rows: Rows) -> None:
        if name.name.startswith("chartevents"):
            value = rows[0].index("value")
            rows[len(rows) // 2][value] = "77"
        write(root / name, rows)

    first = made(tree, tmp_path / "a", "ehr")
    assert first != made(reshaped(tree, tmp_path / "tree", hotter), tmp_path / "b", "ehr")


@pytest.mark.slow
def test_films_and_reports_are_the_same_beside_tables_of_any_shape(
    tree: Path, tmp_path: Path
) -> None:
    first = made(tree, tmp_path / "a", "all")
    again = made(reshaped(tree, tmp_path / "tree", flat_upper_crlf), tmp_path / "b", "all")
    assert {name.split("/")[1] for name in first if name.endswith(".h5")} == {
        "ehr",
        "cxr",
        "report",
        "static",
    }
    assert first == again
