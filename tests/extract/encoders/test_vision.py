"""Hugging Face vision models from a folder: their own features, their own image processor."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    AutoImageProcessor,
    BertConfig,
    BertModel,
    BitImageProcessor,
    ConvNextImageProcessor,
    Dinov2Config,
    Dinov2Model,
    ResNetConfig,
    ResNetModel,
    SwinConfig,
    SwinModel,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
    ViTModel,
)

from cm2.errors import ConfigError, UnsupportedError
from cm2.extract.encoders.image import ImageEncoder
from cm2.extract.encoders.weights import Weights
from cm2.extract.modalities.film import prepare

VIT = ViTConfig(
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=64,
    image_size=32,
    patch_size=8,
)
DINO = Dinov2Config(
    hidden_size=32, num_hidden_layers=2, num_attention_heads=4, image_size=28, patch_size=14
)
SWIN = SwinConfig(
    image_size=32, patch_size=2, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=4
)
RESNET = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1])
SQUARE = ViTImageProcessor(size={"height": 32, "width": 32})
CUT = BitImageProcessor(size={"shortest_edge": 36}, crop_size={"height": 28, "width": 28})
MODELS: dict[str, tuple[Any, Any, int]] = {
    "vit": (lambda: ViTModel(VIT), SQUARE, 16),
    "dinov2": (lambda: Dinov2Model(DINO), CUT, 4),
    "swin": (lambda: SwinModel(SWIN), SQUARE, 64),
    "resnet": (lambda: ResNetModel(RESNET), ConvNextImageProcessor(size={"shortest_edge": 56}), 49),
}


def folder(path: Path, model: Any, processor: Any) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model().eval().save_pretrained(path)
    if processor is not None:
        processor.save_pretrained(path)
    return path


def encoder(path: Path) -> ImageEncoder:
    return ImageEncoder(None, Weights("cxr", path=path))


def film() -> bytes:
    y, x = np.mgrid[0:90, 0:70]
    picture = 120 + 80 * np.sin(y / 9) * np.cos(x / 7)
    out = io.BytesIO()
    Image.fromarray(picture.astype(np.uint8)).save(out, "JPEG", quality=95)
    return out.getvalue()


@pytest.mark.parametrize("name", MODELS)
def test_a_film_gets_the_features_that_transformers_gives_it(name: str, tmp_path: Path) -> None:
    model, processor, places = MODELS[name]
    path = folder(tmp_path, model, processor)
    mine = encoder(path)
    assert mine.name == f"huggingface {name}"
    prepared = prepare(film(), mine.frame)
    asked = AutoImageProcessor.from_pretrained(path)
    pixels = asked(Image.open(io.BytesIO(film())).convert("RGB"), return_tensors="pt")
    pixels = pixels["pixel_values"]
    scaled = (prepared[None, None] / 255 - np.reshape(mine.mean, (1, 3, 1, 1))) / np.reshape(
        mine.std, (1, 3, 1, 1)
    )
    assert scaled.shape == tuple(pixels.shape)
    one_level = 1.01 / 255 / min(mine.std)  # torch and Pillow may round a grey value differently
    np.testing.assert_allclose(scaled, pixels.numpy(), atol=one_level)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = model().eval()
    with torch.inference_mode():
        out = network(pixel_values=torch.tensor(scaled, dtype=torch.float32))
    expected = out.pooler_output.flatten(1).numpy()
    found = mine.encode(prepared[None])
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max(), rtol=1e-4)
    grid = mine.encode(prepared[None], "grid")
    assert grid.shape == (1, places, found.shape[1])
    last = out.last_hidden_state
    if last.ndim == 4:
        last = last.flatten(2).transpose(1, 2)
    np.testing.assert_allclose(grid, last[:, -places:].numpy(), rtol=2e-3, atol=2e-3)
    assert mine.blank().shape == (found.shape[1],)


def test_without_trained_pooling_the_class_token_is_taken(tmp_path: Path) -> None:
    path = folder(tmp_path, lambda: ViTForImageClassification(VIT), SQUARE)
    mine = encoder(path)
    prepared = prepare(film(), mine.frame)
    plain = ViTModel.from_pretrained(path, add_pooling_layer=False).eval()
    scaled = (torch.from_numpy(prepared.copy()).float() / 255 - 0.5) / 0.5
    with torch.inference_mode():
        expected = plain(pixel_values=scaled.expand(1, 3, 32, 32)).last_hidden_state[:, 0]
    for again in (mine, encoder(path)):
        found = again.encode(prepared[None])
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-5, rtol=1e-4)


def test_weights_and_architecture_make_the_hash(tmp_path: Path) -> None:
    path = folder(tmp_path / "a", MODELS["vit"][0], SQUARE)
    first = encoder(path).sha256
    assert encoder(path).sha256 == first
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "layer_norm_eps": 1e-3}))
    assert encoder(path).sha256 != first


def change(path: Path, **settings: object) -> None:
    file = path / "preprocessor_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))


def test_what_is_not_offered_is_refused(tmp_path: Path) -> None:
    path = folder(tmp_path, MODELS["vit"][0], SQUARE)
    good = (path / "preprocessor_config.json").read_text()
    odd: list[tuple[dict[str, object], str]] = [
        ({"do_normalize": False}, "do_normalize differs"),
        ({"do_resize": False}, "do_resize differs"),
        ({"rescale_factor": 1.0}, "rescale_factor differs"),
        ({"size": {"shortest_edge": 40}}, "centre that is cut out"),
    ]
    for settings, message in odd:
        change(path, **settings)
        with pytest.raises(UnsupportedError, match=message):
            encoder(path)
        (path / "preprocessor_config.json").write_text(good)
    (path / "preprocessor_config.json").unlink()
    with pytest.raises(ConfigError, match=r"preprocessor_config\.json beside"):
        encoder(path)


def test_a_model_of_texts_is_refused(tmp_path: Path) -> None:
    shape = BertConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    path = folder(tmp_path, lambda: BertModel(shape), SQUARE)
    with pytest.raises(UnsupportedError, match="BertModel, which reads input_ids"):
        encoder(path).blank()


def test_missing_and_damaged_weights_are_refused(tmp_path: Path) -> None:
    path = folder(tmp_path, MODELS["vit"][0], SQUARE)
    file = path / "model.safetensors"
    state = load_file(file)
    lost = "encoder.layer.0.attention.attention.query.weight"
    lost = lost if lost in state else next(name for name in state if "query.weight" in name)
    save_file({name: t for name, t in state.items() if name != lost}, file, {"format": "pt"})
    with pytest.raises(ConfigError, match=r"1 weights are missing.*q_proj"):
        encoder(path).blank()
    save_file({**state, lost: torch.full_like(state[lost], torch.nan)}, file, {"format": "pt"})
    with pytest.raises(ConfigError, match="NaN or infinity"):
        encoder(path).blank()
    (path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="model_type"):
        encoder(path)
