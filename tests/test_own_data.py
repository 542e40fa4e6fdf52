"""The user's own data from files to predictions, as docs/own-data.md says."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from cm2.cache.cohort import Cohort
from cm2.extract.config import ExtractConfig
from cm2.extract.runner import extract
from cm2.fuse.config import FuseConfig
from cm2.fuse.inference import predict
from cm2.fuse.training.trainer import fuse

PAGE = Path(__file__).resolve().parents[1] / "docs" / "own-data.md"
SMALL = {"hidden": 16, "fusion_hidden": 16, "copula_dim": 4, "K": 2, "epochs": 3, "batch_size": 128}
VITALS = ("HR", "MAP", "NIMAP", "Temp", "GCS", "Urine")
LABS = ("BUN", "Creatinine", "Lactate", "WBC", "Platelets", "Bilirubin")


def made_files(folder: Path) -> None:
    """The three files of the page, with the header that it shows for each."""
    random = np.random.default_rng(0)
    header = dict(re.findall(r"```csv (\S+)\n(.*)\n```", PAGE.read_text("utf-8")))
    sick = random.random(60) < 0.4
    stays = [f"{i},{i // 2},{int(sick[i])},{'FM'[i % 2]}" for i in range(60)]
    labs = [
        f"{i},{hour},{name},{sick[i] + random.normal():.3f}"
        for i in range(60)
        for hour in range(1, 40, 6)
        for name in ("lactate", "creatinine")
    ]
    films = []
    for i in range(0, 60, 2):
        grey = random.integers(0, 120, (40, 40)) + 100 * sick[i]
        Image.fromarray(grey.astype(np.uint8)).save(folder / f"{i}.png")
        films.append(f"{i},{i}.png")
    tables = {"stays.csv": stays, "labs.csv": labs, "films.csv": films}
    assert set(header) == set(tables)
    for name, lines in tables.items():
        (folder / name).write_text("\n".join([header[name], *lines]) + "\n")


@pytest.mark.slow
def test_the_commands_of_the_page_run_as_they_stand(tmp_path: Path) -> None:
    made_files(tmp_path)
    (block,) = re.findall(r"```console\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    for line in block.strip().splitlines():
        program, *arguments = shlex.split(line)
        assert program == "cm2"
        start = "from cm2.cli import main; main()"
        subprocess.run([sys.executable, "-c", start, *arguments], cwd=tmp_path, check=True)
    predictions = pl.read_csv(tmp_path / "predictions.csv")
    assert len(predictions) == 60
    assert predictions["p"].is_between(0, 1).all()
    assert set(predictions["pattern"]) == {"film+labs", "labs"}


def test_the_variables_of_the_page_are_read_from_the_real_demo(
    shared: Path, tmp_path: Path
) -> None:
    blocks = dict(re.findall(r"```csv (my_\w+\.csv)\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL))
    for name, text in blocks.items():
        (tmp_path / name).write_text(text)
    config = ExtractConfig(
        data=shared / "data" / "mimiciii_demo",
        cache=tmp_path / "c",
        items=tmp_path / "my_items.csv",
        variables=tmp_path / "my_variables.csv",
    )
    found = {row["variable"]: row for row in extract(config).modalities[0].plausibility}
    assert found["Lactate"]["measurements"] > 100
    assert found["Pupil"]["measurements"] > 100
    assert (found["Pupil"]["p1"], found["Pupil"]["p99"]) == (0, 2)


def half(shared: Path, folder: Path, name: str, odd: int, *, labels: bool = True) -> Path:
    """A hospital of the stays with even or odd numbers, straight from the long table."""
    source = shared / "data" / "physionet2012"
    stays = pl.read_csv(source / "outcomes-a.csv").filter(pl.col("RecordID") % 2 == odd)
    columns = {"stay_id": pl.col("RecordID"), "y_death": pl.col("In-hospital_death")}
    stays.select(**columns).select(pl.all() if labels else "stay_id").write_csv(
        folder / f"{name}.csv"
    )
    tables = "".join(
        f'[modality.{modality}]\nfile = "{source / "set-a.parquet"}"\nid = "record_id"\n'
        f'variable = "parameter"\nkeep = {list(keep)}\n'
        for modality, keep in (("vitals", VITALS), ("labs", LABS))
    )
    (folder / "own.toml").write_text(tables)
    config = ExtractConfig.model_validate(
        {
            "stays": folder / f"{name}.csv",
            "config": folder / "own.toml",
            "modality": ("vitals", "labs"),
            "subject_is_stay": True,
            "dataset_name": name,
            "cache": folder / name,
        }
    )
    extract(config)
    return folder / name


def test_a_run_of_one_hospital_predicts_another_with_or_without_labels(
    shared: Path, tmp_path: Path
) -> None:
    here, there = half(shared, tmp_path, "here", 0), half(shared, tmp_path, "there", 1)
    unlabelled = half(shared, tmp_path, "unlabelled", 1, labels=False)
    run = fuse(FuseConfig.of({"task": "death", **SMALL}), here, tmp_path / "run")
    assert Cohort.open(unlabelled).tasks == ()
    found = predict(run, there).to_pydict()
    blind = predict(run, unlabelled).to_pydict()
    assert len(found["p"]) > 1900
    assert found["stay_id"] == blind["stay_id"]
    assert found["p"] == blind["p"]
    assert set(blind["y"]) == {None}
    assert set(found["pattern"]) == {"labs+vitals", "vitals", "labs"}


@pytest.mark.slow
def test_films_notes_and_an_outcome_with_gaps_go_the_whole_way(
    shared: Path, tmp_path: Path
) -> None:
    source = shared / "data" / "covid_cxr"
    table = pl.read_csv(source / "metadata.csv", infer_schema_length=None).with_row_index("stay_id")
    table = table.filter(pl.col("survival").is_not_null() | (pl.col("stay_id") % 4 == 0))
    outcome = pl.col("survival").replace_strict({"Y": 0, "N": 1}, default=None)
    table.select("stay_id", subject_id="patientid", y_death=outcome).write_csv(tmp_path / "s.csv")
    table.select("stay_id", path="file").write_csv(tmp_path / "films.csv")
    noted = table.filter(pl.col("clinical_notes").is_not_null())
    noted.select("stay_id", text="clinical_notes").write_csv(tmp_path / "notes.csv")
    (tmp_path / "own.toml").write_text(
        f'[modality.film]\nfile = "films.csv"\nfolder = "{source / "images"}"\n'
        '[modality.note]\nfile = "notes.csv"\n'
    )
    config = ExtractConfig.model_validate(
        {
            "stays": tmp_path / "s.csv",
            "config": tmp_path / "own.toml",
            "modality": ("film", "note"),
            "encoder": ("film=resnet18", "note=tinybert"),
            "weights": ("film=random:0", "note=random:0"),
            "cache": tmp_path / "cache",
        }
    )
    film, note = extract(config).modalities
    assert (film.rejected, note.rejected) == (0, 0)
    assert film.stays == table.height
    assert note.stays == noted.height
    run = fuse(FuseConfig.of({"task": "death", **SMALL}), tmp_path / "cache", tmp_path / "run")
    patterns = predict(run, tmp_path / "cache")["pattern"].to_pylist()
    assert patterns.count("note+film") == noted.height
