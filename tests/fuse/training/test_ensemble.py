"""A member of an ensemble is the run that its configuration would be alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cm2.cache import checkpoint
from cm2.cache.cohort import Cohort
from cm2.cache.lease import Lease
from cm2.errors import BusyError, ConfigError, DataError, Interrupted, UnsupportedError
from cm2.fuse.config import FuseConfig
from cm2.fuse.data import load
from cm2.fuse.identity import identify
from cm2.fuse.rundir import LAST, TRAINER, RunDir
from cm2.fuse.training.ensemble import train_ensemble
from cm2.fuse.training.memory import bytes_per_member, largest_chunk
from cm2.fuse.training.shapes import shape_key, unmappable
from cm2.fuse.training.trainer import fuse
from cm2.progress import Stop

Options = dict[str, Any]
TINY: Options = {"hidden": 8, "fusion_hidden": 8, "batch_size": 40, "epochs": 2}
CM2: Options = {**TINY, "copula_dim": 4}
OWN: tuple[Options, ...] = (
    {"K": 2, "lr": 1e-2, "dropout": 0.1, "patience": 2},
    {"K": 3, "lr": 3e-2, "lambda_cop": 0.1, "seed": 1, "temperature": 0.01, "patience": 1},
    {"K": 1, "lr": 3e-3, "dropout": 0.5, "weight_decay": 0.1, "clip": 0.05, "warmup": 2},
)


@pytest.fixture
def double() -> Iterator[None]:
    """Parameters in float64, so that rounding cannot hide a difference."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class StopAt(Stop):
    """Stop after some epochs of a run, or of all runs of an ensemble."""

    def __init__(self, epochs: int) -> None:
        super().__init__()
        self.left = epochs

    def check(self, finished: str) -> None:
        self.left -= 1
        if self.left == 0:
            raise Interrupted(finished)


def configs(shared: Options, own: tuple[Options, ...]) -> list[FuseConfig]:
    return [FuseConfig.of({**shared, **one}) for one in own]


def together(members: list[FuseConfig], cache: Path, out: Path, **more: Any) -> list[RunDir]:
    outs = [out / f"member{i}" for i in range(len(members))]
    outcomes = train_ensemble(members, cache, outs, **more)
    assert [outcome.error for outcome in outcomes] == [None] * len(members)
    return [outcome.run for outcome in outcomes]


def alone(members: list[FuseConfig], cache: Path, out: Path) -> list[RunDir]:
    return [fuse(one, cache, out / f"single{i}") for i, one in enumerate(members)]


def assert_equal_runs(found: RunDir, expected: RunDir, close: float) -> None:
    assert found.finished
    assert found.info["best_epoch"] == expected.info["best_epoch"]
    assert len(found.history) == len(expected.history)
    for ours, theirs in zip(found.history, expected.history, strict=True):
        assert ours == pytest.approx(theirs, rel=close, abs=close)
    ours, theirs = (run.predictions("val")["p"].to_numpy() for run in (found, expected))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=close)
    ours, theirs = (checkpoint.load(run.path / LAST)[0] for run in (found, expected))
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=close, atol=close)


@pytest.mark.usefixtures("double")
def test_members_of_their_own_rates_weights_seeds_and_k_equal_their_single_runs(
    small_cache: Path, tmp_path: Path
) -> None:
    members = configs({**CM2, "epochs": 6}, OWN)
    single = alone(members, small_cache, tmp_path)
    lengths = {len(run.history) for run in single}
    assert len(lengths) > 1, "some member stops early, and the others go on without it"
    for found, expected in zip(together(members, small_cache, tmp_path), single, strict=True):
        assert_equal_runs(found, expected, 1e-9)


SLOW = pytest.mark.slow
ONE_ORDER, OWN_ORDERS = (0, 0), (0, 3)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(
    ("options", "seeds"),
    [
        pytest.param({**TINY, "model": "concat"}, ONE_ORDER, id="concat, one order"),
        pytest.param({**TINY, "model": "concat"}, OWN_ORDERS, id="concat, own orders"),
        pytest.param({**TINY, "model": "medfuse"}, OWN_ORDERS, id="medfuse"),
        pytest.param({"hidden": 8, "epochs": 2, "model": "mmtm"}, OWN_ORDERS, id="objectives"),
        pytest.param({**CM2, "epochs": 1, "align": "infonce"}, ONE_ORDER, id="infonce"),
        pytest.param(
            {**CM2, "objective": "elbo", "class_weight": "balanced"},
            OWN_ORDERS,
            id="elbo",
            marks=SLOW,
        ),
        pytest.param({**CM2, "impute": "conditional"}, OWN_ORDERS, id="draws", marks=SLOW),
        pytest.param(
            {**CM2, "coupling": "component", "copula": "gaussian", "impute": "conditional"},
            OWN_ORDERS,
            id="component",
            marks=SLOW,
        ),
        pytest.param({**CM2, "fusion": "transformer"}, OWN_ORDERS, id="transformer", marks=SLOW),
    ],
)
def test_every_method_equals_its_single_runs(
    small_cache: Path, tmp_path: Path, options: Options, seeds: tuple[int, int]
) -> None:
    own = ({"lr": 1e-2, "seed": seeds[0]}, {"dropout": 0.6, "seed": seeds[1]})
    members = configs(options, own)
    single = alone(members, small_cache, tmp_path)
    for found, expected in zip(together(members, small_cache, tmp_path), single, strict=True):
        assert_equal_runs(found, expected, 1e-9)


def test_in_single_precision_predictions_agree_to_four_digits(
    small_cache: Path, tmp_path: Path
) -> None:
    members = configs(CM2, ({"seed": 1}, {"seed": 2, "K": 2}))
    single = alone(members, small_cache, tmp_path)
    for found, expected in zip(together(members, small_cache, tmp_path), single, strict=True):
        ours, theirs = (run.predictions("val")["p"].to_numpy() for run in (found, expected))
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)


@pytest.mark.usefixtures("double")
def test_a_single_run_continues_a_member_and_a_member_a_single_run(
    small_cache: Path, tmp_path: Path
) -> None:
    members = configs({**TINY, "model": "concat", "epochs": 5}, ({"lr": 1e-2}, {"seed": 3}))
    single = alone(members, small_cache, tmp_path)
    with pytest.raises(Interrupted):  # the second is one epoch ahead of the first
        fuse(members[1], small_cache, tmp_path / "member1", stop=StopAt(1))
    with pytest.raises(Interrupted, match="2 runs is stored"):
        together(members, small_cache, tmp_path, stop=StopAt(2))
    paths = [tmp_path / f"member{i}" for i in range(2)]
    assert [len(RunDir.open(path).history) for path in paths] == [2, 3]
    assert not (paths[0] / Lease.NAME).exists()
    assert_equal_runs(fuse(members[0], small_cache, paths[0]), single[0], 1e-9)
    again = together(members, small_cache, tmp_path)
    assert_equal_runs(again[1], single[1], 1e-9)
    assert not (paths[1] / TRAINER).exists()


def test_a_member_that_is_no_longer_finite_harms_no_other(
    small_cache: Path, tmp_path: Path
) -> None:
    members = configs(
        {**TINY, "model": "concat", "clip": 0.0}, ({"seed": 1}, {"lr": 1e30}, {"seed": 2})
    )
    outs = [tmp_path / name for name in "abc"]
    outcomes = train_ensemble(members, small_cache, outs)
    assert [outcome.error is None for outcome in outcomes] == [True, False, True]
    with pytest.raises(ConfigError) as alone_error:
        fuse(members[1], small_cache, tmp_path / "alone")
    assert str(outcomes[1].error) == str(alone_error.value)
    assert not outcomes[1].run.finished
    for e in (0, 2):
        expected = fuse(members[e], small_cache, tmp_path / f"single{e}")
        assert_equal_runs(outcomes[e].run, expected, 1e-5)


@pytest.mark.parametrize(
    ("options", "lr", "words"),
    [
        ({**TINY, "model": "concat", "batch_size": 2000}, 1e25, "epoch 1: the validation loss"),
        ({**CM2, "batch_size": 2000}, 1e38, "epoch 1: a matrix that cannot be decomposed"),
    ],
    ids=["judged", "renewed"],
)
def test_a_member_that_diverges_between_steps_and_figures_fails_alone_as_its_single_run(
    small_cache: Path, tmp_path: Path, options: Options, lr: float, words: str
) -> None:
    members = configs(options, ({"seed": 1}, {"lr": lr}, {"seed": 2}))
    outcomes = train_ensemble(members, small_cache, [tmp_path / name for name in "abc"])
    assert [outcome.run.finished for outcome in outcomes] == [True, False, True]
    with pytest.raises(ConfigError, match=words) as alone_error:
        fuse(members[1], small_cache, tmp_path / "alone")
    assert str(outcomes[1].error) == str(alone_error.value)
    for e in (0, 2):
        expected = fuse(members[e], small_cache, tmp_path / f"single{e}")
        assert_equal_runs(outcomes[e].run, expected, 1e-5)


@pytest.mark.parametrize("place", ["judge", "renew", "finish"])
def test_an_unforeseen_error_of_one_member_harms_no_other_and_tells_no_data(
    small_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    from cm2.fuse.models import cm2 as method
    from cm2.fuse.training import ensemble
    from cm2.fuse.training.course import Course

    owner = {"judge": Course, "renew": method.CM2, "finish": ensemble._Member}[place]
    plain = getattr(owner, place)

    def fragile(self: Any, *given: Any) -> Any:
        config = self.identity.config if place == "finish" else self.config
        if config.seed == 2:
            raise KeyError("patient 7")
        return plain(self, *given)

    monkeypatch.setattr(owner, place, fragile)
    members = configs({**CM2, "epochs": 1}, ({"seed": 1}, {"seed": 2}, {"seed": 3}))
    outcomes = train_ensemble(members, small_cache, [tmp_path / name for name in "abc"])
    assert [outcome.run.finished for outcome in outcomes] == [True, False, True]
    assert isinstance(outcomes[1].error, ConfigError)
    assert "KeyError after" in str(outcomes[1].error)
    assert "patient" not in str(outcomes[1].error)


def test_where_validation_comes_first_too_a_member_that_fails_it_fails_alone(
    small_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cm2.fuse.training.course import Course

    plain = Course.judge

    def judge(self: Course, *given: Any) -> Any:
        if self.config.seed == 1 and self.epoch == 2:
            raise DataError("made up")
        return plain(self, *given)

    monkeypatch.setattr(Course, "judge", judge)
    shared = {**TINY, "model": "concat", "epochs": 4, "published": {"validate_first": True}}
    members = configs(shared, ({"seed": 1}, {"seed": 2}))
    outcomes = train_ensemble(members, small_cache, [tmp_path / name for name in "ab"])
    assert str(outcomes[0].error) == "made up"
    assert outcomes[1].run.finished
    only = train_ensemble(members[:1], small_cache, [tmp_path / "c"])
    assert str(only[0].error) == "made up"


def test_a_member_that_another_process_holds_is_left_to_it(
    small_cache: Path, tmp_path: Path
) -> None:
    members = configs({**TINY, "model": "concat", "epochs": 1}, ({"seed": 1}, {"seed": 2}))
    with Lease(tmp_path / "0"):
        outcomes = train_ensemble(members, small_cache, [tmp_path / "0", tmp_path / "1"])
    assert isinstance(outcomes[0].error, BusyError)
    assert outcomes[1].run.finished


def test_chunks_change_nothing_but_rounding(small_cache: Path, tmp_path: Path) -> None:
    members = configs({**TINY, "model": "concat"}, tuple({"seed": s} for s in range(3)))
    whole = together(members, small_cache, tmp_path / "whole")
    parts = together(members, small_cache, tmp_path / "parts", chunk=2)
    for found, expected in zip(parts, whole, strict=True):
        assert_equal_runs(found, expected, 1e-5)


def test_what_needs_another_shape_has_another_key() -> None:
    key = shape_key(FuseConfig())
    for free in ({"lr": 1e-2}, {"seed": 5}, {"K": 6}, {"dropout": 0.0}, {"temperature": 0.1}):
        assert shape_key(FuseConfig.of(free)) == key, free
    for other in ({"hidden": 64}, {"copula": "gumbel"}, {"batch_size": 32}, {"rows": "matched"}):
        assert shape_key(FuseConfig.of(other)) != key, other
    mlp = {"mixture_weights": "mlp"}
    assert shape_key(FuseConfig.of({**mlp, "K": 2})) != shape_key(FuseConfig.of({**mlp, "K": 3}))


def test_several_shapes_and_what_cannot_be_mapped_are_refused(small_cache: Path) -> None:
    with pytest.raises(UnsupportedError, match="Group them by shape_key"):
        train_ensemble(configs(CM2, ({}, {"hidden": 16})), small_cache)
    cca = FuseConfig.of({**CM2, "projection": "cca"})
    assert "signs" in str(unmappable(cca))
    with pytest.raises(UnsupportedError, match="projection = cca"):
        train_ensemble([cca], small_cache)
    assert unmappable(FuseConfig()) is None


def test_memory_bounds_a_chunk(small_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cm2.fuse.training import memory

    small, large = (
        identify(FuseConfig.of({**CM2, "hidden": n}), small_cache).config for n in (8, 64)
    )
    data = load(small_cache, small, Cohort.open(small_cache, "default"))
    assert bytes_per_member(large, data) > 2 * bytes_per_member(small, data)
    monkeypatch.setattr(memory, "_free", lambda _: 7 * bytes_per_member(small, data))
    assert largest_chunk([small] * 9, data) == 3
    assert largest_chunk([small] * 2, data) == 2
    monkeypatch.setattr(memory, "_free", lambda _: 0)
    assert largest_chunk([small] * 9, data) == 1


TRAIN = """
from pathlib import Path
from cm2.fuse.config import FuseConfig
from cm2.fuse.training.ensemble import train_ensemble
configs, cache, out = eval(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
outs = [out / f"member{i}" for i in range(len(configs))]
train_ensemble([FuseConfig.of(one) for one in configs], cache, outs)
"""


@pytest.mark.fault
@pytest.mark.parametrize("fatal", [20, 47])
def test_kill_9_leaves_members_that_end_the_same(
    small_cache: Path, tmp_path: Path, killed: Callable[..., bool], fatal: int
) -> None:
    options = [{**TINY, "model": "concat", "epochs": 3, "seed": seed} for seed in (1, 2)]
    assert killed(fatal, repr(options), str(small_cache), str(tmp_path), program=TRAIN)
    members = [FuseConfig.of(one) for one in options]
    expected = together(members, small_cache, tmp_path / "undisturbed")
    for found, other in zip(together(members, small_cache, tmp_path), expected, strict=True):
        assert_equal_runs(found, other, 1e-5)
