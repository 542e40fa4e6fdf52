"""The plan of any modality of films: which space its options name, and who encodes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice

import numpy as np
import pyarrow as pa

from ...cache.store import Space
from ..config import ExtractConfig
from ..encoders.frame import Frame
from ..encoders.image import ImageEncoder
from ..work import Plan, Work
from .film import AUGMENTATION, EXACT, FAST_SCALE, decode
from .film_encoder import Decoder, FilmEncoder, PreparedFilm

SHARD_ITEMS = 64
_COMPARED = 8


def film_plan(
    modality: str,
    work: list[Work],
    links: pa.Table,
    rules: Mapping[str, object],
    config: ExtractConfig,
    encoder: ImageEncoder | None,
    *,
    decoder: Decoder = decode,
    decoding: Mapping[str, object] | None = None,
) -> Plan:
    """Return the plan of a modality whose items are files of films.

    Args:
        modality: Its name.
        work: The films; the payload of each is its path.
        links: One row per stay.
        rules: How films were chosen.
        config: Level, copies, decoding, precision.
        encoder: The network; None with the level pixels.
        decoder: As for `FilmEncoder`.
        decoding: What stands in the space for another decoder than that of films.
    """
    square = Frame(config.side, (config.side, config.side))
    frame = square if encoder is None else encoder.frame
    encode = FilmEncoder(
        encoder,
        frame,
        level=config.level,
        views=config.views,
        fast=config.fast_decode,
        decoder=decoder,
    )
    provenance: dict[str, object] = {}
    if encoder is not None:
        provenance = dict(encoder.weights.provenance)
        if config.precision == "bf16":
            provenance |= _rounding(encode, encoder, work)
    files = [item.payload for item in work]
    return Plan(
        space=_space(modality, encoder, frame, config, decoding),
        work=work,
        links=links,
        rules=rules,
        provenance=provenance,
        encode=encode,
        shard_items=SHARD_ITEMS,
        blank=None if encoder is None else lambda: {"values": encoder.blank(config.level)},
        files=[*files, *([] if encoder is None else encoder.weights.files())],
        note="" if encoder is None else encoder.weights.note,
        caution="" if encoder is None else encoder.weights.caution,
    )


def _space(
    modality: str,
    encoder: ImageEncoder | None,
    frame: Frame,
    config: ExtractConfig,
    decoding: Mapping[str, object] | None,
) -> Space:
    """What makes two films comparable; options at their defaults leave no trace in it."""
    crop = frame.crop
    square = crop is not None and crop[0] == crop[1]
    parts: dict[str, object] = {
        "level": config.level,
        "decode": f"grey, JPEG scale of {FAST_SCALE}x" if config.fast_decode else EXACT,
        "resize": frame.resize if isinstance(frame.resize, int) else list(frame.resize),
        "resample": frame.resample,
        "crop": crop[0] if crop is not None and square else crop and list(crop),
    }
    if encoder is not None:
        parts |= {
            "encoder": encoder.name,
            "weights": encoder.sha256,
            "mean": list(encoder.mean),
            "std": list(encoder.std),
            **encoder.weights.space_parts,
        }
        if config.precision != "fp32":
            parts["precision"] = config.precision
    if config.views:
        parts["views"] = {"count": config.views, **AUGMENTATION}
    if decoding is not None:
        parts["decode"] = {**decoding, "scaled": FAST_SCALE if config.fast_decode else None}
    view = "vector" if encoder is not None else config.level
    return Space(modality, view, parts)  # type: ignore[arg-type]


def _rounding(
    encode: FilmEncoder, encoder: ImageEncoder, work: Sequence[Work]
) -> dict[str, object]:
    """How far bf16 is from fp32 on the first films that can be read."""
    found = (encode.prepare(item) for item in sorted(work, key=lambda item: item.item_id))
    readable = (film.pictures[0] for film in found if isinstance(film, PreparedFilm))
    films = list(islice(readable, _COMPARED))
    if not films:
        return {}
    share = encoder.rounding(np.stack(films))
    return {"bf16": {"films_compared": len(films), "largest_difference_of_largest": share}}


__all__ = ["SHARD_ITEMS", "film_plan"]
