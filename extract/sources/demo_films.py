"""Synthetic chest films: when they are taken, and how severity shows in them.

A film is drawn from ellipses, arcs and noise; no part of any real picture is in it. Severity shows
as `SIGNS` say: as haze that brightens the lungs, which every summary of a film tells, or as the
pattern of some patches, whose mean and contrast tell nothing: its shape must be read.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, get_args

import numpy as np
from numpy.random import Generator
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.special import expit, ndtr

from .demo_patients import Stay

HEIGHT, WIDTH = 304, 272

Sign = Literal["haze", "pattern"]
"""How severity shows: brightness of the lungs, or the pattern of some patches in them."""

SIGNS: tuple[Sign, ...] = get_args(Sign)

_PATCHES = 2  # in each lung
_GRAIN = 8.0  # pixels; a spot of the pattern is about four times as wide


@dataclass(frozen=True)
class Film:
    """One image of a study; `z` is the severity that it shows, as a normal score."""

    subject_id: int
    study_id: int
    dicom_id: str
    view: str
    taken: datetime
    z: float


@dataclass(frozen=True)
class Study:
    """One or more films taken together, with what the report says about them.

    Args:
        text_z: Severity in the words of the report; None where no report was written.
    """

    subject_id: int
    study_id: int
    films: tuple[Film, ...]
    text_z: float | None


def schedule(stays: list[Stay], rng: Generator) -> Iterator[Study]:
    """Decide which stays have films, when and from which side; sicker stays have more.

    About a quarter of the stays have an AP film within 48 hours of ICU entry. Others have only
    other views, only films outside that window, or none.
    """
    seen: set[int] = set()

    def study(stay: Stay, hours: float, views: tuple[str, ...], z: float, text: bool) -> Study:
        number = 0
        while not number or number in seen:
            number = 50_000_000 + int(rng.integers(10_000_000))
        seen.add(number)
        taken = stay.entered + timedelta(seconds=int(3600 * hours))
        films = tuple(
            Film(stay.subject_id, number, _dicom_id(rng), view, taken, z) for view in views
        )
        return Study(stay.subject_id, number, films, stay.z[2] if text else None)

    for stay in stays:
        z = stay.z[1]
        until = min(stay.hours, 47.5)
        if rng.random() < expit(-1.2 + 0.9 * z):
            hours = np.sort(rng.uniform(0.3, until, 1 + rng.poisson(0.4)))
            for place, hour in enumerate(hours):
                last = place == hours.size - 1
                views = ("AP", "LATERAL") if rng.random() < 0.15 else ("AP",)
                shown = z if last else z + rng.normal(scale=0.7)
                yield study(stay, hour, views, shown, rng.random() < 0.9)
            if rng.random() < 0.15:  # later than the window: must not be linked
                yield study(stay, rng.uniform(49, 90), ("AP",), rng.normal(), True)
        elif rng.random() < 0.07:
            yield study(stay, rng.uniform(0.3, until), ("PA", "LATERAL"), z, True)
        elif rng.random() < 0.07:
            hour = rng.uniform(-30, -1) if rng.random() < 0.5 else rng.uniform(49, 90)
            yield study(stay, hour, ("AP",), z, True)


def _dicom_id(rng: Generator) -> str:
    return "-".join(rng.bytes(4).hex() for _ in range(5))


def jpeg(film: Film, seed: int, sign: Sign = "haze") -> bytes:
    """Draw a film and encode it; the bytes depend on the film, the seed and the sign alone."""
    rng = np.random.default_rng([seed, 6, *bytes.fromhex(film.dicom_id.replace("-", ""))])
    draw = _frontal if film.view in ("AP", "PA") else _lateral
    picture = draw(film.z, rng) if sign == "haze" else draw(0.0, rng) + _pattern(film.z, rng)
    picture = picture * rng.uniform(0.93, 1.07) + rng.normal(scale=4) + _noise(rng)
    out = io.BytesIO()
    grey = Image.fromarray(picture.clip(0, 255).astype(np.uint8))
    grey.save(out, "JPEG", quality=88, comment=b"synthetic, drawn by cm2")
    return out.getvalue()


def _grid(rng: Generator) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates from -1 to 1 of a patient who never lies quite straight, [H, 1] and [1, W]."""
    y = np.linspace(-1, 1, HEIGHT)[:, None] + rng.uniform(-0.06, 0.06)
    x = np.linspace(-1, 1, WIDTH)[None, :] + rng.uniform(-0.06, 0.06)
    return y, x


def _noise(rng: Generator) -> np.ndarray:
    grain = rng.normal(scale=3.0, size=(HEIGHT // 2, WIDTH // 2))
    return np.kron(grain, np.ones((2, 2)))


def _disc(y: np.ndarray, x: np.ndarray, cy: float, cx: float, ry: float, rx: float) -> np.ndarray:
    """A soft-edged ellipse with values from 0 to 1, [H, W]."""
    return np.asarray(expit(14 * (1 - ((y - cy) / ry) ** 2 - ((x - cx) / rx) ** 2)))


def _bump(y: np.ndarray, x: np.ndarray, cy: float, cx: float, r: float) -> np.ndarray:
    bump: np.ndarray = np.exp(-(((y - cy) / r) ** 2) - ((x - cx) / r) ** 2)
    return bump


def _opacity(
    y: np.ndarray, x: np.ndarray, lungs: np.ndarray, z: float, rng: Generator
) -> np.ndarray:
    """Brightness added inside the lungs: haze and patches that grow with severity."""
    u = float(ndtr(z))
    patches = np.zeros_like(lungs)
    for _ in range(6):
        cy, cx, r = rng.uniform(-0.4, 0.45), rng.uniform(0.2, 0.55), rng.uniform(0.1, 0.22)
        patches += rng.uniform(0.5, 1.0) * _bump(y, x, cy, cx * rng.choice([-1.0, 1.0]), r)
    return np.asarray(lungs * u * (22 + 48 * patches.clip(0, 1.3)))


def _pattern(z: float, rng: Generator) -> np.ndarray:
    """Grey values of some patches in the lungs: from bright nodules, mild, to dark holes, severe.

    Together they have mean 0, and a contrast that tells nothing. Nodules and holes are one field
    with its sign turned, so that no brightness, contrast or spectrum tells one from the other.
    """
    y, x = _grid(rng)
    patch = np.zeros((HEIGHT, WIDTH))
    for side in (-1.0, 1.0) * _PATCHES:
        cy, cx = rng.uniform(-0.4, 0.4), side * rng.uniform(0.3, 0.5)
        patch = np.maximum(patch, _disc(y, x, cy, cx, 0.3, 0.3))
    white = rng.normal(size=patch.shape)
    field = gaussian_filter(white, _GRAIN) - gaussian_filter(white, 2 * _GRAIN)
    field /= field.std()
    severe = float(ndtr(z))
    nodules, holes = expit(6 * (field - 0.8)), expit(-6 * (field + 0.8))
    shape = (1 - severe) * nodules - severe * holes
    shape -= (shape * patch).sum() / patch.sum()
    shape /= np.sqrt((shape**2 * patch).sum() / patch.sum())
    return np.asarray(rng.uniform(14, 24) * shape * patch)


def _frontal(z: float, rng: Generator) -> np.ndarray:
    y, x = _grid(rng)
    lungs = np.maximum(_disc(y, x, -0.02, -0.42, 0.62, 0.27), _disc(y, x, -0.02, 0.42, 0.62, 0.27))
    body = 35 + 110 * np.exp(-((x / 0.92) ** 6) - (y / 1.1) ** 8)
    ribs = 9 * np.maximum(0, np.cos(17 * (y + 0.35 * np.abs(x)))) * lungs
    spine = 26 * np.exp(-((x / 0.08) ** 2))
    heart = 34 * _disc(y, x, 0.36, 0.12, 0.3, 0.27 + 0.02 * z)
    return np.asarray(body - 82 * lungs + ribs + spine + heart + _opacity(y, x, lungs, z, rng))


def _lateral(z: float, rng: Generator) -> np.ndarray:
    y, x = _grid(rng)
    lung = _disc(y, x, -0.05, 0.05, 0.62, 0.5)
    body = 35 + 105 * np.exp(-((x / 0.85) ** 6) - (y / 1.1) ** 8)
    spine = 30 * np.exp(-(((x - 0.55 - 0.1 * y) / 0.12) ** 2))
    heart = 30 * _disc(y, x, 0.3, -0.2, 0.3, 0.28)
    return np.asarray(body - 70 * lung + spine + heart + _opacity(y, x, lung, z, rng))
