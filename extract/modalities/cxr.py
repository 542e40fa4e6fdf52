"""Chest films of MIMIC-CXR-JPG: the linked films of every stay, and the list to download."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from ...cache.cohort import Cohort
from ..config import ExtractConfig
from ..encoders import vision
from ..encoders.image import ImageEncoder
from ..encoders.weights import Weights
from ..sources import Source
from ..sources.mimic_cxr import films as listed_films
from ..work import Plan, Work
from .film_plan import SHARD_ITEMS, film_plan
from .linking import FilmRule, film_end, link, links_table, stays_of
from .reading import file_stamps, refuse_wrong_mount

ENCODER = "resnet34"


def linked_films(stays: pl.DataFrame, films: pl.DataFrame, config: ExtractConfig) -> pl.DataFrame:
    """Choose films as the options say; see `linking.link`."""
    return link(stays, films, film_end(config), FilmRule.of(config))


def plan(source: Source, cohort: Cohort, config: ExtractConfig, weights: Weights | None) -> Plan:
    """Return the work of the modality `cxr`: the linked films of every stay that has any.

    Args:
        source: Where the films lie.
        cohort: The stays.
        config: Window, rule, encoder, level, device.
        weights: Of the encoder; None with the levels pixels and files.

    Raises:
        DataError: There is no table of films, or not one of the linked films is there.
    """
    linked = linked_films(stays_of(cohort), listed_films(source.root), config)
    chosen = linked.drop_nulls("dicom_id").unique("dicom_id", keep="first", maintain_order=True)
    paths = [Path(path) for path in chosen["path"]]
    stamps = file_stamps(paths)
    refuse_wrong_mount(paths, stamps, "films")
    if config.level == "files":
        places = [path.relative_to(source.root).as_posix() for path in paths]
        chosen = chosen.with_columns(path=pl.Series(places, dtype=pl.String))
    told = ("hours_from_intime", "view", *(("path",) if config.level == "files" else ()))
    facts = chosen.select(told).iter_rows(named=True)
    work = [
        Work(*entry)
        for entry in zip(chosen["dicom_id"].to_list(), stamps, paths, facts, strict=True)
    ]
    rules = {
        "film": config.film,
        "views": list(config.film_views),
        "from_hours": config.film_from_hours,
        "until_hours": float(film_end(config)),
    }
    encoder = None if weights is None else _encoder(config, weights)
    return film_plan("cxr", work, links_table(linked, "dicom_id"), rules, config, encoder)


def _encoder(config: ExtractConfig, weights: Weights) -> ImageEncoder:
    """The encoder that options and weights name; a folder with config.json names its own."""
    named = config.encoder_of("cxr")
    if named is None and not weights.of_run and not vision.is_folder(weights):
        named = ENCODER
    return ImageEncoder(named, weights, config.device, precision=config.precision, side=config.side)


__all__ = ["SHARD_ITEMS", "linked_films", "plan"]
