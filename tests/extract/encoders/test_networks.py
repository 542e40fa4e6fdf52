"""Every offered network gives torchvision's features, pooled and by place, folded or not."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision import models
from torchvision.models.feature_extraction import create_feature_extractor

from cm2.extract.encoders import ENCODED
from cm2.extract.encoders.image import MEAN, STD, ImageEncoder
from cm2.extract.encoders.networks import NETWORKS, blocked, body, build, can_block, fold, headless
from cm2.extract.encoders.weights import Weights

LAST = {"resnet8": "layer3", "resnet": "layer4", "densenet": "features.norm5", "vit": "encoder.ln"}


@pytest.fixture(scope="module")
def films() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, 224, 224)).astype(np.uint8)


def groups_of_16(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(channels // 16, channels)


def reference(name: str) -> nn.Module:
    torch.manual_seed(7)
    if name == "vit_s_16":  # DeiT-S: 12 layers of width 384 with 6 heads
        network: nn.Module = models.VisionTransformer(224, 16, 12, 6, 384, 1536)
    elif name.startswith("resnet8"):  # of this project: only folding and gathering are tested
        network = build(name, 7)
    elif name.endswith("_gn"):
        network = getattr(models, name.removesuffix("_gn"))(norm_layer=groups_of_16)
    else:
        network = getattr(models, name)(weights=None)
    for module in network.modules():  # statistics that are not those of a fresh norm
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network.eval()


def test_the_offered_names_are_the_known_networks() -> None:
    assert ENCODED["cxr"] == tuple(NETWORKS)


@pytest.mark.parametrize("name", NETWORKS)
def test_features_are_those_of_torchvision(name: str, films: np.ndarray, tmp_path: Path) -> None:
    with torch.random.fork_rng():
        network = reference(name)
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    grey = torch.from_numpy(films).unsqueeze(1).float() / 255
    batch = (grey - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)
    last = next(node for kind, node in LAST.items() if name.startswith(kind))
    with torch.inference_mode():
        places = create_feature_extractor(network, [last])(batch)[last]
    if name.startswith("vit"):
        pooled, grid = places[:, 0], places[:, 1:]
    else:
        places = places.relu() if name.startswith("densenet") else places
        pooled, grid = places.mean(dim=(2, 3)), places.flatten(2).transpose(1, 2)
    encoder = ImageEncoder(name, Weights("cxr", path=tmp_path / "w.safetensors"))
    found, by_place = encoder.encode(films), encoder.encode(films, "grid")
    assert found.dtype == np.float32
    assert by_place.dtype == np.float16
    assert found.shape == (2, NETWORKS[name].width)
    scale = float(pooled.abs().max())
    np.testing.assert_allclose(found, pooled.numpy(), atol=3e-6 * scale, rtol=0)
    np.testing.assert_allclose(by_place, grid.numpy(), rtol=2e-3, atol=2e-3 * scale)


def test_folding_leaves_no_norm_behind_a_convolution_and_the_original_alone() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.BatchNorm2d(2))
    network[1].running_mean.fill_(0.3)
    network.eval()
    images = torch.randn(2, 1, 8, 8)
    with torch.inference_mode():
        folded = fold(network)
        torch.testing.assert_close(folded(images), network(images))
    norms = [m for m in folded.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 1  # the second follows no convolution
    assert isinstance(network[1], nn.BatchNorm2d)


@pytest.mark.parametrize("name", [name for name in NETWORKS if can_block(name, torch.float32)])
def test_in_the_layout_of_onednn_a_network_gives_its_own_features_and_keeps_its_weights(
    name: str,
) -> None:
    network = build(name, 0)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        expected = network.double()(images.double()).flatten(1)
        found = headless(blocked(body(name, network.float()), torch.float32), tokens=False)(images)
    assert (found[0] - expected).abs().max() < 3e-6 * expected.abs().max()
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key])


def test_bf16_in_the_layout_of_onednn_is_no_further_off_than_autocast(films: np.ndarray) -> None:
    if not can_block("resnet18", torch.bfloat16):
        pytest.skip("this processor has no bf16 in oneDNN")
    exact, rounded = (
        ImageEncoder("resnet18", Weights("cxr", seed=0), precision=precision).encode(films)
        for precision in ("fp32", "bf16")
    )
    network = headless(body("resnet18", build("resnet18", 0)), tokens=False)
    grey = torch.from_numpy(films).unsqueeze(1).float() / 255
    batch = (grey - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        autocast = network(batch)[0].float().numpy()
    assert 0 < np.abs(rounded - exact).max() <= 1.2 * np.abs(autocast - exact).max()


def test_bf16_is_close_and_its_difference_is_what_is_told(films: np.ndarray) -> None:
    exact, rounded = (
        ImageEncoder("resnet18", Weights("cxr", seed=0), precision=precision)
        for precision in ("fp32", "bf16")
    )
    a, b = exact.encode(films), rounded.encode(films)
    assert b.dtype == np.float32
    share = float(np.abs(a - b).max() / np.abs(a).max())
    assert 0 < share < 0.05
    assert exact.rounding(films) == rounded.rounding(films) == share


def test_an_encoder_crosses_to_another_process_without_its_network(films: np.ndarray) -> None:
    encoder = ImageEncoder("resnet18", Weights("cxr", seed=3))
    expected, digest = encoder.encode(films), encoder.sha256
    sent = pickle.dumps(encoder)
    assert len(sent) < 10_000
    other: ImageEncoder = pickle.loads(sent)
    assert other.sha256 == digest
    np.testing.assert_array_equal(other.encode(films), expected)


def test_threads_that_encode_at_once_get_what_one_alone_gets(films: np.ndarray) -> None:
    expected = ImageEncoder("resnet18", Weights("cxr", seed=0)).encode(films)
    shared = ImageEncoder("resnet18", Weights("cxr", seed=0))
    before = torch.random.get_rng_state()
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(shared.encode, [films] * 8):
            np.testing.assert_array_equal(found, expected)
    assert torch.equal(torch.random.get_rng_state(), before)
