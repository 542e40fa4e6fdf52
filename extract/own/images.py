"""Images of the user: a table of paths; each is decoded to grey, framed and encoded."""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import polars as pl
from PIL import Image

from ...cache.cohort import Cohort
from ...errors import DataError, UnsupportedError
from ..config import ExtractConfig
from ..encoders.frame import Frame
from ..encoders.image import ImageEncoder
from ..encoders.weights import Weights
from ..modalities.film import UnreadableFilm, check_pixels, damages, draft_size, with_content
from ..modalities.film_plan import film_plan
from ..modalities.reading import NO_FILE
from ..work import Plan, Staged, Work
from . import rows
from .listed import Timed, absent, item_id, read, stamp_of
from .spec import OwnFile

FORMATS = ("JPEG", "PNG", "TIFF", "BMP")
_DEEP = ("I;16", "I;16B", "I;16L", "I")
_DICOM = b"DICM"


def plan(
    spec: OwnFile,
    cohort: Cohort,
    stays: pl.DataFrame,
    config: ExtractConfig,
    name: str | None,
    weights: Weights | None,
) -> Plan:
    """Return the work of a table of image paths.

    Args:
        spec: The table; paths are relative to `folder`, else to the folder of the table.
        cohort: The stays.
        stays: `_id`, `_row` and perhaps `_intime` of the stays.
        config: Prediction time, level, copies, precision, device.
        name: Encoder by name; None for that of a folder of weights.
        weights: Of the encoder; None with the level pixels.

    Raises:
        DataError: No row belongs to the cohort, or not one listed image is there.
        UnsupportedError: The images are DICOM.
    """
    encoder = None
    if weights is not None:
        encoder = ImageEncoder(
            name, weights, config.device, precision=config.precision, side=config.side
        )
    listed = read(spec, spec.path, stays, config.until_hours)
    if listed.of_no_stay:
        raise rows.no_match(spec, cohort, listed.ignored)
    root = spec.folder or spec.file.parent
    work: dict[str, Work] = {}
    items: dict[str, list[str]] = {}
    missing: dict[str, Path] = {}
    for stay, hours, word, unread in listed.frame.iter_rows():
        if word is None:
            continue
        path = root / word
        content = content_stamp(path)
        stamp = stamp_of(content, unread=unread)
        item = item_id(word, stamp, hours)
        if content == NO_FILE:
            missing[item] = path
        linked = items.setdefault(stay, [])
        if item not in linked:
            linked.append(item)
        work.setdefault(item, Work(item, stamp, path, {"hours_from_intime": hours}))
    if work and len(missing) == len(work):
        raise DataError(
            f"{spec.file}: not one of the {len(work)} listed images is there; the first should be "
            f"{next(iter(missing.values()))}. Name their folder with folder=… in {spec.table}."
        )
    planned = film_plan(
        spec.name,
        list(work.values()),
        rows.links(cohort, items, absent(listed, items)),
        {
            "rows": "all, in time order",
            "prediction_time": listed.timing,
            "until_hours": float(config.until_hours),
        },
        config,
        encoder,
        decoder=partial(decode, grey=spec.grey),
        decoding={"own": "images", "grey": None if spec.grey is None else list(spec.grey)},
    )
    return replace(
        planned,
        provenance={
            **rows.provenance(spec, listed.ignored, listed.unused),
            **planned.provenance,
        },
        encode=Timed(cast("Staged", planned.encode)),
        timing=rows.timing_of(listed.timing, listed.unused),
    )


def content_stamp(path: Path) -> str:
    """SHA-256 of a file, or a word for why it has none.

    Raises:
        UnsupportedError: It is DICOM.
    """
    try:
        with path.open("rb") as stream:
            if stream.read(132)[128:] == _DICOM:
                raise UnsupportedError(
                    f"{path} is DICOM, which cm2 does not read: its grey values need the windows "
                    "and the inversion of its own header. Convert the files once, for example with "
                    "`dcm2img --write-16-bit-png --use-window 1 IN.dcm OUT.png` of DCMTK, look at "
                    "some, and list the PNG files (grey=[0, 65535] in the TOML table)."
                )
            stream.seek(0)
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError:
        return NO_FILE
    except OSError as error:
        return type(error).__name__


def decode(
    content: bytes, frame: Frame, *, fast: bool, grey: tuple[float, float] | None
) -> Image.Image:
    """Decode an image to grey, mode L.

    Args:
        content: JPEG, PNG, TIFF or BMP; 8-bit of any colours, or 16-bit grey.
        frame: What it will be resized to; matters with `fast` only.
        fast: Let the JPEG decoder scale; see `film.decode`.
        grey: Of 16-bit images the values that become 0 and 255; others are cut.

    Raises:
        UnreadableFilm: Damaged, of another kind, of impossible size, or without any content.
    """
    with damages(f"expected {', '.join(FORMATS)}"):
        picture: Image.Image = Image.open(io.BytesIO(content), formats=FORMATS)
        check_pixels(picture)
        if fast and picture.format == "JPEG":
            picture.draft("L", draft_size(picture.size, frame))
        picture.load()
    if picture.mode in _DEEP:
        picture = _rescaled(picture, grey)
    elif picture.mode in ("RGBA", "LA", "P", "CMYK", "YCbCr"):
        picture = picture.convert("RGB").convert("L")
    elif picture.mode in ("L", "RGB", "1"):
        picture = picture.convert("L")
    else:
        raise UnreadableFilm("WrongColours", f"8-bit colours or 16-bit grey, found {picture.mode}")
    return with_content(picture)


def _rescaled(picture: Image.Image, grey: tuple[float, float] | None) -> Image.Image:
    if grey is None:
        raise UnreadableFilm(
            "SixteenBit", "say which values are black and white: grey = [low, high] in its table"
        )
    low, high = grey
    values = (np.asarray(picture, dtype=np.float64) - low) / (high - low)
    return Image.fromarray(np.rint(values.clip(0, 1) * 255).astype(np.uint8))


__all__ = ["FORMATS", "content_stamp", "decode", "plan"]
