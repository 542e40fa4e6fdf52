"""Films read from their own JPEG files are those of the stored pixels, to the bit."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import polars as pl
import pytest
import torch

from cm2.cache import checkpoint
from cm2.cache.store import Store
from cm2.commands.judging import evaluate, predict
from cm2.errors import ConfigError, IntegrityError
from cm2.extract.config import ExtractConfig
from cm2.extract.runner import extract
from cm2.fuse.rundir import RunDir
from cm2.fuse.stream.items import ROOT, FilmFiles, Films, films_of
from cm2.fuse.training.trainer import fuse


def take(source: Path, cache: Path, level: str, **options: object) -> Store:
    config = {"data": source, "cache": cache, "modality": "cxr", "level": level, "side": 32}
    found = extract(ExtractConfig.model_validate({**config, **options})).modalities[0]
    return Store.open(cache, "cxr", found.space)


@pytest.fixture(scope="module")
def cache(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files") / "cache"


@pytest.fixture(scope="module")
def pixels(source: Path, cache: Path) -> Store:
    return take(source, cache, "pixels")


@pytest.fixture(scope="module")
def files(source: Path, cache: Path, pixels: Store) -> Store:
    return take(source, cache, "files")


@pytest.mark.parametrize("fast", [False, True])
def test_a_film_of_a_file_is_that_of_the_stored_pixels(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fast: bool
) -> None:
    monkeypatch.setenv(ROOT, str(source))
    stored = films_of(take(source, tmp_path, "pixels", fast_decode=fast))
    read = films_of(take(source, tmp_path, "files", fast_decode=fast))
    assert (type(stored), type(read)) == (Films, FilmFiles)
    numbers = np.arange(len(stored._ids))
    assert len(numbers) > 10
    assert stored._ids == read._ids
    assert torch.equal(read.fetch(numbers[::-1]), stored.fetch(numbers[::-1]))


@pytest.fixture(scope="module")
def runs(
    source: Path, cache: Path, pixels: Store, files: Store, stream: ModuleType
) -> dict[str, RunDir]:
    """The same run on stored pixels and on files."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ROOT, str(source))
        for store in (pixels, files):
            names = (f"cxr@{store.space.id}",)
            config = stream.options(model="single", modalities=names, epochs=1, folds=3)
            found[store.space.view] = fuse(config, cache)
    return found


def test_a_run_on_files_ends_with_the_weights_of_one_on_pixels(runs: dict[str, RunDir]) -> None:
    weights = [checkpoint.load(run.path / "best.safetensors")[0] for run in runs.values()]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


def test_a_run_on_files_is_judged_and_asked_where_its_films_are_named(
    runs: dict[str, RunDir],
    source: Path,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, out, there = runs["files"].path, tmp_path / "p.csv", {"films": source, "cache": cache}
    monkeypatch.setenv(ROOT, str(tmp_path))  # they are not here
    with pytest.raises(ConfigError, match="Is the disc mounted"):
        predict(run, out, cache)
    predict(run, out, **there)
    monkeypatch.setenv(ROOT, str(tmp_path))
    evaluate([run], split="val", bootstrap=0, **there)
    assert len(pl.read_csv(out)) > 10


def test_a_film_that_changed_or_is_gone_is_refused(
    source: Path, files: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    films, one = films_of(files), np.array([0])
    monkeypatch.delenv(ROOT, raising=False)
    with pytest.raises(ConfigError, match="--films ROOT"):
        films.fetch(one)
    monkeypatch.setenv(ROOT, str(tmp_path))
    with pytest.raises(ConfigError, match="Is the disc mounted"):
        films.fetch(one)
    first, second = files.items["path"].to_pylist()[:2]
    (tmp_path / first).parent.mkdir(parents=True)
    shutil.copy(source / second, tmp_path / first)
    with pytest.raises(IntegrityError, match="its pixels are others"):
        films.fetch(one)
    (tmp_path / first).write_bytes((source / first).read_bytes()[:500])
    with pytest.raises(IntegrityError, match="truncated"):
        films.fetch(one)
    shutil.copy(source / first, tmp_path / first)
    assert films.fetch(one).shape == (1, 32, 32)


def test_images_of_the_user_have_no_such_level(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="take --level pixels"):
        ExtractConfig.model_validate({"stays": tmp_path / "s.csv", "level": "files"})
