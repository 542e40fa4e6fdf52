"""Chest films: which one a stay has, how it is read, and its feature vector."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
from PIL import Image, UnidentifiedImageError

from ...cache.cohort import Cohort
from ...cache.store import EncodedShard, Reject, Space
from ..config import ExtractConfig
from ..encoders.image import MEAN, STD, ImageEncoder
from ..encoders.weights import Weights
from ..sources import Source
from ..sources.mimic_cxr import films as listed_films
from ..work import Plan, Work

VIEW = "AP"
RESIZE, CROP = 256, 224
SHARD_ITEMS = 64
SMALLEST_SIDE = 32
LARGEST_PIXELS = 100_000_000
ENCODER = "resnet34"
_EXIF_ORIENTATION = 0x0112

# Why a stay has no film, from the widest reason to the narrowest.
NO_FILM = "no_film"
OUTSIDE_WINDOW = "outside_window"
NO_AP_FILM = "no_ap_film"


class UnreadableFilm(Exception):
    """A film that cannot be decoded; `kind` is its class in the table of rejects."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def link(stays: pl.DataFrame, films: pl.DataFrame, until_hours: float) -> pl.DataFrame:
    """Choose the last AP film between ICU entry and `until_hours` later, both ends included.

    Films of the same second are told apart by study_id, then dicom_id, the larger one last.

    Args:
        stays: stay_id, subject_id, intime; one row per stay.
        films: dicom_id, subject_id, study_id, view, study_time, path.
        until_hours: End of the window in hours after ICU entry.

    Returns:
        One row per stay in the order given: stay_id, dicom_id, study_id, subject_id, path,
        hours_from_intime (null without a film) and why_no (null with one).
    """
    found = stays.lazy().join(films.lazy(), on="subject_id", how="inner")
    after = pl.col("study_time") - pl.col("intime")
    window = pl.duration(seconds=round(until_hours * 3600))
    found = found.with_columns(
        hours_from_intime=after.dt.total_microseconds() / 3.6e9,
        inside=((after >= pl.duration(seconds=0)) & (after <= window)).fill_null(value=False),
    ).with_columns(fits=pl.col("inside") & (pl.col("view") == VIEW).fill_null(value=False))
    reasons = found.group_by("stay_id").agg(
        why_no=pl.when(pl.col("fits").any())
        .then(None)
        .when(pl.col("inside").any())
        .then(pl.lit(NO_AP_FILM))
        .otherwise(pl.lit(OUTSIDE_WINDOW)),
        any_film=pl.lit(value=True),
    )
    last = (
        found.filter("fits")
        .sort("stay_id", "study_time", "study_id", "dicom_id")
        .group_by("stay_id", maintain_order=True)
        .last()
        .select("stay_id", "dicom_id", "study_id", "path", "hours_from_intime")
    )
    return (
        stays.lazy()
        .select("stay_id", "subject_id")
        .join(last, on="stay_id", how="left", maintain_order="left")
        .join(reasons, on="stay_id", how="left", maintain_order="left")
        .with_columns(
            why_no=pl.when(pl.col("any_film").is_null())
            .then(pl.lit(NO_FILM))
            .otherwise(pl.col("why_no"))
        )
        .drop("any_film")
        .collect()
    )


def stays_of(cohort: Cohort) -> pl.DataFrame:
    """The columns of the stays that links need: stay_id, subject_id, intime."""
    return pl.DataFrame(
        pl.from_arrow(cohort.stays.select(["stay_id", "subject_id", "intime"]))
    ).with_columns(pl.col("intime").cast(pl.Datetime("us")))


def links_table(linked: pl.DataFrame, item: str) -> pa.Table:
    """Turn one item per stay (column `item`, null without) and why_no into the links table."""
    items = [[] if value is None else [value] for value in linked[item].to_list()]
    return pa.table(
        {
            "stay_id": linked["stay_id"].to_arrow(),
            "items": pa.array(items, pa.list_(pa.string())),
            "has": pa.array([bool(entry) for entry in items], pa.bool_()),
            "why_no": pa.array(linked["why_no"].to_list(), pa.string()),
        }
    )


def plan(source: Source, cohort: Cohort, config: ExtractConfig, weights: Weights) -> Plan:
    """Return the work of the modality `cxr`: the linked film of every stay that has one.

    Args:
        source: Where the films lie.
        cohort: The stays.
        config: Window, encoder, device.
        weights: Of the encoder.

    Raises:
        DataError: There is no table of films.
    """
    encoder = ImageEncoder(config.encoder or ENCODER, weights, config.device)
    linked = link(stays_of(cohort), listed_films(source.root), config.until_hours)
    chosen = linked.drop_nulls("dicom_id").unique("dicom_id", keep="first", maintain_order=True)
    work = [
        Work(
            row["dicom_id"],
            file_stamp(Path(row["path"])),
            Path(row["path"]),
            {"hours_from_intime": row["hours_from_intime"], "view": VIEW},
        )
        for row in chosen.iter_rows(named=True)
    ]
    space = Space(
        "cxr",
        "vector",
        {
            "encoder": encoder.name,
            "weights": encoder.sha256,
            "level": "pooled",
            "decode": "grey, all pixels",
            "resize": RESIZE,
            "resample": "bilinear",
            "crop": CROP,
            "mean": list(MEAN),
            "std": list(STD),
        },
    )
    return Plan(
        space=space,
        work=work,
        links=links_table(linked, "dicom_id"),
        rules={"film": "last", "view": VIEW, "until_hours": float(config.until_hours)},
        provenance={"weights": weights.note, "random_weights": weights.random},
        encode=FilmEncoder(encoder),
        shard_items=SHARD_ITEMS,
        blank=lambda: {"values": encoder.blank(CROP, CROP)},
        files=[item.payload for item in work],
        note=weights.note,
    )


def file_stamp(path: Path) -> str:
    """The size of a file in bytes as text, or a word for why it has none."""
    try:
        return f"{path.stat().st_size} bytes" if path.is_file() else "no file"
    except OSError:
        return "no access"


class FilmEncoder:
    """Turns films into a shard: reads, decodes and encodes them; bad ones become rejects."""

    def __init__(self, encoder: ImageEncoder) -> None:
        self._encoder = encoder

    def __call__(self, work: Sequence[Work]) -> EncodedShard:
        """Encode one shard."""
        rejects: list[Reject] = []
        good: list[tuple[Work, str, int]] = []
        pictures: list[np.ndarray] = []
        for item in work:
            content = read_file(item, rejects)
            if content is None:
                continue
            try:
                pictures.append(prepare(content))
            except UnreadableFilm as error:
                rejects.append(Reject(item.item_id, "decode", error.kind, str(error)))
                continue
            good.append((item, hashlib.sha256(content).hexdigest(), len(content)))
        films = np.stack(pictures) if pictures else np.zeros((0, CROP, CROP), np.uint8)
        values = self._encoder.encode(films)  # [n, D]
        finite = np.isfinite(values).all(axis=1)
        for (item, _, _), fine in zip(good, finite, strict=True):
            if not fine:
                message = "the encoder gave NaN or infinity for this film"
                rejects.append(Reject(item.item_id, "nonfinite", "NonFinite", message))
        kept = [entry for entry, fine in zip(good, finite, strict=True) if fine]
        facts = {name: [item.facts[name] for item, _, _ in kept] for name in _fact_names(work)}
        return EncodedShard(
            item_ids=[item.item_id for item, _, _ in kept],
            source_hashes=[digest for _, digest, _ in kept],
            arrays={"values": values[finite]},
            facts={**facts, "bytes": [size for _, _, size in kept]},
            rejects=rejects,
        )


def _fact_names(work: Sequence[Work]) -> list[str]:
    return sorted({name for item in work for name in item.facts})


def read_file(item: Work, rejects: list[Reject]) -> bytes | None:
    """Read the file of an item; a file that is listed and cannot be read is a reject."""
    path: Path = item.payload
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        message = "the file is listed and does not exist"
        rejects.append(Reject(item.item_id, "read", "MissingFile", message))
        return None
    except OSError as error:
        message = error.strerror or "input error"
        rejects.append(Reject(item.item_id, "read", type(error).__name__, message))
        return None
    if not content:
        rejects.append(Reject(item.item_id, "read", "EmptyFile", "the file has 0 bytes"))
        return None
    return content


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


__all__ = [
    "NO_AP_FILM",
    "NO_FILM",
    "OUTSIDE_WINDOW",
    "UnreadableFilm",
    "crop",
    "decode",
    "link",
    "links_table",
    "plan",
    "prepare",
    "read_file",
    "stays_of",
]
