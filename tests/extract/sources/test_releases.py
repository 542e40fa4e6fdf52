from __future__ import annotations

import gzip
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

from cm2.errors import DataError
from cm2.extract.cohort import build
from cm2.extract.config import ExtractConfig
from cm2.extract.modalities import events
from cm2.extract.selection import select
from cm2.extract.sources import open_source, releases
from cm2.extract.sources.catalogue import published
from cm2.extract.sources.releases import RELEASES, Release, check, drift, recognise


@pytest.mark.parametrize("dataset", ["mimic3", "mimic4"])
def test_every_release_is_told_by_its_own_counts(dataset: str) -> None:
    for release in RELEASES[dataset]:
        assert recognise(dataset, release.rows) == release
        assert drift(release, release.rows) == []


def test_a_release_is_told_although_one_small_table_was_cut_and_no_subset_is_taken_for_one() -> (
    None
):
    rows = dict(RELEASES["mimic4"][3].rows) | {"icustays": 60_000}
    found = recognise("mimic4", rows)
    assert found is not None
    assert found.name == "2.2"
    assert drift(found, rows) == ["icustays has 60,000 rows, 73,181 in the release (-18.0%)"]
    assert recognise("mimic3", {"icustays": 200, "admissions": 150, "patients": 100}) is None


def test_half_a_percent_is_the_border() -> None:
    release = Release("x", {"chartevents": 1000})
    for rows, refused in ((995, False), (1005, False), (994, True), (1006, True)):
        assert bool(drift(release, {"chartevents": rows})) is refused


def test_a_demo_without_two_of_its_stays_is_refused_unless_allowed(
    shared: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "demo"
    shutil.copytree(shared / "data" / "mimiciii_demo", root)
    table = root / "ICUSTAYS.csv.gz"
    lines = gzip.decompress(table.read_bytes()).splitlines(keepends=True)
    table.write_bytes(gzip.compress(b"".join(lines[:-2])))
    config = ExtractConfig(data=root, cache=tmp_path / "cache")
    with pytest.raises(DataError, match="icustays has 134 rows, 136 in the release"):
        build(open_source(root), config)
    with caplog.at_level(logging.WARNING):
        _, info = build(open_source(root), config.model_copy(update={"allow_count_drift": True}))
    assert info["release"] == "1.4 demo"
    assert info["rows"]["icustays"] == 134
    assert "icustays has 134 rows" in caplog.text


def test_a_cut_chart_table_is_refused_every_time_it_is_met(
    mimic3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {"icustays": 4, "admissions": 4, "patients": 3}
    release = Release("tiny", {**small, "chartevents": 10_000})
    monkeypatch.setitem(releases.RELEASES, "mimic3", (release,))
    root = mimic3.write(tmp_path / "root")
    config = ExtractConfig(data=root, cache=tmp_path / "cache")
    for _ in range(2):  # the second time its measurements come from the cache
        with pytest.raises(DataError, match="chartevents has 3 rows, 10,000 in the release"):
            build(open_source(root), config)


@pytest.mark.parametrize("shuffle", [None, 5])
def test_rows_are_counted_whatever_is_wanted_of_them(
    mimic3: Any, charted: Any, tmp_path: Path, shuffle: int | None
) -> None:
    mimic3.tables["chartevents"] += [charted(1, 1, "5") for _ in range(1000)]
    for row in mimic3.tables["chartevents"]:
        row.pop("stay_id", None)
    source = open_source(mimic3.write(tmp_path, shuffle=shuffle))
    measured = events.measure(source, select(source)[0], published("corrected"))[0]
    assert measured.rows == {"chartevents": 1003, "labevents": 1}
    assert measured.found.height == 4


def test_an_unknown_release_is_taken_as_it_is() -> None:
    check("mimic3", None, {"icustays": 5}, allow=False)
