"""Stores of pixels: mapped into memory after one check, never mistaken for vectors."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow as pa
import pytest

from cm2.cache import shard
from cm2.cache.cohort import Cohort, view, write_cohort, write_links
from cm2.cache.store import EncodedShard, Space, Store, StoreWriter
from cm2.errors import ConfigError, IntegrityError

PIXELS = Space("film", "pixels", {"resize": 5})
NAMES = ("0123456789ab", "ba9876543210")


def film(item: str) -> np.ndarray:
    return np.random.default_rng(list(item.encode())).integers(0, 256, (4, 5)).astype(np.uint8)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    writer = StoreWriter(tmp_path, PIXELS, {})
    for name, ids in zip(NAMES, (["a", "c"], ["b"]), strict=True):
        values = np.stack([film(item) for item in ids])
        found = EncodedShard(ids, [f"hash of {item}" for item in ids], {"values": values}, {}, [])
        writer.commit(name, found, dict.fromkeys(ids, "stamp"))
    return writer.finish(complete=True)


def test_an_image_is_mapped_and_equals_what_was_stored(store: Store) -> None:
    for item in ("b", "a", "c", "a"):
        image = store.image(item)
        np.testing.assert_array_equal(image, film(item))
        assert isinstance(image, np.memmap)
        assert not image.flags.writeable
    expected = np.stack([film(item) for item in "cba"])
    np.testing.assert_array_equal(store.read(["c", "b", "a"])["values"], expected)


def test_an_altered_shard_gives_no_image(store: Store) -> None:
    path = store.path / f"shard-{NAMES[0]}.h5"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1  # a grey value
    path.write_bytes(bytes(data))
    with pytest.raises(IntegrityError, match="shard-0123456789ab"):
        store.image("a")
    np.testing.assert_array_equal(store.image("b"), film("b"))


def test_a_store_of_vectors_has_no_images(tmp_path: Path, small: ModuleType) -> None:
    vectors, _ = small.fill(tmp_path)
    with pytest.raises(ConfigError, match="--level pixels"):
        vectors.image("d00")


def test_pixels_never_become_the_view_of_a_cohort(store: Store, small: ModuleType) -> None:
    cache = store.path.parents[2]
    stays = small.stays()
    write_cohort(cache, "default", stays, {"dataset": "small", "attrition": []})
    count = stays.num_rows
    links = pa.table(
        {
            "stay_id": stays["stay_id"],
            "items": pa.array([["a"]] * count, pa.list_(pa.string())),
            "has": [True] * count,
            "why_no": pa.nulls(count, pa.string()),
        }
    )
    write_links(cache, "default", "film", links, {})
    with pytest.raises(ConfigError, match="image by image"):
        view(cache, Cohort.open(cache), "film")


@pytest.mark.parametrize("contiguous", [True, False])
def test_a_shard_of_the_other_layout_is_refused(contiguous: bool) -> None:
    values = np.zeros((2, 3, 3), np.uint8)
    image = shard.build({"values": values}, "s" * 12, "n" * 12, contiguous=contiguous)
    wanted = "chunked" if contiguous else "contiguous"
    with pytest.raises(IntegrityError, match=f"is not {wanted}"):
        shard.read(
            Path("x.h5"),
            image,
            "s" * 12,
            "n" * 12,
            {"values": "uint8"},
            "",
            contiguous=not contiguous,
        )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((1, 3, 3), np.float32), "expected .*uint8"),
        (np.zeros((1, 9), np.uint8), "have 3 axes"),
    ],
)
def test_only_whole_grey_pictures_are_pixels(
    values: np.ndarray, message: str, tmp_path: Path
) -> None:
    found = EncodedShard(["a"], ["h"], {"values": values}, {}, [])
    with pytest.raises(ConfigError, match=message):
        StoreWriter(tmp_path, PIXELS, {}).commit(NAMES[0], found, {"a": "stamp"})
