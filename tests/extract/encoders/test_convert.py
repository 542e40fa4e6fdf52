"""Converting pickled weights: only the file that is meant, only tensors, and nothing is run."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from cm2.errors import ConfigError, DataError, UnsupportedError
from cm2.extract.encoders.convert import convert
from cm2.extract.encoders.weights import Weights


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def pickled(tmp_path: Path) -> Path:
    path = tmp_path / "resnet34-b627a593.pth"
    torch.save(nn.Linear(3, 2).state_dict(), path)
    return path


def test_every_tensor_arrives_and_the_header_tells_where_it_is_from(pickled: Path) -> None:
    done = convert(pickled, sha256(pickled).upper())
    assert done.path == pickled.with_suffix(".safetensors")
    assert done.sha256 == sha256(done.path)
    expected = torch.load(pickled, weights_only=True)
    found = load_file(done.path)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    with safe_open(done.path, framework="pt") as opened:
        assert json.loads(opened.metadata()["cm2"]) == {
            "source": pickled.name,
            "source_sha256": sha256(pickled),
            "pretrained_on": "ImageNet-1k",
        }
    assert Weights("cxr", path=done.path).pretrained_on == "ImageNet-1k"
    first = done.path.read_bytes()
    assert convert(pickled, sha256(pickled)).path.read_bytes() == first


@pytest.mark.parametrize("nest", ["state_dict", "model", "model_state_dict"])
def test_checkpoints_with_other_facts_around_the_tensors_are_read(
    nest: str, tmp_path: Path
) -> None:
    path = tmp_path / "checkpoint.pt"
    shared = torch.arange(6.0).reshape(2, 3)
    state = {"module.a": shared, "module.b": shared.T}  # one memory, one of them not contiguous
    torch.save({"epoch": 3, nest: state}, path)
    found = load_file(convert(path, sha256(path), pretrained_on="chests").path)
    assert torch.equal(found["a"], shared)
    assert torch.equal(found["b"], shared.T)


@pytest.mark.parametrize("wrapper", ["module.", "model.", "module.model."])
def test_what_a_trainer_puts_before_every_name_is_taken_off(wrapper: str, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.ckpt"
    state = {f"{wrapper}{name}": value for name, value in nn.Linear(3, 2).state_dict().items()}
    torch.save({"state_dict": state}, path)
    assert set(load_file(convert(path, sha256(path)).path)) == {"weight", "bias"}


def test_two_tensors_never_become_one(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    torch.save({"a": torch.zeros(1), "module.a": torch.ones(1)}, path)
    assert set(load_file(convert(path, sha256(path)).path)) == {"a", "module.a"}


def test_safetensors_need_no_conversion(pickled: Path) -> None:
    done = convert(pickled, sha256(pickled)).path
    with pytest.raises(ConfigError, match="needs no conversion"):
        convert(done, sha256(done))


class Bomb:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.marker,))


@pytest.mark.parametrize("form", ["torch", "plain pickle"])
def test_code_in_a_file_is_refused_and_not_run(form: str, tmp_path: Path) -> None:
    path, marker = tmp_path / "evil.pth", tmp_path / "executed"
    content = {"weight": torch.zeros(1), "bomb": Bomb(marker)}
    if form == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(UnsupportedError, match="refused before") as caught:
        convert(path, sha256(path))
    assert "weights_only" not in str(caught.value)
    assert not marker.exists()
    assert not path.with_suffix(".safetensors").exists()


def test_another_file_than_the_one_meant_is_not_opened(
    pickled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("opened"))
    with pytest.raises(ConfigError, match=f"its SHA-256 is {sha256(pickled)}, expected {'0' * 64}"):
        convert(pickled, "0" * 64)
    with pytest.raises(ConfigError, match="64 hexadecimal"):
        convert(pickled, "b627a593")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (torch.zeros(3), "expected tensors by name"),
        ({"weight": "text"}, "found str under 'weight'"),
        ({3: torch.zeros(1)}, "expected a tensor under every name"),
        ({"weight": torch.tensor([float("nan")])}, "weight holds NaN"),
        ({}, "holds no tensor"),
    ],
)
def test_what_is_no_set_of_finite_tensors_by_name_is_refused(
    content: object, words: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.pt"
    torch.save(content, path)
    with pytest.raises(UnsupportedError, match=words):
        convert(path, sha256(path))


def test_a_damaged_or_absent_file_and_an_impossible_target_are_refused(pickled: Path) -> None:
    with pytest.raises(DataError, match="found none"):
        convert(pickled.with_name("none.pth"), "0" * 64)
    with pytest.raises(ConfigError, match=r"expected a \.safetensors file or a folder"):
        convert(pickled, sha256(pickled), pickled.with_name("other.pth"))
    pickled.write_bytes(pickled.read_bytes()[:-200])
    with pytest.raises(UnsupportedError):
        convert(pickled, sha256(pickled))


def test_a_folder_takes_what_the_encoder_needs_besides_its_weights(tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    for name in ("config.json", "vocab.txt", "README.md", "notes.txt", "patients.json"):
        (source / name).write_text(name)
    torch.save({"a": torch.ones(1)}, source / "pytorch_model.bin")
    weights = Weights("report", path=source)
    with pytest.raises(ConfigError, match=r"but pytorch_model\.bin: convert it once"):
        weights.file()
    convert(source / "pytorch_model.bin", sha256(source / "pytorch_model.bin"), out)
    assert sorted(path.name for path in out.iterdir()) == [
        "config.json",
        "model.safetensors",
        "vocab.txt",
    ]
    assert Weights("report", path=out).pretrained_on == "not stated"
