"""`cm2 reproduce --stream`: the paper's lines with their encoders trained, told as such."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from cm2.cache.cohort import Cohort
from cm2.cache.layout import modality_folder
from cm2.cache.reader import stores_of
from cm2.errors import ConfigError
from cm2.fuse.config import FuseConfig
from cm2.fuse.data import load
from cm2.fuse.identity import identify
from cm2.fuse.reproduce.expand import Request
from cm2.fuse.reproduce.forecast import forecast
from cm2.fuse.reproduce.run import plan, reproduce
from cm2.fuse.reproduce.show import as_text
from cm2.fuse.reproduce.streamed import as_published, parse_trunks, streamed, trunks_of
from cm2.fuse.sweep.axis import parse

QUICK = {"epochs": 1, "hidden": 8, "fusion_hidden": 8, "copula_dim": 4, "K": 2}


@pytest.fixture(scope="module")
def asked(
    make_cache: Callable[..., Path], stream: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> Request:
    """A cache of MIMIC-IV's shape whose films lie beside their vectors, and what is asked of it."""
    folder = tmp_path_factory.mktemp("reproduce") / "cache"
    cache = stream.add_pixels(make_cache(folder, 72, ("ehr", "cxr"), dataset="mimic4"))
    return Request((cache,), tasks=("ihm",), methods=("daft",), options=QUICK, stream=True)


def test_lines_that_read_films_train_their_encoder_and_series_alone_stay_cached(
    asked: Request,
) -> None:
    rates = (parse("lr_trunk=1e-4,1e-3"), parse("lr=1e-3,1e-2"))
    (room,) = plan("table3", replace(asked, tune=rates)).rooms
    found = {entry.line.key: entry.tries for entry in room.entries}
    assert {key for key, tries in found.items() if tries[0].mode == "cached"} == {"alone:ehr"}
    assert {len(tries) for key, tries in found.items() if key != "alone:ehr"} == {4}
    assert len(found["alone:ehr"]) == 2  # it has no trunk with a rate
    assert {tries[0].trunk for tries in found.values()} == {("cxr=resnet34",), ()}


def test_the_networks_are_the_papers_unless_others_are_named() -> None:
    own = trunks_of({"report": "bert2x128"}, "vit")
    assert own == {"cxr": "vit_s_16", "report": "bert2x128", "note": "tinybert"}
    options = {"lr_trunk": 1e-3, "lr_text": 1e-5, "lr": 1e-2, "init": ["note=folder"]}
    assert streamed(options, ("ehr", "note"), own) == {
        "lr_text": 1e-5,
        "lr": 1e-2,
        "init": ("note=folder",),
        "mode": "stream",
        "trunk": ("note=tinybert",),
    }
    assert streamed(options, ("ehr", "cxr"), own) == {
        "lr_trunk": 1e-3,
        "lr": 1e-2,
        "init": (),
        "mode": "stream",
        "trunk": ("cxr=vit_s_16",),
    }
    assert streamed(options, ("ehr",), own) == {"lr": 1e-2, "init": ()}
    with pytest.raises(ConfigError, match="give --stream too"):
        parse_trunks(["cxr=resnet8"], stream=False)
    with pytest.raises(ConfigError, match="MODALITY=NETWORK"):
        parse_trunks(["resnet8"], stream=True)


def test_it_is_the_papers_experiment_with_its_networks_and_starts_alone() -> None:
    def trained(name: str, network: str, *init: str) -> bool:
        options = {"mode": "stream", "trunk": (f"{name}={network}",), "init": init}
        return as_published(FuseConfig.of(options), name)

    assert trained("cxr", "resnet34")
    assert trained("cxr", "resnet34", "cxr=random:3")
    assert not trained("cxr", "resnet8")
    assert not trained("cxr", "resnet34", "cxr=weights.safetensors")
    assert trained("report", "tinybert", "report=folder")
    assert not trained("report", "tinybert")  # the paper fine-tunes
    assert not as_published(FuseConfig.of({}), "cxr")
    assert as_published(FuseConfig.of({}), "ehr")


def test_without_films_nothing_is_streamed_and_the_reason_is_said(
    make_cache: Callable[..., Path], asked: Request, tmp_path: Path
) -> None:
    vectors = make_cache(tmp_path / "cache", 24, ("ehr", "cxr"), dataset="mimic4")
    assert Cohort.open(vectors).modalities
    planned = plan("table3", replace(asked, caches=(vectors,)))
    assert [entry.line.key for entry in planned.rooms[0].entries] == ["alone:ehr"]
    assert any("extract --modality cxr --level pixels" in text for text in planned.skipped)


def test_series_alone_can_ask_for_stays_with_films_that_no_encoder_has_seen(
    pixel_cache: Path,
) -> None:
    ids = []
    for space in stores_of(modality_folder(pixel_cache, "cxr")):  # vectors, and pixels
        options = {"model": "single", "modalities": ("ehr",), "require": (f"cxr@{space}",)}
        data = load(pixel_cache, identify(FuseConfig.of(options), pixel_cache).config)
        ids.append(data.columns["stay_id"])
    assert len(ids) == 2
    assert ids[0] == ids[1] != []


@pytest.mark.slow
def test_a_table_says_of_its_encoders_whether_they_were_trained(asked: Request) -> None:
    small = replace(asked, trunks={"cxr": "resnet8"})
    planned = plan("table2", small)
    told = forecast(planned, (0,))
    assert {(row["mode"], row["s/epoch"] > 0) for row in told} == {
        ("stream", True),
        ("cached", True),
    }
    result = reproduce(planned, small, (0,), replicates=20, jobs=1)
    rows = {row["key"]: row for row in result.rows[0] if row["metric"] == "auroc"}
    assert not any(row["failure"] for row in rows.values())
    assert rows["cm2"]["paper"] is not None
    assert rows["cm2"]["other_experiment"]  # a network that is not the paper's
    text = as_text(result)
    assert "cxr: resnet8, trained end to end, from random weights" in text
    assert "frozen encoders" not in text

    cached = small.from_cache()
    result = reproduce(plan("table2", cached), cached, (0,), replicates=20, jobs=1)
    assert all(row["other_experiment"] for row in result.rows[0])
    assert "≠:" in as_text(result)
    assert "frozen encoders" in as_text(result)
