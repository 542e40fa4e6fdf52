"""A model with trunks: what is read, what learns, and what an absent film cannot touch."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

from cm2.cache.cohort import Cohort
from cm2.errors import ConfigError
from cm2.fuse.config import FuseConfig
from cm2.fuse.evaluation.evaluate import evaluate
from cm2.fuse.evaluation.imputed import imputed
from cm2.fuse.evaluation.looks import Looks
from cm2.fuse.evaluation.missingness import without
from cm2.fuse.identity import identify
from cm2.fuse.inference import build, forward, predict, prepare, probabilities
from cm2.fuse.methods import trained_by_steps
from cm2.fuse.models.interface import Hyper
from cm2.fuse.rundir import RunDir
from cm2.fuse.stream.batch import RawBatch
from cm2.fuse.stream.data import StreamData
from cm2.fuse.stream.model import Streamed
from cm2.fuse.training.course import make_optimizer
from cm2.fuse.training.trainer import fuse


def opened(cache: Path, config: FuseConfig) -> tuple[StreamData, Streamed]:
    from cm2.fuse.data import load

    identity = identify(config, cache)
    data = load(cache, identity.config, identity.cohort)
    model = build(data.specs, identity.config)
    assert isinstance(data, StreamData)
    assert isinstance(model, Streamed)
    return data, model


def training_batch(data: StreamData, model: Streamed, rows: np.ndarray, epoch: int = 1) -> RawBatch:
    return data.batch(rows, model.noise(training=True), model.config.seed, epoch)


def statistics(model: nn.Module) -> dict[str, torch.Tensor]:
    return {n: b.clone() for n, b in model.named_buffers() if "running" in n}


@pytest.mark.parametrize(
    "method",  # the others are fitted as a whole and train no encoder
    trained_by_steps(),
)
def test_every_method_learns_behind_trunks(
    pixel_cache: Path, stream: ModuleType, method: str
) -> None:
    needed = {"modalities": ("cxr",)} if method == "single" else {}
    config = stream.options(model=method, **needed)
    data, model = opened(pixel_cache, config)
    rows = data.rows("train")
    model.start(data.batches(rows))
    batch = training_batch(data, model, rows)
    output = model(batch, Hyper.of(config, 1))
    output.losses["task"].mean().backward()
    gradient = next(model.trunks.parameters()).grad
    assert gradient is not None
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize("rows", ["partial", "matched"])
def test_absent_films_touch_no_statistic_of_a_batch_norm(
    pixel_cache: Path, stream: ModuleType, rows: str
) -> None:
    data, model = opened(pixel_cache, stream.options(rows=rows))
    chosen = data.rows("train")
    has = data.whole.available[torch.from_numpy(chosen), 1].numpy()
    assert has.all() if rows == "matched" else 0 < has.sum() < len(has)
    before = statistics(model.trunks)
    model.encoded(training_batch(data, model, chosen))
    expected = statistics(model.trunks)
    assert any((expected[n] != before[n]).any() for n in before)

    # the same films alone, in the same order, through a fresh copy
    _, alone = opened(pixel_cache, stream.options(rows=rows))
    batch = training_batch(data, alone, chosen[has])
    assert len(batch.raw["cxr"]) == has.sum()
    alone.encoded(batch)
    found = statistics(alone.trunks)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0)

    # a batch without any film
    if rows == "partial":
        after = statistics(model.trunks)
        model.encoded(training_batch(data, model, chosen[~has]))
        assert all(torch.equal(value, after[n]) for n, value in statistics(model.trunks).items())


def test_evaluation_moves_no_statistic_and_sees_the_plain_centre(
    pixel_cache: Path, stream: ModuleType
) -> None:
    data, model = opened(pixel_cache, stream.options())
    rows = data.rows("val")
    before = statistics(model.trunks)
    first = model.encoded(data.batch(rows)).x["cxr"]
    assert all(torch.equal(value, before[n]) for n, value in statistics(model.trunks).items())
    torch.testing.assert_close(model.encoded(data.batch(rows)).x["cxr"], first, rtol=0, atol=0)
    augmented = model.encoded(training_batch(data, model, rows)).x["cxr"]
    assert not torch.allclose(first, augmented)


def test_the_augmentation_of_a_film_hangs_on_seed_epoch_and_stay_alone(
    pixel_cache: Path, stream: ModuleType
) -> None:
    data, model = opened(pixel_cache, stream.options())
    rows = data.rows("train")
    whole = training_batch(data, model, rows).noise["augment.cxr"]
    part = training_batch(data, model, rows[5:9][::-1]).noise["augment.cxr"]
    assert torch.equal(part, whole[5:9].flip(0))
    later = training_batch(data, model, rows, epoch=2).noise["augment.cxr"]
    assert not torch.equal(later, whole)


def test_only_films_that_are_there_are_read(
    pixel_cache: Path, stream: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, _ = opened(pixel_cache, stream.options())
    read: list[str] = []
    store = data.items["cxr"]._store  # type: ignore[attr-defined]
    image = store.image
    monkeypatch.setattr(store, "image", lambda item: read.append(item) or image(item))
    rows = data.rows("val")
    list(data.batches(rows, 5))
    links = Cohort.open(pixel_cache).links("cxr").table
    linked = dict(zip(links["stay_id"].to_pylist(), links["items"].to_pylist(), strict=True))
    wanted = [item for row in rows for item in linked[data.columns["stay_id"][row]]]
    assert sorted(read) == sorted(wanted)
    assert 0 < len(wanted) < len(rows)


def test_batches_read_ahead_are_those_read_in_turn(pixel_cache: Path, stream: ModuleType) -> None:
    data, model = opened(pixel_cache, stream.options())
    rows, shapes = data.rows("train"), model.noise(training=True)
    turn = dataclasses.replace(data, loading=type(data.loading)(workers=0))
    pairs = zip(
        data.batches(rows, 7, shapes, 0, 1), turn.batches(rows, 7, shapes, 0, 1), strict=True
    )
    for ahead, now in pairs:
        assert isinstance(ahead, RawBatch)
        assert isinstance(now, RawBatch)
        assert torch.equal(ahead.raw["cxr"], now.raw["cxr"])
        assert torch.equal(ahead.noise["augment.cxr"], now.noise["augment.cxr"])
    assert data.loading.items == turn.loading.items > 0
    assert turn.loading.waited > 0


def test_outside_of_steps_few_films_are_held_at_once(pixel_cache: Path, stream: ModuleType) -> None:
    data, _ = opened(pixel_cache, stream.options())
    rows = np.resize(data.rows("train"), 100)
    sizes = [len(batch.y) for batch in data.batches(rows)]
    assert sizes == [32, 32, 32, 4]


def test_trunks_stand_still_while_they_are_frozen(pixel_cache: Path, stream: ModuleType) -> None:
    config = stream.options(epochs=3, freeze_trunk_epochs=1)
    data, model = opened(pixel_cache, config)
    rows = data.rows("train")
    model.start(data.batches(rows))
    for epoch, learns in ((1, False), (2, True)):
        before = statistics(model.trunks)
        model.zero_grad()
        output = model(training_batch(data, model, rows, epoch), Hyper.of(config, epoch))
        output.losses["task"].mean().backward()
        assert (next(model.trunks.parameters()).grad is not None) == learns
        after = statistics(model.trunks)
        assert all(torch.equal(after[n], before[n]) for n in after) == (not learns)


def test_groups_of_parameters_have_their_rates(pixel_cache: Path, stream: ModuleType) -> None:
    _, model = opened(pixel_cache, stream.options(lr=1e-2, lr_trunk=1e-4))
    optimizer = make_optimizer(model, model.config)
    rates = {
        name: group["share"] * 1e-2
        for group in optimizer.param_groups
        for p in group["params"]
        for name, own in model.named_parameters()
        if own is p
    }
    assert set(rates) == {name for name, _ in model.named_parameters()}
    for name, rate in rates.items():
        wanted = 1e-4 if name.startswith("trunks.") else 1e-2
        assert rate == pytest.approx(wanted), name


def test_parts_give_the_gradient_of_the_whole(pixel_cache: Path, stream: ModuleType) -> None:
    gradients, counts = [], []
    for parts in (1, 3):
        config = stream.options(trunk=("cxr=resnet8_gn",), accumulate=parts)
        data, model = opened(pixel_cache, config)
        rows = data.rows("train")
        output = model.double()(training_batch(data, model, rows), Hyper.of(config, 1))
        output.losses["task"].mean().backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
        counts.append(len(gradients[-1]))
    assert counts[0] == counts[1] > 10
    for whole, in_parts in zip(*gradients, strict=True):
        torch.testing.assert_close(in_parts, whole, rtol=1e-9, atol=1e-12)


def test_statistics_move_once_though_parts_are_computed_twice(
    pixel_cache: Path, stream: ModuleType
) -> None:
    config = stream.options(accumulate=2)
    data, model = opened(pixel_cache, config)
    batch = training_batch(data, model, data.rows("train"))
    output = model(batch, Hyper.of(config, 1))
    forward = {n: b.clone() for n, b in model.trunks.named_buffers()}
    output.losses["task"].mean().backward()
    for name, value in model.trunks.named_buffers():
        assert torch.equal(value, forward[name]), name


def test_frozen_norms_keep_their_statistics(pixel_cache: Path, stream: ModuleType) -> None:
    data, model = opened(pixel_cache, stream.options(trunk_norm="frozen"))
    before = statistics(model.trunks)
    model.encoded(training_batch(data, model, data.rows("train")))
    assert all(torch.equal(value, before[n]) for n, value in statistics(model.trunks).items())


def test_a_recorded_seed_gives_the_trunk_of_extract(pixel_cache: Path, stream: ModuleType) -> None:
    from cm2.extract.encoders.networks import build as network

    _, model = opened(pixel_cache, stream.options(init=("cxr=random:5",)))
    mine = next(model.trunks.parameters())
    assert torch.equal(mine, next(network("resnet8", 5).parameters()))


def test_a_trunk_starts_from_a_file_and_its_hash_names_the_run(
    pixel_cache: Path, stream: ModuleType, tmp_path: Path
) -> None:
    from safetensors.torch import save_file

    from cm2.extract.encoders.networks import build as network

    file = tmp_path / "w.safetensors"
    state = network("resnet8", 11).state_dict()
    save_file(state, file)
    config = stream.options(init=(f"cxr={file}",), epochs=1, lr_trunk=1e-12, weight_decay=0.0)
    identity = identify(config, pixel_cache)
    assert str(tmp_path) not in str(identity.record)
    assert "sha256:" in identity.config.init[0]
    run = fuse(config, pixel_cache, tmp_path / "run")
    from cm2.cache import checkpoint

    tensors, _ = checkpoint.load(run.path / "last.safetensors")
    first = next(tensors[n] for n in sorted(tensors) if n.startswith("trunks.0.network.body.0."))
    torch.testing.assert_close(first, state["conv1.weight"], rtol=0, atol=1e-6)
    other = stream.options(init=("cxr=random:11",), epochs=1)
    assert identify(other, pixel_cache).digest != identity.digest


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mode": "cached"}, "trunk is an option of mode = 'stream'"),
        ({"trunk": ("cxr",)}, "expected MODALITY=VALUE"),
        ({"freeze_trunk_epochs": 2}, "leaves none of 2 epochs"),
        ({"drop": ("cxr=0.5:severity",)}, "drop at random"),
    ],
)
def test_options_that_do_nothing_are_refused(
    stream: ModuleType, given: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        stream.options(**given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"trunk": ("cxr=resnet35",)}, "Did you mean 'resnet"),
        ({"trunk": ("ehr=resnet8",)}, "streamed are cxr"),
        ({"init": ("cxr=random:x",)}, "random:SEED"),
        ({"modalities": ("ehr",), "trunk": ()}, "--level pixels"),
        ({"trunk": ("cxr=resnet8_gn",), "trunk_norm": "frozen"}, "resnet8_gn has none"),
        ({"crop": 25}, "wider than the 24 stored pixels"),
    ],
)
def test_options_that_fit_no_store_are_refused(
    pixel_cache: Path, stream: ModuleType, given: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        identify(stream.options(**given), pixel_cache)


def test_a_cached_run_takes_the_vectors_where_pixels_lie_beside(
    pixel_cache: Path, stream: ModuleType
) -> None:
    config = FuseConfig.of({"modalities": ("cxr",), "model": "single"})
    assert identify(config, pixel_cache).spaces["cxr"]["view"] == "vector"
    streamed = identify(stream.options(), pixel_cache)
    assert streamed.spaces["cxr"]["view"] == "pixels"
    assert streamed.spaces["ehr"]["view"] == "series"


def test_a_finished_run_predicts_what_it_predicted_at_its_end(
    pixel_cache: Path, stream: ModuleType, tmp_path: Path
) -> None:
    run = fuse(stream.options(), pixel_cache, tmp_path / "run")
    assert predict(RunDir.open(run.path), pixel_cache, "val").equals(run.predictions("val"))
    whole = run.info["loading"]["items"]
    assert whole > 0
    paused = fuse(stream.options(), pixel_cache, tmp_path / "paused", until=1)
    assert 0 < paused.info["loading"]["items"] < whole
    assert fuse(stream.options(), pixel_cache, paused.path).info["loading"]["items"] == whole


def test_a_step_with_one_film_too_small_for_batch_norms_says_so(
    pixel_cache: Path, stream: ModuleType
) -> None:
    data, model = opened(pixel_cache, stream.options(trunk=("cxr=resnet18",), batch_size=1))
    rows = data.rows("train")
    one = rows[data.whole.available[rows, 1].numpy()][:1]
    with pytest.raises(ConfigError, match="resnet18: of a single film of 21 pixels"):
        model(training_batch(data, model, one), Hyper.of(model.config))


def test_a_film_that_is_withheld_is_not_read_and_touches_no_other_stay(
    pixel_cache: Path, stream: ModuleType
) -> None:
    data, model = opened(pixel_cache, stream.options())
    rows = data.rows("all", labelled=False)
    have = rows[data.whole.available[:, 1].numpy()]
    lost = have[::2]
    less = without(data, 1, lost)
    assert len(less.batch(rows).raw["cxr"]) == len(have) - len(lost)
    before, after = (probabilities(forward(model, some, rows)) for some in (data, less))
    changed = np.flatnonzero((before != after).any(1))
    assert set(changed) <= set(np.flatnonzero(np.isin(rows, lost)))
    assert len(changed)


def test_a_streamed_run_is_judged_without_each_modality(
    pixel_cache: Path, stream: ModuleType, tmp_path: Path
) -> None:
    run = fuse(stream.options(), pixel_cache, tmp_path / "run")
    metrics = evaluate(run, pixel_cache, "val", looks=Looks(drop=("cxr=0.5",)), replicates=0)
    assert [one["modality"] for one in metrics["without"]] == ["ehr", "cxr"]
    assert metrics["missingness"][0]["withheld"] > 0


def test_draws_for_absent_modalities_move_no_statistic_of_a_batch_norm(
    pixel_cache: Path, stream: ModuleType, tmp_path: Path
) -> None:
    config = stream.options(impute="conditional", model="cm2")
    run = fuse(config, pixel_cache, tmp_path / "run")
    loaded = prepare(run, pixel_cache, "val")
    before = statistics(loaded.model)
    assert imputed(loaded)
    after = statistics(loaded.model)
    assert before
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
