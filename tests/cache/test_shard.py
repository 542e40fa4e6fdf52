from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cm2.cache import shard
from cm2.cache.layout import ARRAY_DTYPES
from cm2.errors import IntegrityError

SPACE, NAME = "0123456789ab", "ba9876543210"
VALUES = np.arange(12, dtype=np.float32).reshape(3, 4)
EXPECTED = {"values": "float32"}

arrays = st.dictionaries(
    st.sampled_from(["values", "mask", "ids", "length"]),
    st.sampled_from(ARRAY_DTYPES).flatmap(
        lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=1, max_dims=4, max_side=5))
    ),
    min_size=1,
)


@settings(max_examples=60, deadline=None)
@given(arrays)
def test_arrays_read_back_bit_by_bit(given_arrays: dict[str, np.ndarray]) -> None:
    image = shard.build(given_arrays, SPACE, NAME)
    dtypes = {key: array.dtype.name for key, array in given_arrays.items()}
    read = shard.read(Path("x.h5"), image, SPACE, NAME, dtypes, "")
    assert read.keys() == given_arrays.keys()
    for key, array in given_arrays.items():
        assert read[key].dtype == array.dtype
        assert read[key].shape == array.shape
        assert read[key].tobytes() == array.tobytes()


def test_the_image_is_the_same_at_any_time_and_in_any_process() -> None:
    code = (
        "import numpy as np, hashlib; from cm2.cache import shard;"
        "v = np.arange(12, dtype=np.float32).reshape(3, 4);"
        f"i = shard.build({{'values': v}}, '{SPACE}', '{NAME}');"
        "print(hashlib.sha256(i).hexdigest())"
    )
    image = shard.build({"values": VALUES}, SPACE, NAME)
    time.sleep(1.1)  # a time stamp of HDF5 counts whole seconds
    again = shard.build({"values": np.asfortranarray(VALUES)}, SPACE, NAME)
    swapped = shard.build({"values": VALUES.astype(">f4")}, SPACE, NAME)
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert image == again == swapped
    assert hashlib.sha256(image).hexdigest() == other.stdout.strip()


def test_large_arrays_are_cut_into_chunks_of_a_megabyte_with_checksums() -> None:
    values = np.ones((5000, 512), dtype=np.float32)
    with h5py.File(io.BytesIO(shard.build({"values": values}, SPACE, NAME))) as file:
        assert file["values"].chunks == (512, 512)
        assert file["values"].fletcher32
        assert file["values"].compression is None


def test_two_images_can_be_open_at_once() -> None:
    first = shard.build({"values": VALUES}, SPACE, NAME)
    second = shard.build({"values": VALUES + 1}, SPACE, NAME)
    for image, offset in ((first, 0), (second, 1)):
        read = shard.read(Path("x.h5"), image, SPACE, NAME, EXPECTED, "")
        assert (read["values"] == VALUES + offset).all()


Poison = Callable[[h5py.File, Path], None]


def _dataset(file: h5py.File, **options: object) -> None:
    file.create_dataset("values", data=VALUES, **{"chunks": VALUES.shape, **options})


def _fletcher(file: h5py.File) -> None:
    _dataset(file, fletcher32=True)


def _external_storage(file: h5py.File, folder: Path) -> None:
    (folder / "secret").write_bytes(bytes(48))
    external = [(str(folder / "secret"), 0, 48)]
    file.create_dataset("values", shape=(3, 4), dtype="<f4", external=external)


def _external_link(file: h5py.File, folder: Path) -> None:
    with h5py.File(folder / "other.h5", "w") as other:
        _fletcher(other)
    file["values"] = h5py.ExternalLink(str(folder / "other.h5"), "/values")


def _link_through_a_group(file: h5py.File, folder: Path) -> None:
    with h5py.File(folder / "other.h5", "w") as other:
        _fletcher(other)
    file["inner"] = h5py.ExternalLink(str(folder / "other.h5"), "/")
    file["values"] = h5py.SoftLink("/inner/values")


def _soft_link(file: h5py.File, folder: Path) -> None:
    _fletcher(file)
    file.move("values", "other")
    file["values"] = h5py.SoftLink("/other")


def _virtual(file: h5py.File, folder: Path) -> None:
    with h5py.File(folder / "other.h5", "w") as other:
        _fletcher(other)
    layout = h5py.VirtualLayout((3, 4), "<f4")
    layout[...] = h5py.VirtualSource(str(folder / "other.h5"), "values", (3, 4))
    file.create_virtual_dataset("values", layout)


def _gzip(file: h5py.File, folder: Path) -> None:
    _dataset(file, fletcher32=True, compression="gzip")


def _unknown_filter(file: h5py.File, folder: Path) -> None:
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((3, 4))
    # An optional filter that is not installed is skipped when writing.
    plist.set_filter(32_099, h5py.h5z.FLAG_OPTIONAL)
    space = h5py.h5s.create_simple((3, 4))
    h5py.h5d.create(file.id, b"values", h5py.h5t.IEEE_F32LE, space, plist)


def _no_checksum(file: h5py.File, folder: Path) -> None:
    _dataset(file)


def _contiguous(file: h5py.File, folder: Path) -> None:
    file.create_dataset("values", data=VALUES)


def _many_groups(file: h5py.File, folder: Path) -> None:
    for index in range(10_000):
        file.create_group(f"g{index}")


def _deep_groups(file: h5py.File, folder: Path) -> None:
    _fletcher(file)
    group: h5py.Group = file
    for _ in range(2_000):
        group = group.create_group("g")


def _hard_link_to_the_root(file: h5py.File, folder: Path) -> None:
    _fletcher(file)
    file["loop"] = file["/"]


def _huge_shape(file: h5py.File, folder: Path) -> None:
    file.create_dataset("values", (2**39,), "<f4", chunks=(64,), fletcher32=True)


def _huge_chunk(file: h5py.File, folder: Path) -> None:
    file.create_dataset("values", (1,), "<f4", maxshape=(None,), chunks=(2**29,), fletcher32=True)


def _never_written(file: h5py.File, folder: Path) -> None:
    file.create_dataset("values", (3, 4), "<f4", chunks=(3, 4), fletcher32=True)


def _object_type(file: h5py.File, folder: Path) -> None:
    file.create_dataset("values", (3,), h5py.string_dtype(), chunks=(3,))


def _compound(file: h5py.File, folder: Path) -> None:
    file.create_dataset("values", (3,), [("a", "<f4")], chunks=(3,), fletcher32=True)


def _reference(file: h5py.File, folder: Path) -> None:
    file.create_dataset("values", (3,), h5py.ref_dtype, chunks=(3,), fletcher32=True)


def _other_dtype(file: h5py.File, folder: Path) -> None:
    file.create_dataset("values", data=VALUES.astype("<f8"), chunks=VALUES.shape, fletcher32=True)


def _vlen_attribute(file: h5py.File, folder: Path) -> None:
    _fletcher(file)
    file.attrs["format"] = "cm2.shard"


def _array_attribute(file: h5py.File, folder: Path) -> None:
    _fletcher(file)
    file.attrs["schema_version"] = np.ones(1000, np.int64)


def _long_attribute(file: h5py.File, folder: Path) -> None:
    _fletcher(file)
    file.attrs["format"] = np.bytes_(b"x" * 1000)


def _many_attributes(file: h5py.File, folder: Path) -> None:
    _fletcher(file)
    for index in range(20):
        file.attrs[f"a{index}"] = 1


def _attribute_of_the_data(file: h5py.File, folder: Path) -> None:
    _fletcher(file)
    file["values"].attrs["x"] = 1


def _future(file: h5py.File, folder: Path) -> None:
    _fletcher(file)
    file.attrs["schema_version"] = 2


def _other_space(file: h5py.File, folder: Path) -> None:
    _fletcher(file)
    file.attrs["space"] = np.bytes_(b"f" * 12)


def _one_more_dataset(file: h5py.File, folder: Path) -> None:
    _fletcher(file)
    file["more"] = VALUES


def _nothing(file: h5py.File, folder: Path) -> None:
    return


HOSTILE: list[tuple[Poison, str]] = [
    (_external_storage, "external file"),
    (_external_link, "'values' is a soft or external link"),
    (_link_through_a_group, "'inner' is a soft or external link"),
    (_soft_link, "'values' is a soft or external link"),
    (_virtual, "is virtual"),
    (_gzip, "filters"),
    (_unknown_filter, r"filters \[32099\]"),
    (_no_checksum, r"fletcher32 filter alone, found filters \[\]"),
    (_contiguous, "not chunked"),
    (_many_groups, "at most 16 objects in its root, found 10000"),
    (_deep_groups, "'g' is not a dataset"),
    (_hard_link_to_the_root, "'loop' is not a dataset"),
    (_huge_shape, "more than the file"),
    (_huge_chunk, "more than the file"),
    (_never_written, "claims 48 bytes and stores 0"),
    (_object_type, "objects, text or compound"),
    (_compound, "objects, text or compound"),
    (_reference, "objects, text or compound"),
    (_other_dtype, "expected float32, found float64"),
    (_vlen_attribute, "'format' is neither short text nor a whole number"),
    (_array_attribute, "'schema_version' is not one short value"),
    (_long_attribute, "'format' is not one short value"),
    (_many_attributes, "at most 8 attributes, found 24"),
    (_attribute_of_the_data, "has attributes"),
    (_future, "schema version 2 is newer.*use the cm2 that wrote it"),
    (_other_space, "expected the attributes"),
    (_one_more_dataset, r"expected the datasets \['values'\], found"),
    (_nothing, r"expected the datasets \['values'\], found \[\]"),
]


@pytest.mark.parametrize(("poison", "problem"), HOSTILE, ids=lambda x: getattr(x, "__name__", ""))
def test_hostile_files_are_refused_before_a_byte_of_data_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, poison: Poison, problem: str
) -> None:
    path = tmp_path / "shard.h5"
    with h5py.File(path, "w", libver=("earliest", "v110")) as file:
        for key, text in {"format": "cm2.shard", "space": SPACE, "name": NAME}.items():
            file.attrs[key] = np.bytes_(text.encode())
        file.attrs["schema_version"] = 1
        poison(file, tmp_path)

    def read(*args: object) -> None:
        pytest.fail("data were read")

    monkeypatch.setattr(h5py.Dataset, "__getitem__", read)
    with pytest.raises(IntegrityError, match=rf"shard\.h5 is refused: .*{problem}.*Do this\."):
        shard.read(path, path.read_bytes(), SPACE, NAME, EXPECTED, "Do this.")


def test_a_well_made_file_of_plain_h5py_is_read(tmp_path: Path) -> None:
    """The control of the test above: without the poison the same file is accepted."""
    path = tmp_path / "shard.h5"
    with h5py.File(path, "w", libver=("earliest", "v110")) as file:
        for key, text in {"format": "cm2.shard", "space": SPACE, "name": NAME}.items():
            file.attrs[key] = np.bytes_(text.encode())
        file.attrs["schema_version"] = 1
        _fletcher(file)
    read = shard.read(path, path.read_bytes(), SPACE, NAME, EXPECTED, "")
    assert (read["values"] == VALUES).all()


def test_no_file_of_hdf5_and_cut_files_are_refused(small: ModuleType) -> None:
    image = shard.build({"values": VALUES}, SPACE, NAME)
    for data in (b"", b"\x89HDF\r\n\x1a\n", b"x" * 3000, image[:100], image[: len(image) // 2]):
        with pytest.raises(IntegrityError, match="is refused"):
            shard.read(Path("x.h5"), data, SPACE, NAME, EXPECTED, "")


def test_fletcher32_finds_flipped_data_even_without_the_hash() -> None:
    image = shard.build({"values": VALUES}, SPACE, NAME)
    begin = image.index(VALUES.tobytes())
    for bit in range(0, VALUES.nbytes * 8, 5):
        flipped = bytearray(image)
        flipped[begin + bit // 8] ^= 1 << bit % 8
        with pytest.raises(IntegrityError, match="cannot read it"):
            shard.read(Path("x.h5"), bytes(flipped), SPACE, NAME, EXPECTED, "")
