"""Weights: named, never guessed, never unpickled, and refused unless they fit exactly."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from cm2.errors import ConfigError, UnsupportedError
from cm2.extract.encoders.weights import (
    Weights,
    assign,
    choose,
    read_state,
    seeded,
    state_sha256,
)

BOTH = ("cxr", "report")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "encoder.safetensors"
    save_file(nn.Linear(3, 2).state_dict(), path)
    return path


def test_only_synthetic_data_run_without_weights() -> None:
    assert choose([], "cxr", BOTH, synthetic=True) == Weights("cxr", seed=0)
    with pytest.raises(ConfigError, match=r"--weights cxr=PATH.*cxr=random:0"):
        choose([], "cxr", BOTH, synthetic=False)


def test_random_weights_may_be_asked_for_on_any_data(file: Path) -> None:
    assert choose(["random:7"], "report", BOTH, synthetic=False) == Weights("report", seed=7)
    given = [f"cxr={file}", "report=random:3"]
    assert choose(given, "cxr", BOTH, synthetic=False) == Weights("cxr", path=file)
    assert choose(given, "report", BOTH, synthetic=False).note == "random:3"


def test_a_path_without_a_name_is_refused_when_two_encoders_could_take_it(file: Path) -> None:
    assert choose([str(file)], "cxr", ("cxr",), synthetic=False).path == file
    with pytest.raises(ConfigError, match="write cxr="):
        choose([str(file)], "cxr", BOTH, synthetic=False)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["random:"], "whole number"),
        (["random:-1"], "whole number"),
        (["random:x"], "whole number"),
        (["random:1", "random:2"], "2 values"),
        (["ehr=random:1"], "no encoder of that name"),
        (["cxr=/nowhere/at/all.safetensors"], "no such file"),
        (["/nowhere"], "no such file"),
    ],
)
def test_what_cannot_be_meant_is_refused(given: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        choose(given, "cxr", ("cxr",), synthetic=True)


def test_a_path_that_holds_an_equals_sign_is_a_path(tmp_path: Path) -> None:
    path = tmp_path / "a=b.safetensors"
    save_file({"x": torch.zeros(1)}, path)
    assert choose([str(path)], "cxr", ("cxr",), synthetic=False).path == path


class Bomb:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.marker,))


@pytest.mark.parametrize("name", ["resnet34.pth", "model.bin", "weights.pt", "weights"])
def test_pickled_weights_are_refused_by_name_and_never_opened(name: str, tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    (tmp_path / name).write_bytes(pickle.dumps(Bomb(marker)))
    with pytest.raises(UnsupportedError, match=r"expected weights as \.safetensors"):
        choose([str(tmp_path / name)], "cxr", ("cxr",), synthetic=False)
    assert not marker.exists()


def test_a_pickle_under_a_good_name_is_refused_and_not_executed(tmp_path: Path) -> None:
    marker, path = tmp_path / "executed", tmp_path / "evil.safetensors"
    path.write_bytes(pickle.dumps(Bomb(marker)))
    with pytest.raises(ConfigError, match="not a readable"):
        read_state(path)
    assert not marker.exists()


def test_weights_with_nan_are_refused_by_tensor(tmp_path: Path) -> None:
    path = tmp_path / "nan.safetensors"
    save_file({"good": torch.zeros(2), "bad": torch.tensor([1.0, float("nan")])}, path)
    with pytest.raises(ConfigError, match="bad holds NaN"):
        read_state(path)


def test_weights_that_do_not_fit_are_listed_by_kind_and_nothing_is_loaded() -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    before = state_sha256(module)
    state = dict(module.state_dict())
    state["0.weight"] = torch.zeros(5, 5)
    state["other"] = torch.zeros(1)
    del state["1.bias"]
    with pytest.raises(ConfigError) as caught:
        assign(module, state, (), "FILE as NAME")
    for words in ("FILE as NAME", "1 missing (1.bias)", "1 left over (other)", "(5, 5) instead"):
        assert words in str(caught.value)
    assert state_sha256(module) == before


def test_weights_of_a_head_are_left_out() -> None:
    module, state = nn.Linear(3, 2), dict(nn.Linear(3, 2).state_dict())
    assign(module, {**state, "fc.weight": torch.zeros(9, 9)}, ("fc.",), "x")
    assert torch.equal(module.weight, state["weight"])


def test_a_seed_gives_the_same_weights_and_leaves_other_random_numbers_alone() -> None:
    def made(seed: int) -> str:
        with seeded(seed):
            return state_sha256(nn.Linear(4, 4))

    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first = made(0)
    assert torch.equal(torch.rand(3), expected)
    assert made(0) == first != made(1)


def test_the_hash_of_a_state_sees_every_bit() -> None:
    module = nn.Linear(2, 2)
    before = state_sha256(module)
    with torch.no_grad():
        module.weight[0, 0] = torch.nextafter(module.weight[0, 0], torch.tensor(9.0))
    assert state_sha256(module) != before
