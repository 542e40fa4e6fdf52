"""The stays of a cohort as arrays: one row per stay, absent ones zero."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError, IntegrityError
from .layout import ARRAY_VIEWS, FILM_VIEWS, extract_again
from .reader import Store, load, stores_of
from .space import HOURS
from .stays import Cohort

_log = logging.getLogger("cm2.cache")


@dataclass(frozen=True)
class ModalityView:
    """One modality of all N stays, in the order of stays.parquet.

    Args:
        name: Modality.
        view: "series" or "vector".
        values: [N, L, D] float32. Series: L = steps. Vector: L = items x parts, D = width.
            Zero where `mask` is False.
        mask: [N, L] bool, True for a real step or part.
        time: [N, L] float32, how much of the window before the prediction had passed, in [0, 1]:
            that of an item for all its parts, evenly spaced for the steps of a grid. An item of
            which nothing is known but that it came before the prediction has 1.
        has: [N] bool, True where the stay has at least one item.
        columns: Names of the last axis, when they mean something.
        space: Id of the space.
        content: Fingerprint of the vectors that are linked.
        links: Fingerprint of the links.
    """

    name: str
    view: str
    values: np.ndarray
    mask: np.ndarray
    time: np.ndarray
    has: np.ndarray
    columns: tuple[str, ...]
    space: str
    content: str
    links: str


def view(cache: Path, cohort: Cohort, modality: str, space_id: str | None = None) -> ModalityView:
    """Load one modality of a cohort.

    A stay with several items has them one after the other in time order. Steps of a series
    follow each other without a gap, only the last item keeps its padding; of vectors every item
    keeps all its parts. A linked item that was rejected counts as absent; so does one that a
    store marked partial does not hold yet, which is logged.

    Args:
        cache: Folder of the cache.
        cohort: The cohort.
        modality: Name of the modality.
        space_id: Id of the space; needed only when there are several stores.

    Raises:
        DataError: There is no store or no link table.
        ConfigError: There are several stores, or the store holds pixels.
        IntegrityError: A file was altered, or a complete store lacks a linked item.
    """
    store = Store.open(cache, modality, space_id, views=ARRAY_VIEWS)
    refuse_films(store)
    return _view(cache, cohort, store, numbers=False)


def numbered(cache: Path, cohort: Cohort, modality: str, space_id: str | None) -> ModalityView:
    """Say which items the stays of a cohort have, without reading them; see `view`.

    Returns:
        A view whose values are rows of the store's table of items, [N, L, 1] int64; where items
        have P parts, P times the row plus the part.
    """
    return _view(cache, cohort, Store.open(cache, modality, space_id), numbers=True)


def stays_with(cache: Path, cohort: Cohort, modality: str, space_id: str | None) -> np.ndarray:
    """Say which stays of a cohort have an item of a modality, [N] bool; no item is read."""
    store = Store.open(cache, modality, space_id, views=ARRAY_VIEWS)
    return np.array([bool(items) for items in present_of(cache, cohort, store)], dtype=bool)


def present_of(cache: Path, cohort: Cohort, store: Store) -> list[list[str]]:
    """Linked items of each stay that a store holds; see `present_items`."""
    modality = store.space.modality
    linked = [items or [] for items in cohort.links(modality).table["items"].to_pylist()]
    return present_items(store, linked, extract_again(cache, modality, cohort.name))


def _view(cache: Path, cohort: Cohort, store: Store, *, numbers: bool) -> ModalityView:
    modality = store.space.modality
    links = cohort.links(modality)
    present = present_of(cache, cohort, store)
    distinct = sorted({item for items in present for item in items})
    if numbers:
        mask = _parts(store, distinct)
        parts = mask.shape[1]
        values = parts * store.rows(distinct)[:, None, None] + np.arange(parts)[:, None]
    else:
        values, mask = items_of(store, distinct)
    place = {item: row for row, item in enumerate(distinct)}
    places = [[place[i] for i in items] for items in present]
    stacked, marks = stack(places, values, mask, store)
    until = store.space.parts.get("until_hours", links.rules.get("until_hours"))
    hours = store.hours(distinct)
    return ModalityView(
        name=modality,
        view=store.space.view,
        values=stacked,
        mask=marks,
        time=_time(store, hours, places, stacked, until),
        has=np.array([bool(items) for items in present], dtype=bool),
        columns=store.space.columns,
        space=store.space.id,
        content=store.content(distinct),
        links=links.fingerprint,
    )


def _time(
    store: Store, hours: np.ndarray, places: list[list[int]], values: np.ndarray, until: Any
) -> np.ndarray:
    """Share of the window that had passed, [N, L]; `hours` of each item, NaN where unknown."""
    n, length = values.shape[:2]
    window = np.float32(until if isinstance(until, (int, float)) and until > 0 else np.nan)
    if store.space.columns[:1] == (HOURS,) and np.isfinite(window):
        own: np.ndarray = (values[..., 0] / window).clip(0, 1)
        return own
    if store.space.view == "series":
        return np.tile(np.arange(1, length + 1, dtype=np.float32) / np.float32(length), (n, 1))
    share = np.nan_to_num(hours / window, nan=1.0).clip(0, 1)
    width = length // max(1, *map(len, places))
    out = np.ones((n, length), dtype=np.float32)
    for row, items in enumerate(places):
        out[row, : len(items) * width] = np.repeat(share[items], width)
    return out


def present_items(store: Store, linked: list[list[str]], remedy: str) -> list[list[str]]:
    """Items of each stay that the store holds; see `view`."""
    rejected = set(store.rejects["item_id"].to_pylist())
    absent = {i for items in linked for i in items if not store.holds(i) and i not in rejected}
    if absent and store.manifest["state"] == "complete":
        if other := _holder(store, absent):
            modality = store.path.parent.name
            raise ConfigError(
                f"The cohort links {len(absent)} items of {modality}@{other}, not of "
                f"{modality}@{store.path.name}, which was made with other options. Read "
                f"{modality}@{other}, or give each its own cohort (cm2 extract --cohort NAME)."
            )
        raise IntegrityError(
            f"{len(absent)} linked items are missing from {store.path}, the first is "
            f"{min(absent)!r}. {remedy}"
        )
    if absent:
        _log.warning(
            "%s is partial: %d linked items are not encoded yet and count as absent. %s",
            store.path,
            len(absent),
            remedy,
        )
    return [[item for item in items if store.holds(item)] for items in linked]


def _holder(store: Store, items: set[str]) -> str | None:
    """Another space of the same modality that holds all of some items."""
    for name in stores_of(store.path.parent):
        other = load(store.path.parent / name, f"Extract {store.path.parent.name} again.")
        if all(map(other.holds, items)):
            return name
    return None


def items_of(store: Store, distinct: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Values [n, L, D] float32 and mask [n, L] of these items."""
    arrays = store.read(distinct)
    if not arrays:  # every item of the store was rejected
        return np.zeros((0, 1, len(store.space.columns)), np.float32), np.zeros((0, 1), bool)
    values = arrays["values"].astype(np.float32, copy=False)
    if values.ndim == 2:
        values = values[:, None, :]
    mask = arrays.get("mask", np.ones(values.shape[:2], dtype=bool))
    return values, mask


def _parts(store: Store, distinct: list[str]) -> np.ndarray:
    """Which parts these items have, [n, P]; one part where the store knows of none."""
    if "mask" not in store.manifest["arrays"]:
        return np.ones((len(distinct), 1), dtype=bool)
    return store.read(distinct)["mask"]


def stack(
    places: list[list[int]],
    values: np.ndarray,
    mask: np.ndarray,
    store: Store,
    length: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Put the items of each stay one after the other; see `view`.

    Args:
        places: For each of n stays the rows of its items.
        values: [items, width, D].
        mask: [items, width].
        store: The store they are from.
        length: Length of a stay; what the longest needs by default.

    Returns:
        [n, L, D] and [n, L] bool.
    """
    width = values.shape[1]
    steps = steps_of(store, mask)
    if length is None:
        length = max((needed(steps[rows], width) for rows in places), default=width)
    out = np.zeros((len(places), length, values.shape[2]), dtype=values.dtype)
    marks = np.zeros(out.shape[:2], dtype=bool)
    rows = np.array([r for r, items in enumerate(places) if len(items) == 1], dtype=np.int64)
    single = np.array([places[r][0] for r in rows], dtype=np.int64)
    out[rows, :width] = values[single]
    marks[rows, :width] = mask[single]
    for row, items in enumerate(places):
        begin = 0
        for item in items if len(items) > 1 else ():
            out[row, begin : begin + width] = values[item]
            marks[row, begin : begin + width] = mask[item]
            begin += steps[item]
    return out, marks


def steps_of(store: Store, mask: np.ndarray) -> np.ndarray:
    """Steps that each item takes where another one follows, [n], from its mask [n, width]."""
    width = mask.shape[1]
    if store.space.view == "series" and len(mask):
        steps: np.ndarray = width - np.argmax(mask[:, ::-1], axis=1)  # up to the last real step
        return steps
    return np.full(len(mask), width)


def needed(steps: np.ndarray, width: int) -> int:
    """Length of a stay whose items take so many steps; the last one keeps its padding."""
    return int(steps[:-1].sum()) + width


def refuse_films(store: Store) -> None:
    """Raise ConfigError where a store holds what is no array."""
    if store.space.view in FILM_VIEWS:
        raise ConfigError(
            f"{store.path} holds {store.space.view}, which are read image by image and never as "
            f"one array. Extract vectors too, or train on them with --mode stream."
        )
