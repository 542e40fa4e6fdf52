"""Chest films: the linked film of every stay, read and turned into a feature vector."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...cache.cohort import Cohort
from ...cache.store import EncodedShard, Reject, Space
from ..config import ExtractConfig
from ..encoders.image import MEAN, STD, ImageEncoder
from ..encoders.weights import Weights
from ..sources import Source
from ..sources.mimic_cxr import films as listed_films
from ..work import Plan, Work
from .film import CROP, RESIZE, UnreadableFilm, prepare
from .linking import VIEW, link, links_table, stays_of
from .reading import file_stamp, read_file

SHARD_ITEMS = 64
ENCODER = "resnet34"


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
    encoder = ImageEncoder(config.encoder_of("cxr") or ENCODER, weights, config.device)
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


__all__ = ["SHARD_ITEMS", "FilmEncoder", "plan"]
