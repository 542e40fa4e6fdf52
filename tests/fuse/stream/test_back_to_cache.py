"""Encoders of a run go back into the cache, and know whom they were trained on."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

import cm2
from cm2.cache.cohort import Cohort, view
from cm2.cache.store import Store
from cm2.errors import ConfigError, IntegrityError, LeakageError
from cm2.extract.config import ExtractConfig
from cm2.extract.runner import extract
from cm2.fuse.config import FuseConfig
from cm2.fuse.data import load
from cm2.fuse.inference import load_model
from cm2.fuse.rundir import RunDir
from cm2.fuse.stream.model import Streamed
from cm2.fuse.training.trainer import fuse

SMALL = {"hidden": 8, "epochs": 1, "model": "concat"}


def take(source: Path, cache: Path, modality: str, **options: object) -> str:
    """Extract one modality and return the id of its space."""
    config = ExtractConfig.model_validate(
        {"data": source, "cache": cache, "modality": modality, "device": "cpu", **options}
    )
    return extract(config).modalities[0].space


@pytest.fixture(scope="module")
def cache(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Series and pixels of the demo, and a second cohort with other splits."""
    cache = tmp_path_factory.mktemp("back") / "cache"
    take(source, cache, "ehr")
    take(source, cache, "cxr", level="pixels", side=32)
    take(source, cache, "ehr", cohort="other", split_seed=7)
    return cache


@pytest.fixture(scope="module")
def streamed(cache: Path, stream: ModuleType) -> RunDir:
    return fuse(stream.options(model="concat", epochs=1, lr_trunk=1e-2), cache)


@pytest.fixture(scope="module")
def spaces(source: Path, cache: Path, streamed: RunDir) -> dict[str, str]:
    """Vectors of films and series by the encoders of the run, in both cohorts."""
    run = str(streamed.path)
    made = {name: take(source, cache, name, weights=(f"{name}={run}",)) for name in ("cxr", "ehr")}
    other = take(source, cache, "ehr", weights=(run,), cohort="other", split_seed=7)
    assert other == made["ehr"]
    return made


def test_a_streamed_run_is_no_module_of_arrays_and_says_so_when_it_is_loaded(
    streamed: RunDir,
) -> None:
    with pytest.raises(ConfigError, match=r"streamed run: it reads films.*`cm2 predict"):
        cm2.load_run(streamed.path)


def test_stored_vectors_are_those_that_the_run_computed(
    cache: Path, streamed: RunDir, spaces: dict[str, str]
) -> None:
    model, _, _ = load_model(streamed)
    assert isinstance(model, Streamed)
    data = load(cache, streamed.config)
    rows = data.rows("all", labelled=False)
    cohort = Cohort.open(cache)
    wanted = [cohort.stays["stay_id"].to_pylist().index(s) for s in data.columns["stay_id"]]
    batch = data.batch(rows)
    with torch.no_grad():
        vectors = model.encoded(batch)
        states = model.encoders(vectors)[:, 0]  # type: ignore[operator, index]
    films = view(cache, cohort, "cxr", spaces["cxr"])
    has = films.has[wanted]
    assert 5 < has.sum() < len(has)
    found = torch.from_numpy(films.values[wanted][has][:, 0])
    torch.testing.assert_close(found, vectors.x["cxr"][torch.from_numpy(has)][:, 0])
    series = view(cache, cohort, "ehr", spaces["ehr"])
    there = series.has[wanted]
    found = torch.from_numpy(series.values[wanted][there][:, 0])
    torch.testing.assert_close(found, states[torch.from_numpy(there)], rtol=1e-4, atol=1e-5)


def test_a_space_names_the_weights_and_the_patients_they_have_seen(
    cache: Path, streamed: RunDir, spaces: dict[str, str]
) -> None:
    store = Store.open(cache, "cxr", spaces["cxr"])
    data = load(cache, streamed.config)
    subjects = {data.columns["subject_id"][i] for i in data.rows("train")}
    assert len(store.training_subjects) == len(subjects) > 10
    assert {"weights", "training_subjects"} <= set(store.space.parts)
    assert store.provenance["weights"] == f"run {streamed.path.name}"
    assert store.provenance["random_weights"] is False
    shape = store.read(store.items["item_id"].to_pylist())["values"].shape
    assert shape == (store.items.num_rows, 64)


def test_a_cached_run_on_top_uses_them(cache: Path, spaces: dict[str, str]) -> None:
    names = tuple(f"{name}@{space}" for name, space in sorted(spaces.items(), reverse=True))
    run = fuse(FuseConfig.of({**SMALL, "modalities": names}), cache)
    assert run.finished
    assert run.info["spaces"]["ehr"]["view"] == "vector"
    assert not any("random" in line for line in run.info["warnings"])


def test_another_split_of_the_same_patients_is_a_leak(cache: Path, spaces: dict[str, str]) -> None:
    config = FuseConfig.of(
        {**SMALL, "cohort": "other", "modalities": (f"ehr@{spaces['ehr']}",), "model": "single"}
    )
    with pytest.raises(LeakageError, match="patients who are in the validation or test split"):
        fuse(config, cache)
    folds = FuseConfig.of({**SMALL, "folds": 3, "modalities": (f"ehr@{spaces['ehr']}",)})
    with pytest.raises(LeakageError, match="and the fold"):
        fuse(folds, cache)
    plain = config.model_copy(update={"modalities": (f"ehr@{_series(cache)}",)})
    assert fuse(plain, cache).finished  # the series themselves know nobody


def test_a_start_from_a_run_on_another_split_is_a_leak(
    source: Path, cache: Path, streamed: RunDir, stream: ModuleType
) -> None:
    take(source, cache, "cxr", level="pixels", side=32, cohort="other", split_seed=7)
    start = (f"cxr={streamed.path}",)
    other = stream.options(
        cohort="other", init=start, model="single", modalities=("cxr",), epochs=1
    )
    with pytest.raises(LeakageError, match="The start of cxr"):
        fuse(other, cache)
    names = (f"ehr@{_series(cache)}", "cxr")
    same = stream.options(
        init=start, model="concat", epochs=1, lr_trunk=1e-9, modalities=names, seed=1
    )
    again, _, _ = load_model(fuse(same, cache))
    before, _, _ = load_model(streamed)
    for new, old in zip(again.trunks.parameters(), before.trunks.parameters(), strict=True):  # type: ignore[union-attr]
        torch.testing.assert_close(new, old, rtol=0, atol=1e-6)


def test_a_record_of_patients_that_was_altered_is_refused(
    cache: Path, spaces: dict[str, str], tmp_path: Path
) -> None:
    import shutil

    from cm2.cache import atomic

    copy = tmp_path / "cache"
    shutil.copytree(cache, copy)
    path = Store.open(copy, "cxr", spaces["cxr"]).path / "provenance.json"
    content = atomic.read_json(path, "")
    atomic.write_json(path, {**content, "training_subjects": content["training_subjects"][1:]})
    with pytest.raises(IntegrityError, match="does not hold the patients"):
        Store.open(copy, "cxr", spaces["cxr"]).training_subjects  # noqa: B018
    path.unlink()
    with pytest.raises(IntegrityError, match="does not hold the patients"):
        Store.open(copy, "cxr", spaces["cxr"]).training_subjects  # noqa: B018


def test_encoders_that_do_not_fit_are_refused(
    source: Path, cache: Path, streamed: RunDir, tmp_path: Path
) -> None:
    run = str(streamed.path)
    with pytest.raises(ConfigError, match="trained on series of the space"):
        take(source, cache, "ehr", weights=(run,), step_hours=4.0)
    with pytest.raises(ConfigError, match="leave the option out"):
        take(source, cache, "cxr", weights=(run,), encoder=("resnet18",))
    cached = fuse(FuseConfig.of({**SMALL, "modalities": ("ehr@" + _series(cache),)}), cache)
    with pytest.raises(ConfigError, match="trained no encoder of cxr"):
        take(source, cache, "cxr", weights=(str(cached.path),))
    assert take(source, cache, "ehr", weights=(str(cached.path),))


def _series(cache: Path) -> str:
    for path in sorted((cache / "stores/ehr").iterdir()):
        if Store.open(cache, "ehr", path.name).space.view == "series":
            return path.name
    raise AssertionError


def test_masked_steps_and_unknown_columns_say_nothing() -> None:
    """The LSTM of stage one against that of the fusion, on series with gaps."""
    from types import SimpleNamespace

    from cm2.extract.encoders.series import SeriesEncoder as Stored
    from cm2.fuse.models.encoders import SeriesEncoder

    columns = ("pulse", "known:pulse", "lactate")
    torch.manual_seed(0)
    encoder = SeriesEncoder(3, 5, columns)
    encoder.normaliser.mean.normal_()
    encoder.normaliser.rate.uniform_(0.5, 2)
    x = torch.randn(7, 6, 3)
    x[..., 1] = (x[..., 1] > 0).float()
    mask = torch.rand(7, 6) < 0.6
    mask[:, 2] = True
    trained = SimpleNamespace(
        facts={"kind": "lstm", "space": "s", "width": 5, "columns": columns},
        tensors=encoder.state_dict(),
        require=lambda kind: None,
    )
    stored = Stored(SimpleNamespace(trained=trained), "s")  # type: ignore[arg-type]
    found = stored.encode(x.numpy(), mask.numpy())
    np.testing.assert_allclose(found, encoder(x, mask).detach().numpy(), rtol=1e-5, atol=1e-6)
