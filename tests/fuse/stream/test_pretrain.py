"""Encoders that runs of their own train first, and runs that start from them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from cm2.cache.atomic import sha256_file
from cm2.cache.cohort import Cohort, write_labels
from cm2.errors import ConfigError
from cm2.fuse.group import RunGroup
from cm2.fuse.inference import load_model
from cm2.fuse.rundir import BEST, RunDir
from cm2.fuse.training import pretrain
from cm2.fuse.training.groups import fuse_group
from cm2.fuse.training.trainer import fuse

TASK = "findings"
STILL = {"lr": 1e-12, "lr_trunk": 1e-12, "weight_decay": 0.0, "epochs": 1}


@pytest.fixture(scope="module")
def cache(pixel_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache with a second task of two labels."""
    import shutil

    copy = tmp_path_factory.mktemp("pretrain") / "cache"
    shutil.copytree(pixel_cache, copy)
    stays = Cohort.open(copy).stays
    label = np.asarray([value or 0 for value in stays["y_ihm"].to_pylist()], np.int8)
    table = pa.table(
        {
            "stay_id": stays["stay_id"].cast(pa.string()),
            f"y_{TASK}__effusion": label,
            f"y_{TASK}__edema": 1 - label,
        }
    )
    write_labels(copy, "default", TASK, table)
    return copy


def command(*words: str) -> str:
    program = "from cm2.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def started(cache: Path, stream: ModuleType) -> Any:
    """A configuration that starts from a film's network and an LSTM, and its starts stand still."""
    wanted = {"cxr": TASK, "ehr": ""}
    config = stream.options(model="concat", lr=1e-2, epochs=1)
    starts = pretrain.pretrained(config, cache, wanted)
    still = starts.model_copy(update=STILL)
    return starts, fuse(still, cache)


def test_every_modality_is_trained_alone_on_its_task_before(cache: Path, started: Any) -> None:
    config, _ = started
    runs = {word.split("=")[0]: RunDir.open(Path(word.split("=")[1])) for word in config.init}
    film, series = runs["cxr"].config, runs["ehr"].config
    assert (film.model, film.mode, film.task, film.trunk) == (
        *("single", "stream", TASK),
        ("cxr=resnet8",),
    )
    assert (series.model, series.mode, series.task) == ("single", "cached", "ihm")
    assert [len(run.config.modalities) for run in runs.values()] == [1, 1]
    assert runs["cxr"].metrics("val") is not None
    assert (film.hidden, film.seed, film.lr) == (config.hidden, config.seed, config.lr)


def test_the_run_starts_from_the_weights_and_its_identity_holds_their_hash(
    cache: Path, started: Any
) -> None:
    config, run = started
    runs = dict(word.split("=") for word in config.init)
    words = dict(word.split("=") for word in run.config.init)
    assert words == {
        n: f"sha256:{sha256_file(Path(r) / 'best.safetensors')}" for n, r in runs.items()
    }
    model, _, _ = load_model(run)
    for name, attribute in (("cxr", "trunks.0"), ("ehr", "encoders.parts.0")):
        other, _, _ = load_model(RunDir.open(Path(runs[name])))
        ours = dict(model.get_submodule(attribute).named_parameters())
        theirs = dict(other.get_submodule(attribute).named_parameters())
        assert ours.keys() == theirs.keys()
        for part, tensor in ours.items():
            torch.testing.assert_close(tensor, theirs[part], rtol=0, atol=1e-7)
    assert "task findings" in run.info["spaces"]["cxr"]["pretrained_on"]


def test_finished_ones_are_taken_as_they_are(cache: Path, started: Any, stream: ModuleType) -> None:
    config, _ = started
    path = Path(dict(word.split("=") for word in config.init)["cxr"])
    before = (path / "best.safetensors").stat().st_mtime_ns, (path / "run.json").read_text()
    again = pretrain.pretrained(
        stream.options(model="concat", lr=1e-2, epochs=1), cache, {"cxr": TASK, "ehr": ""}
    )
    assert again == config
    assert before == (
        (path / "best.safetensors").stat().st_mtime_ns,
        (path / "run.json").read_text(),
    )


@pytest.mark.slow
def test_every_seed_of_a_group_has_starts_of_its_own(cache: Path, stream: ModuleType) -> None:
    config = stream.options(model="concat", epochs=1)
    group = fuse_group(config, cache, (0, 1), pretrain={"cxr": ""})
    starts = [dict(w.split("=") for w in run.config.init)["cxr"] for run in group.members]
    assert isinstance(group, RunGroup)
    assert len(set(starts)) == 2


@pytest.mark.slow
def test_the_command_counts_pretraining_beforehand_and_does_it(cache: Path, tmp_path: Path) -> None:
    words = f"fuse --cache {cache} --mode stream --model concat --trunk cxr=resnet8 --hidden 8"
    words += f" --epochs 3 --batch-size 24 --pretrain cxr:{TASK} --out {tmp_path / 'run'}"
    told = json.loads(command(*words.split(), "--dry-run"))
    first = told["pretrain"]["cxr"]
    assert (first["status"], told["status"]) == ("new", "new")
    assert first["config"]["task"] == TASK
    parts = first["hours_at_most"] + told["hours_at_most"]
    assert told["hours_at_most_with_pretraining"] == pytest.approx(parts, abs=2e-3)
    assert not (tmp_path / "run").exists()
    command(*words.split())
    assert RunDir.open(Path(first["run"])).finished
    told = json.loads(command(*words.split(), "--dry-run"))
    assert (told["status"], told["pretrain"]["cxr"]["status"]) == ("finished", "finished")


@pytest.mark.parametrize(
    ("options", "wanted", "match"),
    [
        ({}, {"report": ""}, "modality to pretrain"),
        ({"model": "drfuse"}, {"ehr": ""}, "has no encoder of ehr"),
        ({"series_encoder": "transformer"}, {"ehr": ""}, "no encoder of it is trained"),
        ({"mode": "cached", "trunk": (), "lr_trunk": 1e-4}, {"cxr": ""}, "mode = 'stream'"),
        ({"init": ("ehr=random:3",)}, {}, "starts from a run"),
        ({"model": "single", "modalities": ("cxr",), "init": ("ehr=x",)}, {}, "no modality"),
    ],
)
def test_what_cannot_be_trained_before_is_refused_before(
    cache: Path, stream: ModuleType, options: dict[str, Any], wanted: dict[str, str], match: str
) -> None:
    config = stream.options(**{"model": "concat", **options})
    with pytest.raises(ConfigError, match=match):
        fuse(pretrain.pretrained(config, cache, wanted), cache)


@pytest.mark.parametrize("word", ["", "cxr,cxr", "cxr:", ":ihm"])
def test_words_that_name_no_modality_are_refused(word: str) -> None:
    with pytest.raises(ConfigError, match="once each"):
        pretrain.parse([word])
    assert pretrain.parse(["cxr:findings", "ehr,report"]) == {
        "cxr": "findings",
        "ehr": "",
        "report": "",
    }


def test_all_but_the_trunks_starts_from_another_run(cache: Path, stream: ModuleType) -> None:
    first = fuse(stream.options(model="concat", epochs=1), cache)
    second = fuse(stream.options(model="concat", init=(f"fusion={first.path}",), **STILL), cache)
    assert second.config.init[-1] == f"fusion=sha256:{sha256_file(first.path / BEST)}"
    found, given = (load_model(run)[0].state_dict() for run in (second, first))
    behind = [n for n in given if not n.startswith("trunks.") and "normaliser" not in n]
    assert behind
    for name in behind:
        torch.testing.assert_close(found[name], given[name], rtol=0, atol=1e-6)
    wider = stream.options(model="concat", hidden=16, init=(f"fusion={first.path}",))
    with pytest.raises(ConfigError, match=r"model differs from this run's in .* and more"):
        fuse(wider, cache)
