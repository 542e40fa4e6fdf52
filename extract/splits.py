"""Splits by patient: a stable hash with a recorded seed, or the user's lists."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from ..cache.fingerprint import fraction
from ..errors import DataError, LeakageError
from .sources.tables import Table, open_table

TRAIN_BELOW = 0.7
VAL_BELOW = 0.8
_SPELLINGS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}

# md5 of the lists that circulate, and the data set whose subjects they hold.
PUBLISHED_LISTS = {
    "22a47ded7b5a171585539b807427400e": ("mimic3", "mimic3-benchmarks test list"),
    "772812d6dd993eb1eced2ffc1fdf4f39": ("mimic3", "mimic3-benchmarks validation list"),
    "eb350cfd8f72a0b72b7dc45bec29ec44": ("mimic4", "MedFuse test list"),
    "e1120a9b196c0be7cad9477015ff67ba": ("mimic4", "MedFuse validation list"),
}


def hashed(dataset: str, subject_id: object, seed: int) -> str:
    """Return the split of a patient; depends on nothing else.

    Args:
        dataset: Name of the data set.
        subject_id: The patient.
        seed: Recorded seed.
    """
    place = fraction(dataset, subject_id, seed)
    return "train" if place < TRAIN_BELOW else "val" if place < VAL_BELOW else "test"


def assign(
    dataset: str, subjects: Iterable[Any], path: Path | None, seed: int
) -> tuple[dict[Any, str], dict[str, object]]:
    """Give every patient a split.

    Args:
        dataset: Name of the data set.
        subjects: Patients of the cohort, numbers or text; with a path numbers.
        path: The user's table or folder of lists; None for the hash.
        seed: Seed of the hash.

    Returns:
        Split by patient, and how it was made, for the record.

    Raises:
        DataError: The lists are unreadable, of another data set, or lack patients.
        LeakageError: A patient is in two splits.
    """
    wanted = sorted(set(subjects))
    if path is None:
        rule: dict[str, object] = {"rule": "sha256", "seed": seed, "fractions": "0.7/0.1/0.2"}
        return {subject: hashed(dataset, subject, seed) for subject in wanted}, rule
    if not path.exists():
        raise DataError(f"{path}: expected a table or a folder of lists for --splits, found none.")
    listed, names = _from_folder(path, dataset) if path.is_dir() else _from_table(path)
    missing = [subject for subject in wanted if subject not in listed]
    if missing:
        raise DataError(
            f"{path}: {len(missing)} of the cohort's {len(wanted)} patients are in no list (first "
            f"subject_id {missing[0]}). The lists belong to another release or data set; give a "
            "complete table with the columns subject_id and split, or leave out --splits."
        )
    content = hashlib.sha256(
        "".join(f"{subject}:{listed[subject]}\n" for subject in wanted).encode()
    ).hexdigest()
    return (
        {subject: listed[subject] for subject in wanted},
        {"rule": "lists", "lists": names, "sha256": content},
    )


def _from_table(path: Path) -> tuple[Mapping[int, str], list[str]]:
    table = _open(path)
    frame = table.read({"subject_id": "id", "split": "text"}).drop_nulls()
    unknown = sorted(set(frame["split"].str.to_lowercase()) - set(_SPELLINGS))
    if unknown:
        raise DataError(
            f"{path}: expected train, val or test in the column split, found {unknown[0]!r}."
        )
    listed: dict[int, str] = {}
    for subject, word in frame.iter_rows():
        _put(listed, subject, _SPELLINGS[word.lower()], path)
    return listed, ["subject_id, split"]


def _from_folder(folder: Path, dataset: str) -> tuple[Mapping[int, str], list[str]]:
    """Read a test list and a validation list; who is 0 in every list that names him trains."""
    names: list[str] = []
    ones: dict[str, set[int]] = {}
    named: set[int] = set()
    for split in ("test", "val"):
        files = sorted(
            file
            for file in folder.iterdir()
            if file.name.lower().startswith(f"{split}set") and file.suffix.lower() == ".csv"
        )
        if len(files) != 1:
            raise DataError(
                f"{folder}: expected exactly one file {split}set*.csv, found {len(files)}."
            )
        data = files[0].read_bytes()
        home, title = PUBLISHED_LISTS.get(
            hashlib.md5(data, usedforsecurity=False).hexdigest(), (None, "your list")
        )
        if home is not None and home != dataset:
            raise DataError(
                f"{files[0]}: this is the {title}, whose ids mean nothing in {dataset}: the split "
                "would be empty. Use the lists of this data set, or leave out --splits."
            )
        names.append(title)
        flags = _flags(files[0], data)
        named |= set(flags)
        ones[split] = {subject for subject, flag in flags.items() if flag}
    both = sorted(ones["test"] & ones["val"])
    if both:
        raise LeakageError(
            f"{folder}: {len(both)} patients are in the test and in the validation list, first "
            f"subject_id {both[0]}. Each patient belongs to one split."
        )
    return {
        subject: "test" if subject in ones["test"] else "val" if subject in ones["val"] else "train"
        for subject in named
    }, names


def _flags(path: Path, data: bytes) -> dict[int, bool]:
    flags: dict[int, bool] = {}
    for number, line in enumerate(data.decode("utf-8-sig").splitlines(), start=1):
        if not line.strip():
            continue
        subject, _, flag = (part.strip() for part in line.partition(","))
        if not subject.isdigit() or flag not in ("0", "1"):
            raise DataError(f"{path}, line {number}: expected subject_id,0 or subject_id,1.")
        if flags.setdefault(int(subject), flag == "1") != (flag == "1"):
            raise LeakageError(f"{path}: subject_id {subject} is listed with 0 and with 1.")
    return flags


def _put(listed: dict[int, str], subject: int, split: str, path: Path) -> None:
    if listed.setdefault(subject, split) != split:
        raise LeakageError(
            f"{path}: subject_id {subject} is in {listed[subject]} and in {split}. Each patient "
            "belongs to one split."
        )


def _open(path: Path) -> Table:
    stem = path.name.lower().removesuffix(".gz").removesuffix(".csv")
    if pl.Series([path.name.lower()]).str.contains(r"\.csv(\.gz)?$").item():
        return open_table(path.parent, stem)
    raise DataError(f"{path}: expected a .csv or .csv.gz table with subject_id and split.")


__all__ = ["PUBLISHED_LISTS", "assign", "hashed"]
