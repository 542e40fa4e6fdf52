from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from cm2.extract.config import ExtractConfig
from cm2.extract.modalities.plausibility import plausibility
from cm2.extract.runner import extract
from cm2.extract.sources.catalogue import published


def test_rates_and_quantiles_are_those_of_the_measurements() -> None:
    cells = np.full((3, 4, 17), np.nan, dtype=np.float32)
    cells[0, :2, 8] = [80, 90]  # heart rate; the third stay has nothing and counts for nothing
    cells[1, 0, 7] = 100
    found = pl.DataFrame(
        {
            "stay_id": [1, 1, 1, 2],
            "hours": [0.1, 0.2, 3.0, 1.0],
            "variable": pl.Series([8, 8, 8, 7], dtype=pl.UInt8),
            "value": [70.0, 80.0, 90.0, 100.0],
        }
    )
    rows = {row["variable"]: row for row in plausibility(found, cells, published("corrected"))}
    rate = rows["Heart Rate"]
    assert (rate["measurements"], rate["stays"], rate["observed"]) == (3, 0.5, 0.25)
    assert (rate["p25"], rate["p50"], rate["p75"]) == (75, 80, 85)
    assert rows["pH"]["observed"] == 0
    assert rows["pH"]["p50"] is None


def test_the_reference_gives_no_quantiles_of_places_among_columns() -> None:
    cells = np.zeros((1, 1, 17), dtype=np.float32)
    found = pl.DataFrame(
        {
            "stay_id": [1],
            "hours": [1.0],
            "variable": pl.Series([3], dtype=pl.UInt8),
            "value": [7.0],
        }
    )
    row = plausibility(found, cells, published("reference"))[3]
    assert row["measurements"] == 1
    assert row["p50"] is None


@pytest.mark.parametrize(
    ("name", "low", "high"), [("mimiciii_demo", 80, 90), ("mimiciv_demo", 80, 92)]
)
def test_a_real_demo_is_plausible_and_the_table_is_kept_and_shown(
    name: str, low: float, high: float, shared: Path, tmp_path: Path
) -> None:
    config = ExtractConfig(data=shared / "data" / name, cache=tmp_path)
    first = extract(config)
    table: dict[Any, Any] = {row["variable"]: row for row in first.modalities[0].plausibility}
    assert low < table["Heart Rate"]["p50"] < high
    assert table["Heart Rate"]["observed"] > 0.7
    assert 36 < table["Temperature"]["p50"] < 38
    assert 95 < table["Oxygen saturation"]["p50"] <= 100
    assert "Mean blood pressure" in first.as_text()
    again = extract(config)
    assert list(again.modalities[0].plausibility) == list(first.modalities[0].plausibility)
    assert again.as_text().split("\nvariable  ")[1] == first.as_text().split("\nvariable  ")[1]
    stored = next((tmp_path / "stores" / "ehr").rglob("provenance.json")).read_text()
    assert '"plausibility"' in stored
