"""Vision models of Hugging Face from a local folder, with the frame their processor asks for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...cache.atomic import sha256_file
from ...cache.fingerprint import fingerprint
from ...errors import ConfigError, UnsupportedError
from .frame import Frame
from .weights import Weights, seeded

if TYPE_CHECKING:
    import torch
    from torch import nn

_CONFIG, _PROCESSOR = "config.json", "preprocessor_config.json"
_LARGE = 384  # from here on ConvNeXt's processor resizes to a square instead of cutting one out


@dataclass(frozen=True)
class Processing:
    """What the image processor of a folder asks for.

    Args:
        frame: Size and filter.
        mean: Per channel, of grey values in [0, 1].
        std: Per channel.
    """

    frame: Frame
    mean: tuple[float, ...]
    std: tuple[float, ...]


def is_folder(weights: Weights) -> bool:
    """Whether the weights are a folder that describes its own network."""
    return weights.path is not None and (weights.path / _CONFIG).is_file()


def kind(weights: Weights) -> str:
    """Architecture of a folder, for the space.

    Raises:
        ConfigError: config.json cannot be read or names none.
    """
    path = _folder(weights) / _CONFIG
    try:
        return f"huggingface {json.loads(path.read_text('utf-8'))['model_type']}"
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: expected JSON with a model_type; download it again") from error


def sha256(weights: Weights) -> str:
    """Hash of weights and architecture."""
    files = (*weights.parts(), _folder(weights) / _CONFIG)
    return fingerprint({file.name: sha256_file(file) for file in files})


def processing(weights: Weights) -> Processing:
    """Read the settings of the image processor.

    Raises:
        ConfigError: There are none.
        UnsupportedError: It asks for something that is not offered.
    """
    from transformers import AutoImageProcessor

    processors: Any = AutoImageProcessor
    folder = _folder(weights)
    if not (folder / _PROCESSOR).is_file():
        raise ConfigError(
            f"{folder}: expected {_PROCESSOR} beside {_CONFIG}, which says how pictures are sized "
            "and scaled; found none. Download the whole folder."
        )
    try:
        with _quiet():
            found = processors.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            ).to_dict()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{folder / _PROCESSOR}: no image processor of transformers") from error
    wanted = {"do_resize": True, "do_rescale": True, "do_normalize": True}
    odd = [key for key, value in wanted.items() if found.get(key) is not value]
    odd += [key for key in ("do_pad", "do_thumbnail", "do_reduce_labels") if found.get(key)]
    if abs(float(found.get("rescale_factor") or 0) - 1 / 255) > 1e-9:
        odd.append("rescale_factor")
    if odd:
        raise UnsupportedError(
            f"{folder / _PROCESSOR}: expected pictures that are resized, scaled by 1/255 and "
            f"normalised, and nothing else; {', '.join(odd)} differs"
        )
    return Processing(_frame(folder, found), tuple(found["image_mean"]), tuple(found["image_std"]))


def _frame(folder: Path, found: Mapping[str, Any]) -> Frame:
    from PIL.Image import Resampling

    resample = Resampling(found["resample"]).name.lower()
    size = {key: value for key, value in dict(found["size"]).items() if value}
    crop = None
    if found.get("do_center_crop"):
        cut = dict(found["crop_size"])
        crop = (int(cut["height"]), int(cut["width"]))
    if set(size) == {"height", "width"}:
        return Frame((int(size["height"]), int(size["width"])), crop, resample)
    if set(size) == {"shortest_edge"}:
        edge = int(size["shortest_edge"])
        if found.get("crop_pct"):  # ConvNeXt
            if edge >= _LARGE:
                return Frame((edge, edge), None, resample)
            return Frame(int(edge / found["crop_pct"]), (edge, edge), resample)
        if crop is not None:
            return Frame(edge, crop, resample)
    raise UnsupportedError(
        f"{folder / _PROCESSOR}: expected a size of height and width, or a shortest_edge with a "
        f"centre that is cut out; found size {size} and crop {crop}"
    )


def load(weights: Weights) -> tuple[nn.Module, int]:
    """Build the network of a folder.

    Returns:
        A network in evaluation mode that maps [B, 3, H, W] to pooled features [B, D] and features
        by place [B, S, D], and D. Pooled is what the model itself calls its pooled output; where
        the folder has no weights for that, the class token, or without one the mean.

    Raises:
        ConfigError: Weights are missing, of another shape, or not finite.
        UnsupportedError: The model does not take pictures.
    """
    from transformers import AutoModel

    folder = _folder(weights)
    state = weights.state()
    try:
        with _quiet(), seeded(0):
            network, info = AutoModel.from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise ConfigError(
            f"{folder}: transformers cannot build its model ({type(error).__name__})"
        ) from error
    if network.main_input_name != "pixel_values":
        raise UnsupportedError(
            f"{folder}: expected a model of pictures, found {type(network).__name__}, which reads "
            f"{network.main_input_name}"
        )
    missing = sorted(info["missing_keys"])
    lost = [name for name in missing if "pooler" not in name] + sorted(
        str(entry[0]) for entry in info["mismatched_keys"]
    )
    if lost:
        raise ConfigError(
            f"{folder}: {len(lost)} weights are missing or misshapen, first {lost[0]}"
        )
    has_class = any(name.endswith(("cls_token", "class_embedding")) for name in state)
    return _headless(network.eval(), bool(missing), has_class), _width(network.config)


def _headless(network: Any, untrained_pooler: bool, has_class: bool) -> nn.Module:
    from torch import nn

    registers = int(getattr(network.config, "num_register_tokens", 0) or 0)
    special = (
        int(has_class)
        + registers
        + int(any(name.endswith("distillation_token") for name, _ in network.named_parameters()))
    )

    class Headless(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            out = self.network(pixel_values=images)
            last: torch.Tensor = out.last_hidden_state
            if last.ndim == 4:  # [B, D, h, w]
                grid = last.flatten(2).transpose(1, 2)
                first = None
            else:  # [B, special + S, D]
                grid = last[:, special:]
                first = last[:, 0] if has_class else None
            pooled = out.get("pooler_output")
            if pooled is None or untrained_pooler:
                pooled = grid.mean(dim=1) if first is None else first
            return pooled.flatten(1), grid

    return Headless()


def _width(config: Any) -> int:
    sizes = getattr(config, "hidden_sizes", None)
    return int(sizes[-1] if sizes else config.hidden_size)


def _folder(weights: Weights) -> Path:
    if weights.path is None:
        raise ConfigError(f"{weights.modality}: {weights.note} is no folder of a model")
    return weights.path


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' bars and tables off the terminal; what matters is checked here."""
    from transformers.utils import logging as untyped

    logging: Any = untyped
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


__all__ = ["Processing", "is_folder", "kind", "load", "processing", "sha256"]
