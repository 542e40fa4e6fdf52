"""Text encoders trained from token ids, and what goes back into the cache."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from cm2.cache.cohort import Cohort, view
from cm2.cache.store import Store
from cm2.errors import ConfigError, Interrupted, LeakageError
from cm2.extract.config import ExtractConfig
from cm2.extract.encoders.text import SHAPES, TextEncoder
from cm2.extract.encoders.weights import Weights
from cm2.extract.runner import extract
from cm2.fuse.config import FuseConfig
from cm2.fuse.data import load
from cm2.fuse.identity import identify
from cm2.fuse.inference import build, load_model, predict
from cm2.fuse.methods import trained_by_steps
from cm2.fuse.models.interface import Hyper
from cm2.fuse.rundir import RunDir
from cm2.fuse.stream.data import StreamData
from cm2.fuse.stream.model import Streamed
from cm2.fuse.stream.text_trunk import TextTrunk
from cm2.fuse.training.course import make_optimizer
from cm2.fuse.training.trainer import fuse
from cm2.progress import Stop

TEXT: Mapping[str, object] = {
    "mode": "stream",
    "trunk": ("report=store",),
    "modalities": ("ehr", "report"),
    "model": "concat",
    "hidden": 8,
    "epochs": 2,
    "batch_size": 16,
    "lr": 1e-2,
    "lr_text": 1e-3,
}


def options(**others: object) -> FuseConfig:
    return FuseConfig.of({**TEXT, **others})


def take(source: Path, cache: Path, modality: str, **options: object) -> str:
    """Extract one modality and return the id of its space."""
    config = ExtractConfig.model_validate(
        {"data": source, "cache": cache, "modality": modality, "device": "cpu", **options}
    )
    return extract(config).modalities[0].space


@pytest.fixture(scope="module", autouse=True)
def small_texts() -> object:
    """The smallest shape, smaller still."""
    before = dict(SHAPES["bert2x128"])
    SHAPES["bert2x128"].update(hidden_size=32, intermediate_size=64)  # type: ignore[attr-defined]
    yield
    SHAPES["bert2x128"].update(before)  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def cache(source: Path, tmp_path_factory: pytest.TempPathFactory, small_texts: object) -> Path:
    """Series, pixels and texts of the demo, and a second cohort with other splits."""
    cache = tmp_path_factory.mktemp("texts") / "cache"
    take(source, cache, "ehr")
    take(source, cache, "cxr", level="pixels", side=32)
    take(source, cache, "report", encoder=("bert2x128",))
    take(source, cache, "ehr", cohort="other", split_seed=7)
    take(source, cache, "report", encoder=("bert2x128",), cohort="other", split_seed=7)
    return cache


@pytest.fixture(scope="module", autouse=True)
def store(cache: Path) -> Store:
    """The store of texts, opened while it is the only one."""
    return Store.open(cache, "report")


def opened(cache: Path, config: FuseConfig) -> tuple[StreamData, Streamed]:
    identity = identify(config, cache)
    data = load(cache, identity.config, identity.cohort)
    model = build(data.specs, identity.config)
    assert isinstance(data, StreamData)
    assert isinstance(model, Streamed)
    model.begin(identity.starts)
    return data, model


def test_a_trunk_as_the_store_was_made_gives_the_vectors_of_the_store(cache: Path) -> None:
    data, model = opened(cache, options())
    rows = data.rows("all", labelled=False)
    cohort = Cohort.open(cache)
    places = [cohort.stays["stay_id"].to_pylist().index(s) for s in data.columns["stay_id"]]
    stored = view(cache, cohort, "report")
    with torch.no_grad():
        batch = data.batch(rows)
        found = model.encoded(batch).x["report"]
    assert torch.equal(batch.mask["report"], torch.from_numpy(stored.mask[places]))
    assert 20 < int(batch.mask["report"].sum()) < batch.mask["report"].numel()
    torch.testing.assert_close(found, torch.from_numpy(stored.values[places]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("long", ["truncate", "windows"])
def test_a_trunk_pools_and_cuts_long_texts_as_extract_does(pooling: str, long: str) -> None:
    encoder = TextEncoder(
        "bert2x128",
        Weights("note", seed=3),
        max_tokens=12,
        pooling=pooling,
        long=long,  # type: ignore[arg-type]
    )
    words = ["no focal consolidation", "heart size is normal and lungs are clear " * 5, "edema"]
    ids = encoder.tokenise(words)
    assert (max(map(len, ids)) > 12) == (long == "windows")
    items = torch.full((3, max(map(len, ids))), -1)
    for row, own in enumerate(ids):
        items[row, : len(own)] = torch.tensor(own)
    trunk = TextTrunk(encoder.description, 3)
    found = trunk(items).detach().numpy()
    np.testing.assert_allclose(found, encoder.encode(ids), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "method",  # the others are fitted as a whole and train no encoder
    trained_by_steps(),
)
def test_every_method_learns_behind_films_and_texts(
    cache: Path, stream: ModuleType, method: str
) -> None:
    needed: dict[str, object] = {"modalities": ("cxr", "report")}
    if method == "single":
        needed = {"modalities": ("report",)}
    films = () if method == "single" else ("cxr=resnet8",)
    own = stream.CM2 if method == "cm2" else {}
    config = options(model=method, trunk=(*films, "report=store"), **needed, **own)
    data, model = opened(cache, config)
    rows = data.rows("train")
    model.start(data.batches(rows))
    batch = data.batch(rows, model.noise(training=True), config.seed, 1)
    output = model(batch, Hyper.of(config, 1))
    output.losses["task"].mean().backward()
    for trunk in model.trunks:
        moved = [p.grad.abs().sum() for p in trunk.parameters() if p.grad is not None]
        assert sum(map(float, moved)) > 0


def test_only_texts_that_are_there_are_encoded(cache: Path) -> None:
    data, model = opened(cache, options())
    rows = data.rows("train")
    batch = data.batch(rows)
    has = batch.mask["report"] & batch.available[:, 1:2]
    assert len(batch.raw["report"]) == int(has.sum())
    without = rows[~data.whole.available[torch.from_numpy(rows), 1].numpy()]
    assert len(without)
    assert not model.encoded(data.batch(without)).x["report"].any()


def test_texts_have_a_rate_and_a_freeze_of_their_own(cache: Path) -> None:
    config = options(
        modalities=("cxr", "report"),
        trunk=("cxr=resnet8", "report=store"),
        lr_trunk=1e-4,
        lr_text=1e-5,
        epochs=3,
        freeze_text_epochs=1,
    )
    data, model = opened(cache, config)
    rates: dict[str, set[float]] = {}
    names = {id(p): name for name, p in model.named_parameters()}
    for group in make_optimizer(model, model.config).param_groups:
        for p in group["params"]:
            part = names[id(p)][:9] if names[id(p)].startswith("trunks.") else "rest"
            rates.setdefault(part, set()).add(round(group["share"] * config.lr, 12))
    assert rates == {"trunks.0.": {1e-4}, "trunks.1.": {1e-5}, "rest": {1e-2}}
    rows = data.rows("train")
    model.start(data.batches(rows))
    for epoch, learns in ((1, False), (2, True)):
        model.zero_grad()
        batch = data.batch(rows, model.noise(training=True), 0, epoch)
        model(batch, Hyper.of(config, epoch)).losses["task"].mean().backward()
        assert next(model.trunk("cxr").parameters()).grad is not None
        assert (next(model.trunk("report").parameters()).grad is not None) == learns


def test_parts_give_the_gradient_of_the_whole(cache: Path) -> None:
    gradients = []
    for parts in (1, 3):
        config = options(accumulate=parts)
        data, model = opened(cache, config)
        batch = data.batch(data.rows("train"), model.noise(training=True), 0, 1)
        output = model.double()(batch, Hyper.of(config, 1))
        output.losses["task"].mean().backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert any(name.startswith("trunks.") for name in gradients[0])
    for name, whole in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], whole, rtol=1e-9, atol=1e-12)


class StopAt(Stop):
    def check(self, finished: str) -> None:
        if finished.startswith("step 2 of epoch 2 "):
            raise Interrupted(finished)


def digests(run: Path) -> dict[str, str]:
    files = [p for p in sorted(run.rglob("*")) if p.is_file() and p.name != "run.json"]
    return {str(p.relative_to(run)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_a_run_stopped_between_two_steps_ends_with_the_same_bytes(
    cache: Path, tmp_path: Path
) -> None:
    both = {"modalities": ("ehr", "cxr", "report"), "trunk": ("cxr=resnet8", "report=store")}
    fuse(options(**both), cache, tmp_path / "whole" / "run")
    place = tmp_path / "cut" / "run"
    with pytest.raises(Interrupted):
        fuse(options(**both), cache, place, stop=StopAt(), save_steps=2, workers=0)
    fuse(options(**both), cache, place, workers=1)
    assert digests(place) == digests(tmp_path / "whole" / "run")


@pytest.fixture(scope="module")
def streamed(cache: Path) -> RunDir:
    return fuse(options(epochs=1), cache)


@pytest.fixture(scope="module")
def space(source: Path, cache: Path, streamed: RunDir) -> str:
    """Vectors of reports by the encoder of the run, in both cohorts."""
    weights = (f"report={streamed.path}",)
    made = take(source, cache, "report", weights=weights)
    assert take(source, cache, "report", weights=weights, cohort="other", split_seed=7) == made
    return made


def test_a_finished_run_predicts_what_it_predicted_at_its_end(
    cache: Path, streamed: RunDir
) -> None:
    again = predict(RunDir.open(streamed.path), cache, "val")
    assert again.equals(streamed.predictions("val"))


def test_stored_vectors_are_those_that_the_run_computed(
    cache: Path, streamed: RunDir, space: str, store: Store
) -> None:
    model, _, _ = load_model(streamed)
    assert isinstance(model, Streamed)
    data = load(cache, streamed.config)
    cohort = Cohort.open(cache)
    wanted = [cohort.stays["stay_id"].to_pylist().index(s) for s in data.columns["stay_id"]]
    with torch.no_grad():
        vectors = model.encoded(data.batch(data.rows("all", labelled=False))).x["report"]
    found = view(cache, cohort, "report", space)
    torch.testing.assert_close(
        torch.from_numpy(found.values[wanted]), vectors, rtol=1e-5, atol=1e-5
    )
    before = view(cache, cohort, "report", store.space.id)
    assert np.abs(found.values - before.values).max() > 1e-3  # it has learned
    new = Store.open(cache, "report", space)
    assert {"weights", "training_subjects"} <= set(new.space.parts)
    assert len(new.training_subjects) > 10
    assert new.provenance["weights"] == f"run {streamed.path.name}"


def test_another_split_of_the_same_patients_is_a_leak(
    cache: Path, streamed: RunDir, space: str, store: Store
) -> None:
    series = Store.open(cache, "ehr").space.id
    names = (f"ehr@{series}", f"report@{space}")
    small = {"hidden": 8, "epochs": 1, "model": "concat", "modalities": names}
    assert fuse(FuseConfig.of(small), cache).finished
    with pytest.raises(LeakageError, match="patients who are in the validation or test split"):
        fuse(FuseConfig.of({**small, "cohort": "other"}), cache)
    start = options(
        cohort="other",
        trunk=(),
        init=(f"report={streamed.path}",),
        modalities=("ehr", f"report@{store.space.id}"),
    )
    with pytest.raises(LeakageError, match="The start of report"):
        fuse(start, cache)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"trunk": ("report=bert",)}, "Did you mean"),
        ({"trunk": ("report=store",), "init": ("report=random:x",)}, "random:SEED"),
        ({"trunk": ("ehr=store",)}, "trunk of texts"),
        ({"lr_trunk": 1e-2}, "no films are streamed"),
        ({"init": ("report=/nowhere",), "trunk": ()}, "no such file or folder"),
        ({"freeze_text_epochs": 2}, "leaves none of 2 epochs"),
    ],
)
def test_options_that_fit_no_store_are_refused(
    cache: Path, store: Store, given: dict[str, object], message: str
) -> None:
    names = ("ehr", f"report@{store.space.id}")
    with pytest.raises(ConfigError, match=message):
        identify(options(**{"modalities": names, **given}), cache)


def test_a_shape_by_name_reads_the_vocabulary_of_the_store(cache: Path, store: Store) -> None:
    names = ("ehr", f"report@{store.space.id}")
    data, model = opened(
        cache, options(trunk=("report=minilm",), init=("report=random:5",), modalities=names)
    )
    trunk = model.trunk("report")
    assert isinstance(trunk, TextTrunk)
    assert (data.specs[1].width, trunk.network.config.num_hidden_layers) == (384, 6)
    rows = trunk.network.get_input_embeddings().weight.shape[0]
    assert rows == store.provenance["vocabulary"]["size"]
    same = TextEncoder("minilm", Weights("report", seed=5))
    assert torch.equal(
        trunk.network.get_input_embeddings().weight, same._network.get_input_embeddings().weight
    )
