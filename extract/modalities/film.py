"""Decode a film: all its pixels as grey, resized, the centre cut out."""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import Image, UnidentifiedImageError

RESIZE, CROP = 256, 224
SMALLEST_SIDE = 32
LARGEST_PIXELS = 64_000_000  # a film has about 8 million; Pillow itself warns from 89 million
_EXIF_ORIENTATION = 0x0112


class UnreadableFilm(Exception):
    """A film that cannot be decoded; `kind` is its class in the table of rejects."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def prepare(content: bytes) -> np.ndarray:
    """Decode a film to grey, short side to 256 pixels, centre 224 x 224.

    Args:
        content: The bytes of an 8-bit JPEG, grey or RGB, upright.

    Returns:
        uint8, shape [224, 224].

    Raises:
        UnreadableFilm: Damaged, another format or colour model, rotated by a tag, of impossible
            size, or without any content.
    """
    return crop(decode(content))


def decode(content: bytes) -> Image.Image:
    """Decode all pixels of a film, mode L.

    Raises:
        UnreadableFilm: As for `prepare`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            picture = Image.open(io.BytesIO(content))
            _check_header(picture)
            picture.load()
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            raise UnreadableFilm("TooLarge", f"more than {LARGEST_PIXELS} pixels") from error
        except UnidentifiedImageError as error:
            raise UnreadableFilm("NotAnImage", "the bytes are no image") from error
        except (OSError, ValueError, SyntaxError, EOFError) as error:
            raise UnreadableFilm("Truncated", "the picture is truncated or damaged") from error
    grey = picture.convert("L")
    low, high = grey.getextrema()
    if low == high:
        raise UnreadableFilm("Constant", "all pixels have one value")
    return grey


def _check_header(picture: Image.Image) -> None:
    width, height = picture.size
    if width * height > LARGEST_PIXELS:
        raise UnreadableFilm("TooLarge", f"{width} x {height} pixels")
    if min(width, height) < SMALLEST_SIDE:
        raise UnreadableFilm("TooSmall", f"{width} x {height} pixels")
    if picture.format != "JPEG":
        raise UnreadableFilm("WrongFormat", f"expected a JPEG, found {picture.format}")
    if picture.mode not in ("L", "RGB"):
        raise UnreadableFilm("WrongColours", f"expected 8-bit grey or RGB, found {picture.mode}")
    if picture.getexif().get(_EXIF_ORIENTATION, 1) != 1:
        raise UnreadableFilm("Rotated", "a tag asks for a rotation; which way is up is unclear")


def crop(grey: Image.Image) -> np.ndarray:
    """Resize the short side to 256 pixels (bilinear, antialiased) and cut the centre 224 x 224."""
    width, height = grey.size
    short = min(width, height)
    size = (RESIZE * width // short, RESIZE * height // short)
    pixels = np.asarray(grey.resize(size, Image.Resampling.BILINEAR))
    top, left = round((size[1] - CROP) / 2), round((size[0] - CROP) / 2)
    return pixels[top : top + CROP, left : left + CROP]


__all__ = ["CROP", "RESIZE", "UnreadableFilm", "crop", "decode", "prepare"]
