"""Small caches written through the cache's own interface."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from cm2.cache.cohort import write_cohort, write_links
from cm2.cache.store import EncodedShard, Space, StoreWriter

SPACES = {
    "ehr": Space("ehr", "series", {"grid": 1}, ("pulse", "lactate", "constant", "measured")),
    "cxr": Space("cxr", "vector", {"encoder": "tiny", "weights": "random:0"}),
    "report": Space("report", "vector", {"encoder": "tiny-text"}),
    "note": Space("note", "vector", {"encoder": "tiny-note"}),
}
HAVE = {"ehr": 1.0, "cxr": 0.5, "report": 0.7, "note": 0.6}

CacheMaker = Callable[..., Path]


def write_cache(
    folder: Path,
    stays: int = 160,
    modalities: tuple[str, ...] = ("ehr", "cxr", "report"),
    seed: int = 0,
    scramble: str = "",
    have: dict[str, float] | None = None,
    one_class: str = "",
    dataset: str = "made",
    shift: int = 0,
    offset: float = 0.0,
    labels: tuple[str, ...] = (),
    scramble_rows: Collection[int] = (),
) -> Path:
    """Stays whose latent severity shows in every modality.

    `scramble` spoils one split, `scramble_rows` some stays.
    """
    random = np.random.default_rng(seed)
    spoiler = np.random.default_rng(seed + 1)
    severity = random.normal(size=stays)
    split = np.array(["train"] * 5 + ["val"] * 2 + ["test"] * 2)[(np.arange(stays) + shift) % 9]
    spoiled = (split == scramble) | np.isin(np.arange(stays), list(scramble_rows))
    y = (severity + 0.3 * random.normal(size=stays) > 0.4).astype(np.int64)
    y[split == one_class] = 0
    y = np.where(spoiled, 1 - y, y)
    ids = 30_000_000 + 7 * np.arange(stays)
    table = pa.table(
        {
            "stay_id": pa.array(ids, pa.int64()),
            "subject_id": pa.array(ids // 2, pa.int64()),
            "split": split.tolist(),
            "in_ihm": pa.array((np.arange(stays) % 23 != 22).tolist(), pa.bool_()),
            "y_ihm": pa.array(
                [None if i % 31 == 30 else int(v) for i, v in enumerate(y)], pa.int8()
            ),
        }
    )
    table = table.append_column(
        "sex", pa.array([["F", "M", None][i // 9 % 3] for i in range(stays)])
    )
    table = table.append_column("age", pa.array(20.0 + np.arange(stays) % 70))
    if not labels:
        write_cohort(folder, "default", table, {"dataset": dataset, "release": "1"})
    for i, label in enumerate(labels):  # rarer and rarer; every seventh is unknown
        events = (severity > 0.2 + 0.4 * i) ^ (np.arange(stays) % 11 == i)
        column = [None if j % 7 == i else int(v) for j, v in enumerate(events)]
        table = table.append_column(f"y_ph__{label}", pa.array(column, pa.int8()))
    if labels:
        table = table.append_column("in_ph", pa.array([True] * stays, pa.bool_()))
        write_cohort(folder, "default", table, {"dataset": dataset, "release": "1"})
    for name in modalities:
        has = random.random(stays) < (have or HAVE).get(name, HAVE[name])
        if name == "ehr":
            values = severity[:, None, None] * [1, -0.5, 0, 0] + random.normal(size=(stays, 5, 4))
            values[:, :, 2] = 3.0
            values[:, :, 3] = values[:, :, 3] > 0
        elif name == "cxr":
            values = severity[:, None] * np.linspace(-1, 1, 6) + random.normal(size=(stays, 6))
        else:
            values = severity[:, None, None] * 0.7 + random.normal(size=(stays, 3, 5))
        noise = spoiler.normal(size=values.shape) * 5
        values = np.where(spoiled.reshape(-1, *[1] * (values.ndim - 1)), noise, values)
        values = values + offset
        items = [f"{name}{i}" if name != "ehr" else str(i) for i in ids]
        kept = np.flatnonzero(has)
        arrays = {"values": values[kept].astype(np.float32)}
        if name == "report":
            mask = random.random((stays, 3)) < 0.8
            mask[:, 0] = True
            arrays["mask"] = mask[kept]
            arrays["values"] = arrays["values"] * arrays["mask"][..., None]
        origin = {"weights": "random:0", "random_weights": True} if name == "cxr" else {}
        writer = StoreWriter(folder, SPACES[name], origin)
        names = [items[i] for i in kept]
        shard = EncodedShard(names, [f"{i:064x}" for i in kept], arrays, {}, [])
        writer.commit("0" * 12, shard, dict.fromkeys(names, "1"))
        writer.finish(complete=True)
        links = pa.table(
            {
                "stay_id": pa.array(ids, pa.int64()),
                "items": pa.array([[n] if h else [] for n, h in zip(items, has, strict=True)]),
                "has": pa.array(has.tolist(), pa.bool_()),
                "why_no": pa.array([None if h else "none" for h in has], pa.string()),
            }
        )
        write_links(folder, "default", name, links, {"rule": "one"})
    return folder


@pytest.fixture(scope="session")
def make_cache() -> CacheMaker:
    """Write a small cache; see `write_cache`."""
    return write_cache


@pytest.fixture(scope="session")
def small_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """160 stays with a series, a vector and a vector of parts; read only."""
    return write_cache(tmp_path_factory.mktemp("small") / "cache")
