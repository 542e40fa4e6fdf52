"""What the options of films store, what they change in the space, and what they leave alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cm2.cache.store import Store
from cm2.errors import ConfigError, DataError, UnsupportedError
from cm2.extract.config import ExtractConfig
from cm2.extract.encoders.frame import FRAME
from cm2.extract.encoders.image import ImageEncoder
from cm2.extract.encoders.weights import Weights
from cm2.extract.engine import encode
from cm2.extract.modalities.film import augment, decode, prepare
from cm2.extract.modalities.film_encoder import FilmEncoder
from cm2.extract.modalities.film_plan import film_plan
from cm2.extract.modalities.linking import links_table
from cm2.extract.modalities.reading import file_stamp, file_stamps, refuse_wrong_mount
from cm2.extract.work import Plan, Staged, Work
from cm2.progress import never, silent

RANDOM = Weights("cxr", seed=0)


def film(path: Path, seed: int) -> Path:
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 255, (30, 26)).astype(np.uint8))
    small.resize((260, 300), Image.Resampling.BICUBIC).save(path, "JPEG", quality=85)
    return path


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    return [film(tmp_path / f"f{seed}.jpg", seed) for seed in range(3)]


def plan(paths: Sequence[Path], **options: object) -> Plan:
    import polars as pl

    given = {"data": ".", "cache": "c", "encoder": "resnet18", "device": "cpu", **options}
    config = ExtractConfig.model_validate(given)
    work = [Work(path.stem, file_stamp(path), path, {"view": "AP"}) for path in paths]
    none = pl.DataFrame(schema={"stay_id": pl.Int64, "dicom_id": pl.String, "why_no": pl.String})
    encoder = None
    if config.level != "pixels":
        name, precision = config.encoder_of("cxr"), config.precision
        encoder = ImageEncoder(name, RANDOM, config.device, precision=precision, side=config.side)
    return film_plan("cxr", work, links_table(none, "dicom_id"), {}, config, encoder)


def store(made: Plan, cache: Path, **options: object) -> Store:
    config = ExtractConfig.model_validate({"data": ".", "cache": cache, **options})
    return encode(config, made, silent, never())[0]


def test_augmented_copies_stand_beside_the_plain_vector(paths: list[Path], tmp_path: Path) -> None:
    made = plan(paths, views=2)
    held = store(made, tmp_path / "c").read(["f2", "f0"])
    assert held["views"].shape == (2, 2, 512)
    encoder = ImageEncoder("resnet18", RANDOM)
    for row, path in enumerate((paths[2], paths[0])):
        grey = FRAME.resized(decode(path.read_bytes()))
        pictures = [augment(grey, path.stem, view) for view in (0, 1)]
        expected = encoder.encode(np.stack([FRAME.cut(picture) for picture in pictures]))
        np.testing.assert_allclose(held["views"][row], expected, rtol=1e-4, atol=1e-5)
        plain = encoder.encode(prepare(path.read_bytes())[None])[0]
        np.testing.assert_allclose(held["values"][row], plain, rtol=1e-4, atol=1e-5)
    other = store(plan(paths[:1], views=2), tmp_path / "d").read(["f0"])
    np.testing.assert_allclose(other["views"][0], held["views"][1], rtol=1e-4, atol=1e-5)


def test_features_by_place_average_to_the_pooled_ones(paths: list[Path], tmp_path: Path) -> None:
    pooled = store(plan(paths), tmp_path / "c")
    grid = store(plan(paths, level="grid"), tmp_path / "c")
    values = grid.read(["f0", "f1"])["values"]
    assert (values.dtype, values.shape) == (np.float16, (2, 49, 512))
    expected = pooled.read(["f0", "f1"])["values"]
    np.testing.assert_allclose(values.astype(float).mean(axis=1), expected, atol=2e-3)
    assert grid.blank()["values"].shape == (49, 512)


def test_pixels_are_kept_without_any_encoder(paths: list[Path], tmp_path: Path) -> None:
    made = plan(paths, level="pixels")
    assert not {"encoder", "weights"} & set(made.space.parts)
    held = store(made, tmp_path / "c")
    for path in paths:
        image = held.image(path.stem)
        assert image.shape == (256, 256)
        np.testing.assert_array_equal(image[16:240, 16:240], prepare(path.read_bytes()))
    small = store(plan(paths, level="pixels", side=64), tmp_path / "c")
    assert {small.image(path.stem).shape for path in paths} == {(64, 64)}


def test_smaller_films_are_encoded_from_the_centre_of_those_stored(
    paths: list[Path], tmp_path: Path
) -> None:
    made = plan(paths, encoder="resnet8", side=64)
    assert (made.space.parts["resize"], made.space.parts["crop"]) == (64, 56)
    assert made.space.id != plan(paths, encoder="resnet8").space.id
    vectors = store(made, tmp_path / "c").read(["f0", "f1"])["values"]
    pixels = store(plan(paths, level="pixels", side=64), tmp_path / "c")
    centres = np.stack([pixels.image(item)[4:60, 4:60] for item in ("f0", "f1")])
    np.testing.assert_array_equal(vectors, ImageEncoder("resnet8", RANDOM).encode(centres))


def test_a_side_that_the_weights_settle_themselves_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="positions for 224 x 224"):
        ImageEncoder("vit_s_16", RANDOM, side=64)
    with pytest.raises(ConfigError, match="which films they were trained on"):
        ImageEncoder(None, Weights("cxr", path=tmp_path), side=64)


def test_only_what_changes_a_vector_changes_the_space(paths: list[Path]) -> None:
    usual = plan(paths).space.id
    for same in (
        {"film": "all"},
        {"film_views": ("AP", "PA")},
        {"film_from_hours": -5.0},
        {"workers": 3},
        {"engine": "ray"},
        {"shard": "0/2"},
        {"limit": 1},
        {"max_reject": 0.5},
    ):
        assert plan(paths, **same).space.id == usual, same
    others: list[dict[str, object]] = [
        {"level": "grid"},
        {"level": "pixels"},
        {"level": "pixels", "side": 64},
        {"views": 1},
        {"views": 2},
        {"fast_decode": True},
        {"precision": "bf16"},
        {"encoder": "densenet121"},
    ]
    ids = {plan(paths, **other).space.id for other in others}
    assert len(ids | {usual}) == len(others) + 1


def test_bf16_tells_how_far_it_is_from_fp32(paths: list[Path], tmp_path: Path) -> None:
    bad = tmp_path / "a_bad.jpg"
    bad.write_bytes(b"no film")
    told = plan([bad, *paths], precision="bf16").provenance["bf16"]
    assert isinstance(told, dict)
    assert told["films_compared"] == 3
    assert 0 < told["largest_difference_of_largest"] < 0.05
    assert "bf16" not in plan(paths).provenance


def test_a_copy_that_the_encoder_cannot_bear_makes_its_film_a_reject(paths: list[Path]) -> None:
    class Fragile(ImageEncoder):
        def encode(self, films: np.ndarray, level: str = "pooled") -> np.ndarray:
            values = np.zeros((len(films), 4), np.float32)
            if len(films) == 6:  # the copies: of the second film the second
                values[3, 1] = np.nan
            return values

    shard = FilmEncoder(Fragile("resnet18", RANDOM), views=2)(
        [Work(path.stem, "", path) for path in paths]
    )
    assert shard.item_ids == ["f0", "f2"]
    assert [(r.item_id, r.stage) for r in shard.rejects] == [("f1", "nonfinite")]
    assert shard.arrays["views"].shape == (2, 2, 4)


def test_films_can_be_encoded_in_two_stages_by_several_threads(paths: list[Path]) -> None:
    made = plan(paths).encode
    assert isinstance(made, Staged)
    assert made.parallel


# --- stamps --------------------------------------------------------------------------------------


def test_a_film_that_changed_and_kept_its_size_has_another_stamp(tmp_path: Path) -> None:
    path = tmp_path / "film.jpg"
    content = bytearray(np.random.default_rng(0).bytes(40_000))
    path.write_bytes(content)
    first = file_stamp(path)
    assert first.startswith("40000 bytes ")
    for place in (0, 4095, 18_000, 39_999):
        changed = bytearray(content)
        changed[place] ^= 1
        path.write_bytes(changed)
        assert file_stamp(path) != first
    path.write_bytes(content)
    assert file_stamp(path) == first


@pytest.mark.parametrize("size", [0, 1, 4096, 5000, 12_288])
def test_every_byte_of_a_small_file_counts(size: int, tmp_path: Path) -> None:
    path = tmp_path / "small"
    path.write_bytes(bytes(size))
    stamps = {file_stamp(path)}
    places = {0, size // 3, size // 2, size - 1} if size else set()
    for place in places:
        changed = bytearray(size)
        changed[place] = 7
        path.write_bytes(changed)
        stamps.add(file_stamp(path))
    assert len(stamps) == 1 + len(places)


def test_the_film_that_was_exchanged_is_encoded_again_alone(
    paths: list[Path], tmp_path: Path
) -> None:
    before = store(plan(paths), tmp_path / "c").read(["f0", "f1", "f2"])["values"]
    size = paths[1].stat().st_size
    other = film(tmp_path / "other.jpg", 77).read_bytes()
    paths[1].write_bytes(other[:-2][: size - 2].ljust(size - 2, b"\0") + other[-2:])
    assert paths[1].stat().st_size == size
    config = ExtractConfig.model_validate({"data": ".", "cache": tmp_path / "c"})
    held, encoded, complete = encode(config, plan(paths), silent, never())
    assert (encoded, complete) == (1, True)
    rejected = held.rejects["item_id"].to_pylist()
    kept = [item for item in ("f0", "f2") if held.holds(item)]
    assert kept == ["f0", "f2"]
    np.testing.assert_array_equal(held.read(kept)["values"], before[[0, 2]])
    if rejected:  # where the other film was longer, its end is lost
        assert rejected == ["f1"]
    else:
        assert np.abs(held.read(["f1"])["values"][0] - before[1]).max() > 1e-3


def test_all_files_missing_is_a_wrong_mount_and_one_present_is_not(
    paths: list[Path], tmp_path: Path
) -> None:
    gone = [tmp_path / f"gone{i}.jpg" for i in range(9)]
    with pytest.raises(DataError, match=r"Not one of 9 listed films .*gone0\.jpg"):
        refuse_wrong_mount(gone, file_stamps(gone), "films")
    some = [*gone, paths[0]]
    refuse_wrong_mount(some, file_stamps(some), "films")
    refuse_wrong_mount([], [], "films")
