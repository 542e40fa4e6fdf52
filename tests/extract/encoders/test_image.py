"""Image encoder: torchvision's features, the same whatever stands beside, weights as given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torchvision import models
from torchvision.transforms import Compose, Normalize, ToTensor

from cm2.errors import ConfigError, ResourceError, UnsupportedError
from cm2.extract.encoders.image import MEAN, STD, ImageEncoder
from cm2.extract.encoders.weights import Weights


@pytest.fixture(scope="module")
def films() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (5, 224, 224)).astype(np.uint8)


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(11)
        return models.resnet34(weights=None).eval()


@pytest.fixture(scope="module")
def file(network: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "resnet34.safetensors"
    save_file(network.state_dict(), path)
    return path


def test_features_are_those_of_torchvision_before_the_classifier(
    films: np.ndarray, network: torch.nn.Module, file: Path
) -> None:
    found = ImageEncoder("resnet34", Weights("cxr", path=file), "cpu", batch=2).encode(films)
    transform = Compose([ToTensor(), Normalize(MEAN, STD)])
    batch = torch.stack([transform(np.repeat(film[..., None], 3, axis=2)) for film in films])
    headless = torch.nn.Sequential(*list(network.children())[:-1])
    with torch.inference_mode():
        expected = headless(batch).flatten(1).numpy()
    assert found.shape == (5, 512)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-4 * np.abs(expected).max())


def test_a_seed_names_its_features(films: np.ndarray) -> None:
    first, again, other = (ImageEncoder("resnet34", Weights("cxr", seed=s)) for s in (0, 0, 1))
    assert first.sha256 == again.sha256 != other.sha256
    np.testing.assert_array_equal(first.encode(films[:2]), again.encode(films[:2]))
    assert np.abs(first.encode(films[:2]) - other.encode(films[:2])).max() > 0.1


def test_encoding_leaves_the_network_and_the_thread_count_as_they_are(films: np.ndarray) -> None:
    encoder = ImageEncoder("resnet34", Weights("cxr", seed=0))
    threads = torch.get_num_threads()
    first = encoder.encode(films[:1])
    encoder.encode(films)
    np.testing.assert_array_equal(encoder.encode(films[:1]), first)
    assert torch.get_num_threads() == threads


def test_the_blank_is_the_feature_of_zeros_after_normalisation(
    network: torch.nn.Module, file: Path
) -> None:
    found = ImageEncoder("resnet34", Weights("cxr", path=file)).blank()
    headless = torch.nn.Sequential(*list(network.children())[:-1])
    with torch.inference_mode():
        expected = headless(torch.zeros(1, 3, 224, 224)).flatten().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "resnet18.safetensors"
    save_file(models.resnet18(weights=None).state_dict(), path)
    encoder = ImageEncoder("resnet34", Weights("cxr", path=path))
    with pytest.raises(ConfigError, match="missing"):
        encoder.encode(np.zeros((1, 224, 224), np.uint8))


def test_the_hash_of_given_weights_is_that_of_the_file(file: Path) -> None:
    import hashlib

    encoder = ImageEncoder("resnet34", Weights("cxr", path=file))
    assert encoder.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()


def test_unknown_encoders_and_devices_are_refused(films: np.ndarray) -> None:
    with pytest.raises(UnsupportedError, match="offered: resnet34"):
        ImageEncoder("resnet999", Weights("cxr", seed=0))
    with pytest.raises(ConfigError, match="expected auto, cpu, cuda"):
        ImageEncoder("resnet34", Weights("cxr", seed=0), "tpu").encode(films[:1])
    if not torch.cuda.is_available():
        with pytest.raises(ResourceError, match="0 GPUs"):
            ImageEncoder("resnet34", Weights("cxr", seed=0), "cuda").encode(films[:1])
