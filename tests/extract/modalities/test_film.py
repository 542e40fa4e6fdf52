"""Decoding: the pixels of torchvision's own transform, and every bad file a named reject."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cm2.extract.encoders.frame import FRAME, Frame
from cm2.extract.modalities.film import UnreadableFilm, augment, decode, prepare


def pixels(height: int, width: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    smooth = 120 + 80 * np.sin(y / 23) * np.cos(x / 31)
    noisy = smooth[..., None] + rng.normal(scale=12, size=(height, width, channels))
    return noisy.clip(0, 255).astype(np.uint8).squeeze()


def encoded(picture: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def grey(height: int = 400, width: int = 300) -> bytes:
    return encoded(Image.fromarray(pixels(height, width)), quality=90)


@pytest.mark.parametrize(("height", "width"), [(400, 300), (301, 777), (256, 256), (224, 1000)])
def test_prepared_film_has_the_pixels_of_the_published_transform(height: int, width: int) -> None:
    from torchvision.transforms import CenterCrop, Compose, Resize

    content = grey(height, width)
    published = Compose([Resize(256), CenterCrop(224)])(
        Image.open(io.BytesIO(content)).convert("RGB")
    )
    expected = np.asarray(published)
    found = prepare(content)
    assert found.shape == (224, 224)
    assert found.dtype == np.uint8
    for channel in range(3):
        np.testing.assert_array_equal(found, expected[..., channel])


def test_a_grey_film_stored_in_colour_is_read_as_grey() -> None:
    picture = Image.fromarray(pixels(300, 300)).convert("RGB")
    assert decode(encoded(picture, quality=95)).mode == "L"


def bomb() -> bytes:
    """A few hundred bytes that claim 30,000 x 30,000 pixels."""
    data = bytearray(encoded(Image.fromarray(pixels(64, 64)), quality=50))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = (30_000).to_bytes(2, "big") * 2
    return bytes(data)


def huge() -> bytes:
    """Too large for a film, not yet for Pillow."""
    data = bytearray(encoded(Image.fromarray(pixels(64, 64)), quality=50))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = (8_001).to_bytes(2, "big") * 2
    return bytes(data)


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(Image.fromarray(pixels(300, 200)), exif=exif)


BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "text": (lambda: b"not a picture at all", "NotAnImage"),
    "half": (lambda: grey()[: len(grey()) // 2], "Truncated"),
    "last bytes lost": (lambda: grey()[:-500], "Truncated"),
    "header only": (lambda: grey()[:30], "NotAnImage|Truncated"),
    "png": (lambda: encoded(Image.fromarray(pixels(300, 300)), "PNG"), "WrongFormat"),
    "16 bit": (
        lambda: encoded(Image.fromarray(pixels(300, 300).astype(np.uint16) * 200), "PNG"),
        "WrongFormat",
    ),
    "cmyk": (
        lambda: encoded(Image.fromarray(pixels(300, 300, 3)).convert("CMYK")),
        "WrongColours",
    ),
    "rotated by a tag": (rotated, "Rotated"),
    "one pixel": (lambda: encoded(Image.fromarray(np.zeros((1, 1), np.uint8))), "TooSmall"),
    "thin": (lambda: grey(3000, 8), "TooSmall"),
    "all black": (lambda: encoded(Image.fromarray(np.zeros((300, 300), np.uint8))), "Constant"),
    "bomb": (bomb, "TooLarge"),
    "huge": (huge, "TooLarge"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_film_is_refused_with_its_class_and_without_its_content(name: str) -> None:
    make, kind = BAD[name]
    with pytest.raises(UnreadableFilm) as caught:
        prepare(make())
    assert caught.value.kind in kind.split("|")
    assert "0x" not in str(caught.value)  # no address: the same reject has the same bytes


def test_a_flipped_byte_never_ends_in_another_error() -> None:
    rng = np.random.default_rng(0)
    good = bytearray(grey())
    for _ in range(60):
        bad = bytearray(good)
        bad[int(rng.integers(len(bad)))] ^= 1 << int(rng.integers(8))
        try:
            assert prepare(bytes(bad)).shape == (224, 224)
        except UnreadableFilm:
            continue


def test_real_films_decode(shared: Path) -> None:
    films = sorted((shared / "data/covid_cxr/images").iterdir())[:10]
    assert len(films) == 10
    assert all(prepare(film.read_bytes()).std() > 5 for film in films)


# --- scaled decoding ------------------------------------------------------------------------------


def enlarged(path: Path) -> bytes:
    """A real film in the size of MIMIC-CXR, whose films were enlarged from smaller ones too."""
    with Image.open(path) as picture:
        large = picture.resize((2544, 3056), Image.Resampling.BICUBIC)
    return encoded(large, quality=95)


def test_scaled_decoding_of_a_film_of_full_size_is_a_few_grey_values_off(shared: Path) -> None:
    paths = sorted((shared / "data/covid_cxr/images").iterdir())[::60]
    assert len(paths) == 5
    for path in paths:
        content = enlarged(path)
        assert decode(content).size == (2544, 3056)
        assert decode(content, fast=True).size == (1272, 1528)
        exact, fast = (prepare(content, fast=fast).astype(int) for fast in (False, True))
        assert 0 < np.abs(exact - fast).max() <= 2
        assert np.abs(exact - fast).mean() < 0.2


def test_scaled_decoding_leaves_a_small_film_as_it_is_and_bad_ones_bad() -> None:
    np.testing.assert_array_equal(prepare(grey(), fast=True), prepare(grey()))
    for make, kind in BAD.values():
        with pytest.raises(UnreadableFilm) as caught:
            prepare(make(), fast=True)
        assert caught.value.kind in kind.split("|")


def test_scaling_counts_from_the_frame_that_is_wanted() -> None:
    content = encoded(Image.fromarray(pixels(1600, 1200)), quality=90)
    assert decode(content, Frame(64, None), fast=True).size == (300, 400)
    assert decode(content, Frame((64, 128), None), fast=True).size == (600, 800)
    assert decode(content, Frame(512), fast=True).size == (1200, 1600)


# --- frames and copies ----------------------------------------------------------------------------


def test_a_frame_wider_than_the_film_is_filled_with_black() -> None:
    frame = Frame((20, 10), (24, 24))
    found = frame.cut(frame.resized(Image.fromarray(np.full((50, 50), 200, np.uint8))))
    assert found.shape == frame.shape == (24, 24)
    assert (found[2:22, 7:17] == 200).all()
    assert found.sum() == 200 * 20 * 10


def test_a_copy_is_a_function_of_the_film_and_its_number() -> None:
    picture = FRAME.resized(Image.fromarray(pixels(400, 300)))
    first = np.asarray(augment(picture, "a", 0))
    np.testing.assert_array_equal(first, np.asarray(augment(picture, "a", 0)))
    assert first.shape == np.asarray(picture).shape
    for item, view in (("a", 1), ("b", 0)):
        assert (first != np.asarray(augment(picture, item, view))).mean() > 0.1


def test_copies_are_flipped_turned_shifted_and_scaled_within_the_published_range() -> None:
    """Two dots on a film tell by how much; half of the copies are mirrored."""
    side, reach = 300, 60
    spots = Image.fromarray(np.zeros((side, side), np.uint8))
    for x, size in ((150 - reach, 3), (150 + reach, 5)):
        spots.paste(255, (x - size, 150 - size, x + size + 1, 150 + size + 1))
    angles, scales, shifts = [], [], []
    for view in range(200):
        found = np.asarray(augment(spots, "film", view)) > 0
        y, x = np.nonzero(found)
        middle = np.array([x.mean(), y.mean()])
        centred = np.stack([x, y], axis=1) - middle
        axis = np.linalg.svd(centred, full_matrices=False)[2][0]
        along = centred @ axis
        groups = along > (along.min() + along.max()) / 2
        if groups.sum() < (~groups).sum():  # towards the larger dot
            axis, groups = -axis, ~groups
        ends = [centred[g].mean(axis=0) + middle for g in (groups, ~groups)]
        angles.append(np.degrees(np.arctan2(axis[1], axis[0])))
        scales.append(np.linalg.norm(ends[0] - ends[1]) / (2 * reach))
        shifts.append(np.abs((ends[0] + ends[1]) / 2 - 150).max() / side)
    mirrored = np.abs(angles) > 90
    turned = np.where(mirrored, 180 - np.abs(angles), np.abs(angles))
    assert 70 < mirrored.sum() < 130
    assert 40 < turned.max() < 47
    assert 0.84 < min(scales) < 0.88
    assert 1.12 < max(scales) < 1.17
    assert 0.13 < max(shifts) < 0.16
