"""Where the weights of an encoder come from: a file that the user names, or a recorded seed.

Weights are named, never guessed, never fetched by the way, and never unpickled here.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ...cache.atomic import sha256_file
from ...cache.fingerprint import fingerprint
from ...cache.layout import RUN_BEST
from ...errors import ConfigError, UnsupportedError, quoted
from . import hub, pretraining
from .trained import Trained, is_run

if TYPE_CHECKING:
    from torch import Tensor, nn

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_RANDOM = "random:"
_PART = re.compile(r"[\w.-]+\.safetensors")
_SHOWN_KEYS = 5


@dataclass(frozen=True)
class Weights:
    """What `--weights` says for one modality: a seed, or a file or folder.

    Args:
        modality: The modality whose encoder takes them.
        seed: Start from this seed; None when `path` is given.
        path: A .safetensors file, or a folder with config.json and model.safetensors, or with the
            parts that model.safetensors.index.json lists.
        reference: The model of the hub that `path` is the offline copy of; None for own files.
    """

    modality: str
    seed: int | None = None
    path: Path | None = None
    reference: hub.HubReference | None = None

    @property
    def note(self) -> str:
        """One line for tables and reports, without the folder."""
        if self.reference is not None:
            return str(self.reference)
        if self.of_run and self.path is not None:
            return f"run {self.path.resolve().name}"
        return f"{_RANDOM}{self.seed}" if self.path is None else self.path.name

    @property
    def random(self) -> bool:
        """Whether nothing was learnt."""
        return self.path is None

    @property
    def pretrained_on(self) -> str:
        """What the weights have learnt from, as far as their files say."""
        if self.path is None:
            return "nothing"
        if self.of_run:
            return f"the training stays of a run of cm2, task {self.trained.task}"
        name = self.path.name if self.reference is None else self.reference.id
        return pretraining.pretraining(self.path, name)

    @property
    def provenance(self) -> dict[str, object]:
        """What a store records of its weights; part of no identity."""
        facts: dict[str, object] = {
            "weights": self.note,
            "random_weights": self.random,
            "pretrained_on": self.pretrained_on,
            "caution": self.caution,
        }
        if self.reference is not None:
            facts["commit"] = self.reference.commit()
        if self.of_run:
            facts["training_subjects"] = list(self.trained.subjects)
        return facts

    @property
    def of_run(self) -> bool:
        """Whether they are those of an encoder that a run of cm2 has trained."""
        return self.path is not None and is_run(self.path)

    @cached_property
    def trained(self) -> Trained:
        """The encoder of the run."""
        assert self.path is not None
        return Trained.open(self.path, self.modality)

    @property
    def space_parts(self) -> dict[str, object]:
        """What a space holds of them beside their hash: whom a run was trained on."""
        return self.trained.space_parts if self.of_run else {}

    @property
    def caution(self) -> str:
        """A warning for weights that may have seen MIMIC before; "" when there is none."""
        if self.path is None:
            return ""
        return pretraining.caution(f"{self.modality} ({self.note})", self.pretrained_on)

    def files(self) -> list[Path]:
        """Everything that decides what the weights are: to look whether they have changed."""
        if self.path is None:
            return []
        if self.path.is_file():
            return [self.path]
        if self.of_run:
            return [self.file()]
        found = sorted(child for child in self.path.iterdir() if child.is_file())
        if self.reference is not None:
            branch = self.reference.folder / "refs" / self.reference.revision
            found += [branch] if branch.is_file() else []
        return found

    def sha256(self) -> str:
        """SHA-256 of the file; of parts, that of their names and hashes."""
        parts = self.parts()
        hashes = {part.name: sha256_file(part) for part in parts}
        return hashes[parts[0].name] if len(parts) == 1 else fingerprint(hashes)

    def state(self) -> dict[str, Tensor]:
        """Read every tensor.

        Raises:
            ConfigError: A file is damaged, holds NaN or infinity, or two parts hold one tensor.
        """
        state: dict[str, Tensor] = {}
        for part in self.parts():
            found = read_state(part)
            twice = sorted(set(found) & set(state))
            if twice:
                raise ConfigError(f"{part}: the tensor {twice[0]} stands in another part too")
            state |= found
        return state

    def parts(self) -> list[Path]:
        """The .safetensors files, one or as many as the index of the folder lists.

        Raises:
            ConfigError: One does not exist, or the index cannot be read.
            UnsupportedError: They are of another kind; pickled weights are never opened.
        """
        folder = self.path
        if folder is None or not (folder / INDEX).is_file() or (folder / SINGLE).is_file():
            return [self.file()]
        index = folder / INDEX
        try:
            listed = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
            names = sorted(set(listed))
            if not names or not all(_PART.fullmatch(name) for name in names):
                raise ValueError("no file of this folder")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"{index}: expected a weight_map from tensors to .safetensors files of its folder, "
                "found something else. Download it again."
            ) from error
        lost = [name for name in names if not (folder / name).is_file()]
        if lost:
            raise ConfigError(
                f"{index}: {len(lost)} of the {len(names)} files that it lists are not there, "
                f"first {lost[0]}. Download the whole folder."
            )
        return [folder / name for name in names]

    def file(self) -> Path:
        """The one .safetensors file.

        Raises:
            ConfigError: It does not exist.
            UnsupportedError: It is of another kind; pickled weights are never opened.
        """
        if self.path is None:
            raise ConfigError(f"{self.modality}: {self.note} names no file of weights")
        if self.of_run:
            return self.trained.path / RUN_BEST
        file = self.path / SINGLE if self.path.is_dir() else self.path
        if not file.is_file():
            raise ConfigError(
                f"{self.modality}: expected a .safetensors file or a folder with config.json and "
                f"model.safetensors at {self.path}, found "
                + ("no such file or folder" if file == self.path else f"no {file.name} in it")
                + _pickled(self.path)
            )
        if file.suffix != ".safetensors":
            raise UnsupportedError(
                f"{file}: expected weights as .safetensors, found {file.suffix or 'no ending'}. "
                "Pickled weights (.pt, .pth, .bin) can run code when opened and are never read "
                f"here; convert them once: cm2 weights convert {quoted(file)} --sha256 …"
            )
        return file


def _pickled(folder: Path) -> str:
    """How to go on where a folder holds pickled weights only."""
    for name in ("pytorch_model.bin", "model.pt", "model.pth"):
        if (folder / name).is_file():
            return (
                f", but {name}: convert it once with cm2 weights convert {quoted(folder / name)} "
                "--sha256 … --out FOLDER"
            )
    return ""


def choose(
    given: Sequence[str], modality: str, encoded: Sequence[str], *, synthetic: bool
) -> Weights:
    """Find the weights for one modality among the values of `--weights`.

    Args:
        given: `[MODALITY=]PATH`, `hub:ID@REV` or `random:SEED`, as the user wrote them.
        modality: The modality to encode.
        encoded: All modalities of this call that have an encoder.
        synthetic: Whether the data are the synthetic demo, the only ones that need no weights.

    Raises:
        ConfigError: None given for real data, two given, a name without an encoder, no such path.
    """
    named: dict[str, list[str]] = {}
    for word in given:
        name, equals, value = word.partition("=")
        if equals and "/" not in name and not Path(word).exists():
            named.setdefault(name, []).append(value)
        else:
            named.setdefault("", []).append(word)
    of_series = {n for n, runs in named.items() if all(is_run(Path(r).expanduser()) for r in runs)}
    unknown = sorted(set(named) - {*encoded, ""} - of_series)
    if unknown:
        raise ConfigError(
            f"--weights {unknown[0]}=…: no encoder of that name in this call; expected one of "
            f"{', '.join(encoded)}"
        )
    plain = named.get("", [])
    values = named.get(modality) or plain
    if not values:
        if synthetic:
            return Weights(modality, seed=0)
        raise ConfigError(
            f"{modality}: its encoder has no weights. Give --weights {modality}=PATH (a "
            f".safetensors file, or a folder with config.json and model.safetensors), "
            f"{modality}=hub:ID@REVISION (of the offline cache), or "
            f"--weights {modality}=random:0 to say that it shall know nothing."
        )
    if len(values) > 1:
        raise ConfigError(f"--weights: {len(values)} values for {modality}; expected one")
    value = values[0]
    if value.startswith(_RANDOM):
        digits = value.removeprefix(_RANDOM)
        if not digits.isdecimal():
            raise ConfigError(f"--weights {value}: expected random:SEED with a whole number")
        return Weights(modality, seed=int(digits))
    if values is plain and len(encoded) > 1:
        raise ConfigError(
            f"--weights {value}: {len(encoded)} modalities have an encoder in this call; write "
            + " or ".join(f"{name}={value}" for name in encoded)
        )
    if value.startswith(hub.PREFIX):
        reference = hub.HubReference.parse(value)
        weights = Weights(modality, path=reference.snapshot(), reference=reference)
    else:
        weights = Weights(modality, path=Path(value).expanduser())
    weights.parts()
    return weights


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run a block with torch's CPU generator at `seed`, and put it back afterwards."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def state_sha256(module: nn.Module) -> str:
    """SHA-256 over names, types, shapes and bytes of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a .safetensors file.

    Raises:
        ConfigError: It is damaged, or holds NaN or infinity.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ConfigError(
            f"{path}: not a readable .safetensors file. Download or convert it again."
        ) from error
    for name, tensor in state.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise ConfigError(f"{path}: the tensor {name} holds NaN or infinity")
    return state


def assign(module: nn.Module, state: Mapping[str, Tensor], heads: Sequence[str], what: str) -> None:
    """Load weights whose names and shapes fit exactly.

    Args:
        module: The encoder without its classifier.
        state: Weights by name.
        heads: Prefixes of weights that belong to a classifier or another head, and are left out.
        what: File and architecture, for the message.

    Raises:
        ConfigError: Weights are missing, left over, or of another shape; the message lists them.
    """
    wanted = module.state_dict()
    found = {name: t for name, t in state.items() if not name.startswith(tuple(heads))}
    optional = {name for name in wanted if name.endswith(("num_batches_tracked", "position_ids"))}
    problems = {
        "missing": sorted(set(wanted) - set(found) - optional),
        "left over": sorted(set(found) - set(wanted)),
        "of another shape": [
            f"{name} {tuple(found[name].shape)} instead of {tuple(wanted[name].shape)}"
            for name in sorted(set(wanted) & set(found))
            if found[name].shape != wanted[name].shape
        ],
    }
    if any(problems.values()):
        parts = [
            f"{len(names)} {kind} ({', '.join(names[:_SHOWN_KEYS])}"
            + (", …)" if len(names) > _SHOWN_KEYS else ")")
            for kind, names in problems.items()
            if names
        ]
        raise ConfigError(
            f"{what}: the weights do not fit: {'; '.join(parts)}. Are they of another encoder?"
        )
    module.load_state_dict({**{name: wanted[name] for name in optional}, **found})


__all__ = ["INDEX", "SINGLE", "Weights", "assign", "choose", "read_state", "seeded", "state_sha256"]
