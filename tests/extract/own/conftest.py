"""A small hospital of the user's own: a table of stays, and a way to extract files for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from cm2.cache.cohort import Cohort
from cm2.cache.view import ModalityView, view
from cm2.extract.config import ExtractConfig
from cm2.extract.runner import extract
from cm2.extract.summary import ExtractSummary

Extract = Callable[..., ExtractSummary]
SPLITS = ("train", "train", "val", "train", "test", "train")
View = Callable[[str], ModalityView]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Holds stays.csv: 12 stays of 6 patients with a split, a label and a clock."""
    rows = range(12)
    pl.DataFrame(
        {
            "stay_id": [100 + row for row in rows],
            "subject_id": [row // 2 for row in rows],
            "split": [
                ["train", "train", "val", "train", "test", "train"][row // 2] for row in rows
            ],
            "y_aki": [row % 2 if row else None for row in rows],
            "sex": ["F" if row % 3 else "M" for row in rows],
            "intime": [f"2150-01-{row + 1:02d} 06:00:00" for row in rows],
        }
    ).write_csv(tmp_path / "stays.csv")
    return tmp_path


@pytest.fixture
def run(folder: Path) -> Extract:
    """Extract `NAME=FILE` words of the folder into its cache."""

    def call(*modality: str, **options: object) -> ExtractSummary:
        words = []
        for word in modality:
            name, equals, file = word.partition("=")
            words.append(f"{name}={folder / file}" if equals else name)
        given = {"stays": folder / "stays.csv", "cache": folder / "cache", "modality": words}
        return extract(ExtractConfig.model_validate({**given, **options}))

    return call


@pytest.fixture
def look(folder: Path) -> View:
    """The arrays of a modality, row by row of the stays."""

    def call(name: str) -> ModalityView:
        return view(folder / "cache", Cohort.open(folder / "cache"), name)

    return call


def column(found: ModalityView, name: str) -> np.ndarray:
    """One named column, (N, L)."""
    return found.values[..., found.columns.index(name)]


def why_not(cache: Path, name: str) -> dict[int, str | None]:
    """Reason by stay."""
    table = Cohort.open(cache).links(name).table
    return dict(zip(table["stay_id"].to_pylist(), table["why_no"].to_pylist(), strict=True))
