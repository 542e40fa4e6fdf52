"""Turn a file of pickled weights into .safetensors, once; the only place that unpickles.

torch's restricted loader builds tensors and plain containers and refuses everything else, and the
file must be the one whose SHA-256 the user has from its publisher.
"""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...cache import atomic
from ...cache.fingerprint import canonical_json
from ...errors import ConfigError, DataError, UnsupportedError
from .pretraining import HEADER, NOT_STATED, PRETRAINED_ON, pretraining
from .text_folder import TOKENIZER_FILES

_NESTS = ("state_dict", "model_state_dict", "model", "module", "encoder")
_WRAPPERS = ("module.", "model.")  # what training in parallel and Lightning put before each name
_BESIDE = ("config.json", "preprocessor_config.json", *TOKENIZER_FILES)


@dataclass(frozen=True)
class Converted:
    """What a conversion wrote.

    Args:
        path: The .safetensors file.
        tensors: How many tensors it holds.
        bytes: Its size.
        sha256: Its SHA-256, by which stores know it.
        pretrained_on: What its header says about pre-training.
    """

    path: Path
    tensors: int
    bytes: int
    sha256: str
    pretrained_on: str


def convert(
    file: Path, sha256: str, out: Path | None = None, pretrained_on: str | None = None
) -> Converted:
    """Convert pickled weights (.pt, .pth, .bin) to a .safetensors file.

    Args:
        file: Weights as `torch.save` wrote them: tensors by name, or a checkpoint that holds such
            a dictionary as state_dict or model.
        sha256: SHA-256 of the file as its publisher states it.
        out: A .safetensors file, or a folder, into which config.json and the tokenizer beside
            `file` are copied too; by default the file beside it with the new ending.
        pretrained_on: What the weights have learnt from, recorded in the header; by default what
            is publicly known of the name of the file.

    Raises:
        ConfigError: The SHA-256 is no such thing or of another file, or `out` cannot be meant.
        DataError: The file is not there.
        UnsupportedError: It holds something other than finite tensors by name.
    """
    target = _target(file, out)
    if not file.is_file():
        raise DataError(f"{file}: expected a file of weights, found none there")
    if file.suffix == ".safetensors":
        raise ConfigError(f"{file}: needs no conversion; give it to --weights as it is")
    if not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise ConfigError(f"--sha256 {sha256}: expected 64 hexadecimal digits")
    content = file.read_bytes()  # once: what is hashed is what is opened
    found = atomic.hash_bytes(content)
    if found != sha256.lower():
        raise ConfigError(
            f"{file}: its SHA-256 is {found}, expected {sha256.lower()}. It is not the file that "
            "you were told of, and was not opened; download it again."
        )
    state = _tensors(file, content)
    stated = pretrained_on or pretraining(file, file.stem)
    facts = {"source": file.name, "source_sha256": found}
    if stated != NOT_STATED:
        facts[PRETRAINED_ON] = stated
    # One key: the order of several differs from call to call.
    header = {HEADER: canonical_json(facts).decode()}
    from safetensors.torch import save

    image = save(state, metadata=header)
    target.parent.mkdir(parents=True, exist_ok=True)
    if out is not None and target.parent == out:
        for beside in sorted(file.parent.iterdir()):
            if beside.is_file() and beside.name in _BESIDE and not (out / beside.name).exists():
                shutil.copyfile(beside, out / beside.name)
    written = atomic.write_bytes(target, image)
    return Converted(target, len(state), len(image), written, stated)


def _target(file: Path, out: Path | None) -> Path:
    if out is None:
        return file.with_suffix(".safetensors")
    if out.suffix == ".safetensors":
        return out
    if out.suffix in (".pt", ".pth", ".bin", ".ckpt") or out.is_file():
        raise ConfigError(f"--out {out}: expected a .safetensors file or a folder")
    return out / "model.safetensors"


def _tensors(file: Path, image: bytes) -> dict[str, Any]:
    """Read the tensors by name, each with memory of its own, sorted by name."""
    import torch

    try:
        content = torch.load(io.BytesIO(image), map_location="cpu", weights_only=True)
    except Exception as error:  # the reader has no common class for damaged files
        if type(error).__name__ == "UnpicklingError":
            raise UnsupportedError(
                f"{file}: damaged, or holds more than tensors and plain containers; it was refused "
                "before anything in it ran. Ask its publisher for a state dictionary or for "
                ".safetensors."
            ) from None  # the reader's own message tells how to switch the protection off
        raise UnsupportedError(
            f"{file}: not a readable file of weights ({type(error).__name__})"
        ) from error
    for name in _NESTS:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    if not isinstance(content, Mapping):
        raise UnsupportedError(f"{file}: expected tensors by name, found {type(content).__name__}")
    state: dict[str, Any] = {}
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise UnsupportedError(
                f"{file}: expected a tensor under every name, found {type(value).__name__} "
                f"under {str(name)[:80]!r}"
            )
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise UnsupportedError(f"{file}: the tensor {name} holds NaN or infinity")
        state[name] = value.detach().contiguous().clone()
    if not state:
        raise UnsupportedError(f"{file}: holds no tensor")
    for wrapper in _WRAPPERS:
        if all(name.startswith(wrapper) for name in state):
            state = {name.removeprefix(wrapper): value for name, value in state.items()}
    return dict(sorted(state.items()))


__all__ = ["Converted", "convert"]
