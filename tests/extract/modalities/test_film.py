"""Decoding: the pixels of torchvision's own transform, and every bad file a named reject."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cm2.extract.modalities.film import UnreadableFilm, decode, prepare


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
