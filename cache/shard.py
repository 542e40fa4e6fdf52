"""One shard: an immutable HDF5 image, built in memory, audited before a byte of data is read.

The image is flat: chunked datasets with fletcher32 in the root (of pixels contiguous ones without
any filter, which can be mapped into memory), scalar attributes, no links, no other filter, no
object types. Whatever else a file holds is refused, not interpreted.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from ..errors import IntegrityError
from .layout import ARRAY_DTYPES, SCHEMA_VERSION, SHARD_FORMAT

CHUNK_BYTES = 1 << 20
_MAX_OBJECTS = 16
_MAX_ATTRIBUTES = 8
_MAX_ATTRIBUTE_BYTES = 256
_FAILURES = (OSError, RuntimeError, ValueError, KeyError, TypeError, OverflowError, MemoryError)


def build(
    arrays: Mapping[str, np.ndarray], space: str, name: str, *, contiguous: bool = False
) -> bytes:
    """Make the bytes of a shard; equal arrays give equal bytes at any time on any machine.

    Args:
        arrays: Name -> array [n, ...] with n >= 1 and a dtype of `ARRAY_DTYPES`.
        space: Id of the space, 12 digits.
        name: Name of the shard, 12 digits.
        contiguous: Whether the data lie in one piece each, unchecked by HDF5.
    """
    # HDF5 takes two in-memory files of one name for the same file, hence the random name, which
    # does not enter the image.
    with h5py.File(
        uuid.uuid4().hex, "w", driver="core", backing_store=False, libver=("earliest", "v110")
    ) as file:
        for key in sorted(arrays):
            data = np.ascontiguousarray(arrays[key])
            data = data.astype(_stored(data.dtype.name).newbyteorder("<"), copy=False)
            row_bytes = max(1, data.nbytes // len(data))
            rows = max(1, min(len(data), CHUNK_BYTES // row_bytes))
            chunked = {"chunks": (rows, *data.shape[1:]), "fletcher32": True}
            how = {} if contiguous else chunked
            file.create_dataset(key, data=data, track_times=False, **how)
        attributes = {"format": SHARD_FORMAT, "space": space, "name": name}
        for key, text in attributes.items():
            file.attrs.create(key, np.bytes_(text.encode()))
        file.attrs.create("schema_version", np.int64(SCHEMA_VERSION))
        file.flush()
        image: bytes = file.id.get_file_image()
        return image


def read(
    path: Path,
    image: bytes,
    space: str,
    name: str,
    dtypes: Mapping[str, str],
    remedy: str,
    *,
    contiguous: bool = False,
) -> dict[str, np.ndarray]:
    """Audit an image, then read all its arrays.

    Args:
        path: Where the image came from, for messages only.
        image: The whole file; its SHA-256 has been compared by the caller.
        space: Expected id of the space.
        name: Expected name of the shard.
        dtypes: Expected datasets: name -> dtype.
        remedy: The command that repairs the shard.
        contiguous: Whether the data were built so.

    Raises:
        IntegrityError: The file is not such an image, or holds more than one may hold.
    """
    with _opened(path, image, space, name, dtypes, remedy, contiguous=contiguous) as file:
        return {
            key: np.asarray(file[key][...]).astype(dtype, copy=False)
            for key, dtype in dtypes.items()
        }


def offsets(
    path: Path, image: bytes, space: str, name: str, dtypes: Mapping[str, str], remedy: str
) -> dict[str, tuple[int, tuple[int, ...]]]:
    """Audit a contiguous image, then tell where in the file each array lies: offset, shape.

    Raises:
        IntegrityError: As for `read`.
    """
    with _opened(path, image, space, name, dtypes, remedy, contiguous=True) as file:
        return {key: (file[key].id.get_offset(), file[key].shape) for key in dtypes}


@contextmanager
def _opened(
    path: Path,
    image: bytes,
    space: str,
    name: str,
    dtypes: Mapping[str, str],
    remedy: str,
    *,
    contiguous: bool,
) -> Iterator[h5py.File]:
    """An audited image; whatever HDF5 cannot read is an IntegrityError."""
    try:
        access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
        access.set_fapl_core(backing_store=False)
        access.set_file_image(image)
        file = h5py.h5f.open(uuid.uuid4().hex.encode(), h5py.h5f.ACC_RDONLY, access)
        with h5py.File(file) as opened:
            root = h5py.h5g.open(file, b"/")
            problem = _audit(root, len(image), space, name, dtypes, contiguous)
            if problem is None:
                yield opened
                return
    except _FAILURES as error:
        problem = f"HDF5 cannot read it ({type(error).__name__})"
    raise IntegrityError(f"{path} is refused: {problem}. {remedy}")


def _stored(dtype: str) -> np.dtype:
    """HDF5 has no plain truth values; they are stored as bytes."""
    return np.dtype(np.uint8 if dtype == "bool" else dtype)


def _audit(
    root: h5py.h5g.GroupID,
    size: int,
    space: str,
    name: str,
    dtypes: Mapping[str, str],
    contiguous: bool,
) -> str | None:
    """Say what is wrong with an open image, or None; reads headers, never data."""
    count = root.get_num_objs()
    if count > _MAX_OBJECTS:
        return f"expected at most {_MAX_OBJECTS} objects in its root, found {count}"
    wrong = _audit_attributes(root, space, name)
    if wrong is not None:
        return wrong
    found = [root.get_objname_by_idx(i) for i in range(count)]
    for key in found:
        # Asked of the link itself, before anything follows it.
        if root.links.get_info(key).type != h5py.h5l.TYPE_HARD:
            return f"{key.decode(errors='replace')!r} is a soft or external link"
        if h5py.h5o.get_info(root, key).type != h5py.h5o.TYPE_DATASET:
            return f"{key.decode(errors='replace')!r} is not a dataset"
    if sorted(found) != sorted(key.encode() for key in dtypes):
        names = [key.decode(errors="replace") for key in sorted(found)]
        return f"expected the datasets {sorted(dtypes)}, found {names}"
    total = 0
    for key, dtype in dtypes.items():
        dataset = h5py.h5d.open(root, key.encode())
        wrong = _audit_dataset(dataset, dtype, size, contiguous)
        if wrong is not None:
            return f"dataset {key!r} {wrong}"
        total += math.prod(dataset.get_space().get_simple_extent_dims()) * _stored(dtype).itemsize
    return f"it claims {total} bytes of data in {size}" if total > size else None


def _audit_dataset(
    dataset: h5py.h5d.DatasetID, dtype: str, size: int, contiguous: bool
) -> str | None:
    # Creation properties first: asking a virtual dataset for its extent may open other files.
    plist = dataset.get_create_plist()
    if plist.get_layout() == h5py.h5d.VIRTUAL:
        return "is virtual: its data lie in other files"
    if plist.get_external_count() > 0:
        return "keeps its data in an external file"
    kind = dataset.get_type()
    if kind.get_class() not in (h5py.h5t.INTEGER, h5py.h5t.FLOAT):
        return "holds objects, text or compound values instead of numbers"
    if dtype not in ARRAY_DTYPES or kind.dtype != _stored(dtype):
        return f"expected {dtype}, found {kind.dtype}"
    if plist.get_layout() != (h5py.h5d.CONTIGUOUS if contiguous else h5py.h5d.CHUNKED):
        return f"is not {'contiguous' if contiguous else 'chunked'}"
    filters = [plist.get_filter(i)[0] for i in range(plist.get_nfilters())]
    if filters != ([] if contiguous else [h5py.h5z.FILTER_FLETCHER32]):
        wanted = "no filter" if contiguous else "the fletcher32 filter alone"
        return f"expected {wanted}, found filters {filters}"
    if h5py.h5a.get_num_attrs(dataset) != 0:
        return "has attributes"
    space = dataset.get_space()
    if space.get_simple_extent_type() != h5py.h5s.SIMPLE:
        return "has no simple shape"
    shape = space.get_simple_extent_dims()
    itemsize = _stored(dtype).itemsize
    claimed = math.prod(shape) * itemsize
    chunk = () if contiguous else plist.get_chunk()
    if claimed > size or math.prod(chunk) * itemsize > size:
        return f"claims the shape {shape}, more than the file of {size} bytes can hold"
    if dataset.get_storage_size() < claimed:
        return f"claims {claimed} bytes and stores {dataset.get_storage_size()}"
    return None


def _audit_attributes(root: h5py.h5g.GroupID, space: str, name: str) -> str | None:
    count = h5py.h5a.get_num_attrs(root)
    if count > _MAX_ATTRIBUTES:
        return f"expected at most {_MAX_ATTRIBUTES} attributes, found {count}"
    values: dict[str, str | int] = {}
    for index in range(count):
        attribute = h5py.h5a.open(root, index=index)
        kind = attribute.get_type()
        key = attribute.name.decode(errors="replace")
        text = kind.get_class() == h5py.h5t.STRING and not kind.is_variable_str()
        if not text and kind.get_class() != h5py.h5t.INTEGER:
            return f"attribute {key!r} is neither short text nor a whole number"
        scalar = attribute.get_space().get_simple_extent_type() == h5py.h5s.SCALAR
        if not scalar or kind.get_size() > _MAX_ATTRIBUTE_BYTES:
            return f"attribute {key!r} is not one short value"
        value = np.empty((), dtype=kind.dtype)
        attribute.read(value)
        values[key] = value.item().decode(errors="replace") if text else int(value)
    version = values.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        return (
            f"its schema version {version} is newer than the {SCHEMA_VERSION} this cm2 knows; "
            "use the cm2 that wrote it, or a newer one"
        )
    expected = {
        "format": SHARD_FORMAT,
        "schema_version": SCHEMA_VERSION,
        "space": space,
        "name": name,
    }
    return None if values == expected else f"expected the attributes {expected}, found {values}"
