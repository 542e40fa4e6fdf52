"""Weights and state in one safetensors file that carries its own hash.

A checkpoint is one file, so writing it is one commit. The header's metadata hold, in this order,
64 hexadecimal digits and a JSON text; the digits are the SHA-256 of the whole file with zeros in
their place. Any reader of safetensors can open it, and every altered bit is found.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import safetensors
from safetensors import SafetensorError

from ..errors import ConfigError, IntegrityError
from . import atomic
from .fingerprint import canonical_json
from .layout import CHECKPOINT_FORMAT, SCHEMA_VERSION

if TYPE_CHECKING:
    from torch import Tensor

_PREFIX = b'{"__metadata__":{"cm2":"'
_DIGEST = slice(8 + len(_PREFIX), 8 + len(_PREFIX) + 64)
_ZEROS = b"0" * 64
_REMEDY = "Delete it and run the command that made it again."
_NUMPY = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}
_NAMES = {dtype: name for name, dtype in _NUMPY.items()}


class _Entry(NamedTuple):
    dtype: str  # as safetensors spells it
    shape: tuple[int, ...]
    data: bytes


def save(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, object]) -> str:
    """Write tensors and what belongs to them as one file, whole or not at all.

    Args:
        path: Final name, `*.safetensors`.
        tensors: Name -> tensor of any device and any dtype of safetensors; copied as they are.
        meta: JSON-able. The key "non_finite", a list of names, allows NaN or infinity in those
            tensors (log 0 of a padded mixture component, say); everywhere else they are refused.

    Returns:
        SHA-256 of the checkpoint's content; equal tensors and meta give equal bytes.

    Raises:
        IntegrityError: A tensor outside "non_finite" holds NaN or infinity.
        ConfigError: `meta` holds what JSON cannot, or a dtype cannot be stored.
        ResourceError: The file cannot be written; nothing is left behind.
    """
    import torch

    entries = {}
    for name, tensor in tensors.items():
        plain = tensor.detach().to("cpu").contiguous()
        if plain.dtype == torch.bfloat16:
            kind, raw = "BF16", plain.view(torch.int16).numpy()
        else:
            raw = plain.numpy()
            kind = _kind(name, raw.dtype.name)
        entries[name] = _Entry(kind, tuple(plain.shape), _little(raw))
        if plain.is_floating_point() and not bool(torch.isfinite(plain).all()):
            _require_allowed(path, name, meta, "Reduce the learning rate or look at the input")
    data, digest = _assemble(entries, meta)
    atomic.write_bytes(path, data)
    return digest


def load(path: Path, remedy: str = _REMEDY) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a checkpoint; nothing in it is executed.

    Args:
        path: A file of `save`.
        remedy: The command that repairs it, for the message.

    Returns:
        Tensors on the CPU, by name, and the meta.

    Raises:
        IntegrityError: Missing, altered in any bit, of a newer schema, or not finite where it
            must be.
    """
    import torch

    data = atomic.read_bytes(path, remedy)
    entries, meta = _disassemble(path, data, remedy)
    tensors: dict[str, Tensor] = {}
    for name, entry in entries.items():
        buffer = bytearray(entry.data)
        dtype = torch.bfloat16 if entry.dtype == "BF16" else getattr(torch, _NUMPY[entry.dtype])
        flat = torch.frombuffer(buffer, dtype=dtype) if buffer else torch.empty(0, dtype=dtype)
        tensors[name] = flat.reshape(entry.shape)
        if dtype.is_floating_point and not bool(torch.isfinite(tensors[name]).all()):
            _require_allowed(path, name, meta, remedy)
    return tensors, meta


def read_meta(path: Path, remedy: str = _REMEDY) -> dict[str, Any]:
    """Verify a checkpoint and return its meta alone; needs no torch."""
    return _disassemble(path, atomic.read_bytes(path, remedy), remedy)[1]


def encode(arrays: Mapping[str, np.ndarray], meta: Mapping[str, object]) -> tuple[bytes, str]:
    """Bytes of a checkpoint of numpy arrays, and its hash."""
    entries = {
        name: _Entry(_kind(name, array.dtype.name), array.shape, _little(array))
        for name, array in arrays.items()
    }
    return _assemble(entries, meta)


def decode(path: Path, data: bytes, remedy: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and meta from the bytes of a checkpoint read from `path`.

    Raises:
        IntegrityError: As for `load`.
    """
    entries, meta = _disassemble(path, data, remedy)
    if any(entry.dtype not in _NUMPY for entry in entries.values()):
        raise IntegrityError(f"{path} holds bfloat16, which numpy cannot. {remedy}")
    arrays = {
        name: np.frombuffer(entry.data, dtype=_NUMPY[entry.dtype]).reshape(entry.shape)
        for name, entry in entries.items()
    }
    return arrays, meta


def _assemble(entries: Mapping[str, _Entry], meta: Mapping[str, object]) -> tuple[bytes, str]:
    note = canonical_json(
        {"format": CHECKPOINT_FORMAT, "schema_version": SCHEMA_VERSION, "meta": dict(meta)}
    ).decode()
    header: dict[str, object] = {"__metadata__": {"cm2": _ZEROS.decode() + note}}
    # Widest first keeps every tensor aligned without holes, which safetensors forbids.
    order = sorted(entries, key=lambda name: (-_width(entries[name]), name))
    end = 0
    for name in order:
        if name == "__metadata__":
            raise ConfigError("A tensor cannot be named '__metadata__'.")
        entry = entries[name]
        begin, end = end, end + len(entry.data)
        header[name] = {
            "dtype": entry.dtype,
            "shape": list(entry.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    body = bytearray(len(text).to_bytes(8, "little") + text)
    for name in order:
        body += entries[name].data
    digest = hashlib.sha256(body).hexdigest()
    body[_DIGEST] = digest.encode()
    return bytes(body), digest


def _disassemble(path: Path, data: bytes, remedy: str) -> tuple[dict[str, _Entry], dict[str, Any]]:
    if data[8 : _DIGEST.start] != _PREFIX:
        raise IntegrityError(f"{path} is no checkpoint of cm2. {remedy}")
    blanked = hashlib.sha256(data[: _DIGEST.start] + _ZEROS)
    blanked.update(memoryview(data)[_DIGEST.stop :])
    if blanked.hexdigest().encode() != data[_DIGEST]:
        raise IntegrityError(f"{path} is not what was written: its hash does not match. {remedy}")
    try:
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        note = json.loads(header["__metadata__"]["cm2"][64:])
        found = {
            name: _Entry(item["dtype"], tuple(item["shape"]), bytes(item["data"]))
            for name, item in safetensors.deserialize(data)  # type: ignore[no-untyped-call]
        }
        meta = dict(note["meta"])
        if any(math.prod(e.shape) * _width(e) != len(e.data) for e in found.values()):
            raise ValueError("a tensor does not fill its shape")
        known, version = note["format"] == CHECKPOINT_FORMAT, int(note["schema_version"])
    except (ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
        raise IntegrityError(f"{path} is no checkpoint of cm2: {error}. {remedy}") from error
    if not known or version > SCHEMA_VERSION:
        raise IntegrityError(
            f"{path} has schema version {version}, this cm2 knows {SCHEMA_VERSION}. Use the cm2 "
            "that wrote it, or a newer one."
        )
    return found, meta


def _require_allowed(path: Path, name: str, meta: Mapping[str, Any], advice: str) -> None:
    allowed = meta.get("non_finite", ())
    if name not in allowed:
        raise IntegrityError(
            f"{path}: tensor {name!r} holds NaN or infinity, which is allowed only in "
            f"{list(allowed)}. {advice}"
        )


def _kind(name: str, dtype: str) -> str:
    if dtype not in _NAMES:
        raise ConfigError(f"Tensor {name!r}: a checkpoint cannot hold {dtype}.")
    return _NAMES[dtype]


def _width(entry: _Entry) -> int:
    return 2 if entry.dtype == "BF16" else np.dtype(_NUMPY[entry.dtype]).itemsize


def _little(array: np.ndarray) -> bytes:
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).tobytes()
