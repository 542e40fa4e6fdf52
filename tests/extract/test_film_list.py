"""The list of films to download: told without any film, and exactly what is read afterwards."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from cm2.cache.cohort import Cohort
from cm2.cache.store import Store
from cm2.errors import ConfigError
from cm2.extract.config import ExtractConfig
from cm2.extract.film_list import write_film_list
from cm2.extract.runner import extract
from cm2.extract.sources.demo import write_demo


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data")
    write_demo(out, 60, 4)
    return out


@pytest.fixture
def bare(whole: Path, tmp_path: Path) -> Path:
    """The source tree before a single film was downloaded."""
    skip = shutil.ignore_patterns("*.jpg")
    return Path(shutil.copytree(whole, tmp_path / "bare", ignore=skip))


def config(data: Path, cache: Path, **more: object) -> ExtractConfig:
    return ExtractConfig.model_validate({"data": data, "cache": cache, "modality": "cxr", **more})


@pytest.mark.parametrize("rule", ["last", "all"])
def test_the_films_of_the_list_are_all_that_an_extraction_needs(
    rule: str, whole: Path, bare: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    found = write_film_list(config(bare, cache, film=rule), tmp_path / "films.txt")
    assert not cache.exists()
    paths = (tmp_path / "films.txt").read_text().splitlines()
    assert found.missing == found.films == len(paths) == len(set(paths)) < found.listed
    for path in paths:
        (bare / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(whole / path, bare / path)
    summary = extract(config(bare, cache, film=rule)).modalities[0]
    assert (summary.items, summary.rejected, summary.stays) == (len(paths), 0, found.stays)
    assert write_film_list(config(bare, cache, film=rule), tmp_path / "again.txt").missing == 0


def test_as_a_table_it_names_the_films(bare: Path, tmp_path: Path) -> None:
    file = tmp_path / "sub/films.csv"
    found = write_film_list(config(bare, tmp_path / "c"), file)
    table = pl.read_csv(file)
    assert table.columns == ["path", "dicom_id", "subject_id", "study_id"]
    assert table.height == found.films
    for path, dicom, subject, study in table.iter_rows():
        assert path == f"files/p{str(subject)[:2]}/p{subject}/s{study}/{dicom}.jpg"


def test_the_command_writes_it_and_stops(bare: Path, tmp_path: Path) -> None:
    options = ["--data", str(bare), "--cache", str(tmp_path / "c"), "--film-list"]
    done = subprocess.run(
        [sys.executable, "-c", "from cm2.cli import main; main()", "extract", *options, "L.txt"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    count = len((tmp_path / "L.txt").read_text().splitlines())
    assert done.stdout.startswith(f"{count} of ")
    assert not (tmp_path / "c").exists()


def test_own_data_have_no_such_list(tmp_path: Path) -> None:
    own = ExtractConfig.model_validate({"stays": tmp_path / "stays.csv", "modality": "x=x.csv"})
    with pytest.raises(ConfigError, match="MIMIC-IV"):
        write_film_list(own, tmp_path / "films.txt")


def test_all_films_of_a_stay_are_linked_in_time_order_and_stand_side_by_side(
    whole: Path, tmp_path: Path
) -> None:
    from cm2.cache.cohort import view

    cache = tmp_path / "cache"
    last = extract(config(whole, cache)).modalities[0]
    before = {p.name for p in Store.open(cache, "cxr").path.glob("shard-*.h5")}
    every = extract(config(whole, cache, film="all")).modalities[0]
    assert every.items > last.items == last.encoded
    assert every.encoded == every.items - last.items  # what was stored is used
    assert before < {p.name for p in Store.open(cache, "cxr").path.glob("shard-*.h5")}
    assert every.stays == last.stays
    cohort, store = Cohort.open(cache), Store.open(cache, "cxr")
    hours = dict(
        zip(
            store.items["item_id"].to_pylist(),
            store.items["hours_from_intime"].to_pylist(),
            strict=True,
        )
    )
    seen = view(cache, cohort, "cxr")
    most = 0
    for row, items in enumerate(cohort.links("cxr").table["items"].to_pylist()):
        assert [hours[item] for item in items] == sorted(hours[item] for item in items)
        assert seen.mask[row].sum() == len(items)
        if items:
            expected = store.read(items)["values"]
            assert (seen.values[row, : len(items)] == expected).all()
        most = max(most, len(items))
    assert most > 1
    assert cohort.links("cxr").rules["film"] == "all"
