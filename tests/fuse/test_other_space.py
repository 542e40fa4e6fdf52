"""A second hospital whose columns differ is told what to do there, and that works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cm2.errors import DataError
from cm2.extract.config import ExtractConfig
from cm2.extract.runner import extract
from cm2.fuse.config import FuseConfig
from cm2.fuse.inference import predict
from cm2.fuse.rundir import RunDir
from cm2.fuse.training.trainer import fuse

SMALL = {"hidden": 8, "fusion_hidden": 8, "copula_dim": 4, "K": 2, "epochs": 1}


def hospital(folder: Path, file: str, rows: list[str], **options: object) -> Path:
    """Extract a file of 40 stays, whose rows repeat, into a cache of its own."""
    folder.mkdir(exist_ok=True)
    header, *body = rows
    stays = [f"{i},{i},{i % 2}" for i in range(40)]
    lines = [f"{i},{body[i % len(body)]}" for i in range(40)]
    (folder / "stays.csv").write_text("\n".join(["stay_id,subject_id,y_aki", *stays]) + "\n")
    (folder / file).write_text("\n".join([f"stay_id,{header}", *lines]) + "\n")
    given = {"stays": folder / "stays.csv", "cache": folder / "cache", "dataset_name": folder.name}
    given |= {"modality": f"lab={folder / file}", **options}
    extract(ExtractConfig.model_validate(given))
    return folder / "cache"


def trained(cache: Path, folder: Path) -> RunDir:
    return fuse(FuseConfig.of({"task": "aki", **SMALL}), cache, folder / "run")


def test_other_categories_are_told_with_the_levels_that_mend_them(tmp_path: Path) -> None:
    run = trained(hospital(tmp_path / "a", "w.csv", ["age,ward", "1,X", "2,Y", "3,Z"]), tmp_path)
    rows = ["age,ward", "1,X", "2,Y", "3,Other"]
    second = hospital(tmp_path / "b", "w.csv", rows)
    with pytest.raises(DataError, match=r"categories differ.*\[modality\.lab\]") as caught:
        predict(run, second)
    (levels,) = re.findall(r"levels = \{.*?\}", str(caught.value))
    toml = tmp_path / "b" / "own.toml"
    toml.write_text(f'[modality.lab]\nfile = "w.csv"\n{levels}\n')
    hospital(tmp_path / "b", "w.csv", rows, config=toml, modality="lab")
    assert predict(run, second).num_rows == 40


def test_other_variables_are_told_by_name(tmp_path: Path) -> None:
    header = "hours,variable,value"
    run = trained(hospital(tmp_path / "a", "e.csv", [header, "1,bun,1", "1,hr,2"]), tmp_path)
    second = hospital(tmp_path / "b", "e.csv", [header, "1,map,1", "1,hr,2"])
    told = r"Only the run has the columns 'bun', .*only the cache 'map', .*`keep`"
    with pytest.raises(DataError, match=told):
        predict(run, second)


def test_other_options_are_told_with_both_values(tmp_path: Path) -> None:
    rows = ["hours,variable,value", "1,bun,1"]
    run = trained(hospital(tmp_path / "a", "e.csv", rows, step_hours=4), tmp_path)
    second = hospital(tmp_path / "b", "e.csv", rows, step_hours=2)
    with pytest.raises(DataError, match=r"other options \(step_hours 2\.0 instead of 4\.0\)"):
        predict(run, second)
