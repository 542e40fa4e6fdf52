from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cm2.cache import checkpoint
from cm2.errors import ConfigError, IntegrityError

DTYPES = ("float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")
META = {"epoch": 3, "note": 'é "quoted" \\ \u001f', "list": [1.5, None, True]}


def _tensors() -> dict[str, torch.Tensor]:
    return {
        "weight": torch.arange(6, dtype=torch.float32).reshape(2, 3),
        "flag": torch.tensor([True, False, True]),
        "step": torch.tensor(7),
        "empty": torch.zeros((0, 4)),
        "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    }


def _same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(
        a[k].dtype == b[k].dtype and a[k].shape == b[k].shape and torch.equal(a[k], b[k]) for k in a
    )


def _rehash(data: bytes) -> bytes:
    """Give altered bytes a hash that fits, as someone would who wants to harm."""
    body = bytearray(data)
    place = checkpoint._DIGEST
    body[place] = b"0" * 64
    body[place] = hashlib.sha256(body).hexdigest().encode()
    return bytes(body)


def _with_header(header: str, data: bytes = b"") -> bytes:
    text = header.encode()
    return _rehash(len(text).to_bytes(8, "little") + text + data)


def _note(**change: object) -> str:
    note = {"format": "cm2.checkpoint", "schema_version": 1, "meta": {}, **change}
    return '{"__metadata__":{"cm2":' + json.dumps("0" * 64 + json.dumps(note)) + "}"


def test_tensors_and_meta_read_back(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    digest = checkpoint.save(path, _tensors(), META)
    tensors, meta = checkpoint.load(path)
    assert _same(tensors, _tensors())
    assert meta == checkpoint.read_meta(path) == META
    assert len(digest) == 64
    tensors["weight"] += 1  # what is loaded may be written to
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]


@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8"), max_size=8).filter(lambda n: n != "__metadata__"),
        st.sampled_from(DTYPES).flatmap(
            lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0, max_side=4))
        ),
    )
)
def test_any_arrays_read_back_bit_by_bit(arrays: dict[str, np.ndarray]) -> None:
    data, _ = checkpoint.encode(arrays, {"n": 1})
    read, meta = checkpoint.decode(Path("x"), data, "")
    assert meta == {"n": 1}
    assert read.keys() == arrays.keys()
    for name, array in arrays.items():
        assert (read[name].dtype, read[name].shape) == (array.dtype, array.shape)
        assert read[name].tobytes() == array.tobytes()


def test_any_reader_of_safetensors_can_open_it(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    checkpoint.save(path, _tensors(), META)
    assert _same(safetensors.torch.load_file(path), _tensors())


def test_equal_content_gives_equal_bytes_whatever_order_and_layout(tmp_path: Path) -> None:
    tensors = _tensors()
    turned = dict(reversed(list(tensors.items())))
    turned["weight"] = tensors["weight"].t().contiguous().t()
    turned["step"] = torch.arange(9)[7]  # a view of a larger storage
    digests = {
        checkpoint.save(tmp_path / "a", tensors, {"a": 1, "b": 2}),
        checkpoint.save(tmp_path / "b", turned, {"b": 2, "a": 1}),
    }
    assert len(digests) == 1
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_format_is_fixed_for_ever(tmp_path: Path) -> None:
    digest = checkpoint.save(tmp_path / "x", {"w": torch.ones(2)}, {"epoch": 1})
    assert digest == "6ea603ab3aaa48e66ed5f7b31fee378bec15a6441a225d04a953f430f9674528"
    header = (tmp_path / "x").read_bytes()[8:]
    assert header.startswith(b'{"__metadata__":{"cm2":"' + digest.encode())


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    checkpoint.save(path, {"w": torch.ones(3), "s": torch.tensor(1)}, META)
    data = path.read_bytes()
    for bit in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with pytest.raises(IntegrityError, match=r"x\.safetensors.*Train again\."):
            checkpoint.load(path, "Train again.")


def test_every_cut_is_found(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    checkpoint.save(path, {"w": torch.ones(3)}, {})
    data = path.read_bytes()
    for size in range(0, len(data), 5):
        path.write_bytes(data[:size])
        with pytest.raises(IntegrityError):
            checkpoint.load(path)
    path.write_bytes(data + b"\0")
    with pytest.raises(IntegrityError):
        checkpoint.load(path)


def test_a_plain_file_of_safetensors_is_no_checkpoint(tmp_path: Path) -> None:
    safetensors.torch.save_file({"w": torch.ones(3)}, tmp_path / "x.safetensors")
    with pytest.raises(IntegrityError, match="no checkpoint of cm2"):
        checkpoint.load(tmp_path / "x.safetensors")


def test_a_missing_file_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match=r"is missing\. Train again\."):
        checkpoint.load(tmp_path / "x", "Train again.")


_F32 = '"dtype":"F32","shape":[1]'


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (_with_header(_note() + f',"w":{{{_F32},"data_offsets":[0,8]}}}}', bytes(8)), "checkpoint"),
        (_with_header(_note() + f',"w":{{{_F32},"data_offsets":[4,8]}}}}', bytes(8)), "checkpoint"),
        (
            _with_header(
                _note()
                + f',"v":{{{_F32},"data_offsets":[0,4]}},"w":{{{_F32},"data_offsets":[2,6]}}}}',
                bytes(6),
            ),
            "checkpoint",
        ),
        (
            _with_header(
                _note() + ',"w":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1]}}', b"0"
            ),
            "checkpoint",
        ),
        (_with_header(_note(schema_version=2) + "}"), "schema version 2, this cm2 knows 1"),
        (_with_header(_note(format="other") + "}"), "schema version"),
        (_with_header(_note(meta=3) + "}"), "checkpoint"),
        (_rehash((1 << 62).to_bytes(8, "little") + (_note() + "}").encode()), "checkpoint"),
        (_with_header(_note() + ',"w":' + "[" * 100_000), "checkpoint"),
    ],
    ids=["short", "hole", "overlap", "dtype", "future", "format", "meta", "huge", "nested"],
)
def test_hostile_files_with_a_fitting_hash_are_refused(
    tmp_path: Path, data: bytes, message: str
) -> None:
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(IntegrityError, match=message):
        checkpoint.load(tmp_path / "x")


def test_the_control_of_the_hostile_files_is_read(tmp_path: Path) -> None:
    header = _note() + f',"w":{{{_F32},"data_offsets":[0,4]}}}}'
    (tmp_path / "x").write_bytes(_with_header(header, np.float32(2).tobytes()))
    assert checkpoint.load(tmp_path / "x")[0]["w"].tolist() == [2.0]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_not_finite_is_neither_saved_nor_loaded_unless_named(
    tmp_path: Path, value: float, dtype: torch.dtype
) -> None:
    path = tmp_path / "x"
    tensors = {"good": torch.ones(1), "bad": torch.tensor([1.0, value], dtype=dtype)}
    with pytest.raises(IntegrityError, match="'bad' holds NaN or infinity"):
        checkpoint.save(path, tensors, {})
    with pytest.raises(IntegrityError, match="'bad' holds NaN or infinity"):
        checkpoint.save(path, tensors, {"non_finite": ["good"]})
    assert not path.exists()
    checkpoint.save(path, tensors, {"non_finite": ["bad"]})
    assert not checkpoint.load(path)[0]["bad"].isfinite().all()
    path.write_bytes(_rehash(path.read_bytes().replace(b'[\\"bad\\"]', b'[\\"ba_\\"]')))
    with pytest.raises(IntegrityError, match="'bad' holds NaN or infinity"):
        checkpoint.load(path)


def test_what_cannot_be_stored_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="complex64"):
        checkpoint.save(tmp_path / "x", {"w": torch.ones(1, dtype=torch.complex64)}, {})
    with pytest.raises(ConfigError, match="__metadata__"):
        checkpoint.save(tmp_path / "x", {"__metadata__": torch.ones(1)}, {})
    with pytest.raises(ConfigError, match="finite"):
        checkpoint.save(tmp_path / "x", {}, {"best": float("nan")})
    assert not (tmp_path / "x").exists()
