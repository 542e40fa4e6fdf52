"""Decode a film: grey, resized, the centre cut out; on request with an augmentation before that."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..encoders.frame import FRAME, Frame

EXACT = "grey, all pixels"
"""How a space names decoding without a shortcut."""

SMALLEST_SIDE = 32
LARGEST_PIXELS = 64_000_000  # a film has about 8 million; Pillow itself warns from 89 million
FAST_SCALE = 4
"""Scaled decoding keeps at least so many times the pixels per side that the target has."""

_FLIP, _DEGREES, _SHIFT, _SCALE = 0.5, 45.0, 0.15, (0.85, 1.15)
AUGMENTATION: Mapping[str, object] = {
    "flip": _FLIP,
    "degrees": _DEGREES,
    "translate": _SHIFT,
    "scale": list(_SCALE),
    "resample": "nearest",
}
"""The published augmentation of training films."""

_EXIF_ORIENTATION = 0x0112


class UnreadableFilm(Exception):
    """A film that cannot be decoded; `kind` is its class in the table of rejects."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def prepare(content: bytes, frame: Frame = FRAME, *, fast: bool = False) -> np.ndarray:
    """Decode a film and bring it into its frame.

    Args:
        content: The bytes of an 8-bit JPEG, grey or RGB, upright.
        frame: The frame.
        fast: As for `decode`.

    Returns:
        uint8, shape [H, W] of the frame.

    Raises:
        UnreadableFilm: Damaged, another format or colour model, rotated by a tag, of impossible
            size, or without any content.
    """
    return frame.cut(frame.resized(decode(content, frame, fast=fast)))


def decode(content: bytes, frame: Frame = FRAME, *, fast: bool = False) -> Image.Image:
    """Decode a film, mode L: the one place where a film is decoded.

    Args:
        content: The bytes of the film.
        frame: What the film will be resized to; matters with `fast` only.
        fast: Let the JPEG decoder scale by 1/2, 1/4 or 1/8, to at least `FAST_SCALE` times the
            frame's size. By default all pixels are decoded. On real films, enlarged to the
            2544 x 3056 pixels of MIMIC-CXR, the result was at most 2 of 255 grey levels off, 0.1 on
            average; benchmarks/extract_image.py measures it on any films.

    Raises:
        UnreadableFilm: As for `prepare`.
    """
    with damages("the bytes are no image"):
        picture = Image.open(io.BytesIO(content))
        _check_header(picture)
        if fast:
            picture.draft("L", draft_size(picture.size, frame))
        picture.load()
    return with_content(picture.convert("L"))


def digest(pixels: np.ndarray) -> np.ndarray:
    """SHA-256 of the pixels of a prepared film, [32] uint8."""
    return np.frombuffer(hashlib.sha256(pixels.tobytes()).digest(), np.uint8)


@contextmanager
def damages(no_image: str) -> Iterator[None]:
    """Turn what Pillow says of damaged and impossible pictures into UnreadableFilm.

    Args:
        no_image: What to say of bytes that are no picture at all.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            yield
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            raise UnreadableFilm("TooLarge", f"more than {LARGEST_PIXELS} pixels") from error
        except UnidentifiedImageError as error:
            raise UnreadableFilm("NotAnImage", no_image) from error
        except (OSError, ValueError, SyntaxError, EOFError) as error:
            raise UnreadableFilm("Truncated", "the picture is truncated or damaged") from error


def with_content(grey: Image.Image) -> Image.Image:
    """Refuse a picture of one value, and return any other as it is."""
    low, high = grey.getextrema()
    if low == high:
        raise UnreadableFilm("Constant", "all pixels have one value")
    return grey


def check_pixels(picture: Image.Image) -> None:
    """Refuse a picture of more than `LARGEST_PIXELS`, before it is decoded."""
    width, height = picture.size
    if width * height > LARGEST_PIXELS:
        raise UnreadableFilm("TooLarge", f"{width} x {height} pixels")


def draft_size(size: tuple[int, int], frame: Frame) -> tuple[int, int]:
    """Smallest size, width and height, to which the JPEG decoder may scale."""
    width, height = size
    if isinstance(frame.resize, int):
        share = frame.resize / min(width, height)
    else:
        share = max(frame.resize[0] / height, frame.resize[1] / width)
    return round(FAST_SCALE * share * width), round(FAST_SCALE * share * height)


def _check_header(picture: Image.Image) -> None:
    check_pixels(picture)
    width, height = picture.size
    if min(width, height) < SMALLEST_SIDE:
        raise UnreadableFilm("TooSmall", f"{width} x {height} pixels")
    if picture.format != "JPEG":
        raise UnreadableFilm("WrongFormat", f"expected a JPEG, found {picture.format}")
    if picture.mode not in ("L", "RGB"):
        raise UnreadableFilm("WrongColours", f"expected 8-bit grey or RGB, found {picture.mode}")
    if picture.getexif().get(_EXIF_ORIENTATION, 1) != 1:
        raise UnreadableFilm("Rotated", "a tag asks for a rotation; which way is up is unclear")


def augment(resized: Image.Image, item_id: str, view: int) -> Image.Image:
    """Flip, turn, shift and scale a film by chance, as published; a function of its arguments.

    Args:
        resized: The film, resized and not yet cut.
        item_id: The film, seed of the chance.
        view: Number of the copy, from 0.
    """
    from torchvision.transforms.functional import InterpolationMode, affine, hflip

    seed = hashlib.sha256(f"augment {view} {item_id}".encode()).digest()
    draw = np.random.default_rng(list(seed))
    if draw.random() < _FLIP:
        resized = hflip(resized)
    angle = draw.uniform(-_DEGREES, _DEGREES)
    shift = [round(draw.uniform(-_SHIFT, _SHIFT) * side) for side in resized.size]
    turned: Image.Image = affine(
        resized,
        angle=angle,
        translate=shift,
        scale=draw.uniform(*_SCALE),
        shear=[0.0, 0.0],
        interpolation=InterpolationMode.NEAREST,
    )
    return turned


__all__ = [
    "AUGMENTATION",
    "EXACT",
    "FAST_SCALE",
    "UnreadableFilm",
    "augment",
    "decode",
    "digest",
    "draft_size",
    "prepare",
]
