"""Write a small cache as the extraction does; as a program, with a fault at one durable step.

    python small_store.py CACHE [--kill N] [--modality NAME] [--limit BYTES] [--mended]

`--mended` strikes rejects from a cache that is there, as an extraction of mended files does.
`--kill N` ends the process by SIGKILL at its N-th durable step, of which every write to a
temporary file is one: half of it is on disk by then. Prints the number of steps when it survives.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from cm2.cache import atomic
from cm2.cache.cohort import Cohort, write_cohort, write_links
from cm2.cache.fingerprint import fingerprint
from cm2.cache.store import EncodedShard, Reject, Space, Store, StoreWriter

STAYS = 8
SHARDS = 3
ITEMS = 4


def space(modality: str = "cxr") -> Space:
    return Space(modality, "vector", {"encoder": "small", "size": 6}, ())


def encode(chunk: int, stamp: str = "s0", width: int = 6, items: int = ITEMS) -> EncodedShard:
    ids = [f"d{chunk}{row}" for row in range(items)]
    seed = int.from_bytes(hashlib.sha256(f"{chunk}{stamp}".encode()).digest()[:4], "little")
    values = np.random.default_rng(seed).normal(size=(items, width)).astype(np.float32)
    return EncodedShard(
        item_ids=ids,
        source_hashes=[hashlib.sha256(f"{i}{stamp}".encode()).hexdigest() for i in ids],
        arrays={"values": values},
        facts={"bytes": list(range(items)), "view": ["AP", None, "PA", "AP"][:items]},
        rejects=[Reject(f"r{chunk}", "decode", "OSError", "truncated file")],
    )


def stamps(shard: EncodedShard, stamp: str = "s0") -> dict[str, str]:
    return dict.fromkeys([*shard.item_ids, *(r.item_id for r in shard.rejects)], stamp)


def name_of(given: dict[str, str], modality: str = "cxr") -> str:
    return fingerprint([space(modality).id, sorted(given.items())])[:12]


def fill(
    cache: Path,
    modality: str = "cxr",
    stamp: str = "s0",
    chunks: range = range(SHARDS),
    complete: bool = True,
    encoded: Callable[[int, str], EncodedShard] = encode,
) -> tuple[Store, int]:
    """Bring a store up to date as the runner does; also how many shards were encoded."""
    writer = StoreWriter(cache, space(modality), {"source": "small"})
    known = writer.known()
    redone = 0
    for chunk in chunks:
        given = stamps(encoded(chunk, stamp), stamp)
        given = {item: s for item, s in given.items() if known.get(item) != s}
        if not given or writer.committed(name_of(given, modality)):
            continue
        writer.commit(name_of(given, modality), encoded(chunk, stamp), given)
        redone += 1
    writer.write_blank({"values": np.zeros(6, np.float32)})
    return writer.finish(complete), redone


def stays(count: int = STAYS) -> pa.Table:
    ids = np.arange(count, dtype=np.int64) + 30_000_000
    return pa.table(
        {
            "stay_id": ids,
            "subject_id": ids - 20_000_000,
            "split": pa.array(["train", "train", "val", "test"] * (count // 4)),
            "in_ihm": pa.array([True] * count),
            "y_ihm": pa.array([0, 1] * (count // 2), pa.int8()),
        }
    )


def links(count: int = STAYS) -> pa.Table:
    items = [[f"d{row % SHARDS}{row % ITEMS}"] if row % 2 else [] for row in range(count)]
    return pa.table(
        {
            "stay_id": stays(count)["stay_id"],
            "items": pa.array(items, pa.list_(pa.string())),
            "has": [bool(item) for item in items],
            "why_no": [None if item else "no film" for item in items],
        }
    )


def build(cache: Path, modality: str = "cxr") -> int:
    """The whole small cache; also how many shards were encoded."""
    if not Cohort.exists(cache, "default"):
        write_cohort(cache, "default", stays(), {"dataset": "small", "attrition": []})
    _, redone = fill(cache, modality)
    write_links(cache, "default", modality, links(), {"film": "last"})
    return redone


def strike(cache: Path) -> None:
    """Strike the rejects of all chunks but the last."""
    writer = StoreWriter(cache, space(), {"source": "small"})
    writer.forget_rejects({f"r{SHARDS - 1}"})
    writer.finish(complete=True)


def tree(cache: Path) -> dict[str, str]:
    """Relative path -> SHA-256 of every file, temporary files left out."""
    return {
        str(path.relative_to(cache)): atomic.sha256_file(path)
        for path in sorted(cache.rglob("*"))
        if path.is_file() and not atomic.TEMPORARY.fullmatch(path.name)
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("cache", type=Path)
    parser.add_argument("--kill", type=int, default=-1)
    parser.add_argument("--modality", default="cxr")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--mended", action="store_true")
    given = parser.parse_args()
    if given.limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (given.limit, given.limit))
    count = 0

    def step(kind: str) -> None:
        nonlocal count
        if count == given.kill:
            os.kill(os.getpid(), signal.SIGKILL)
        count += 1

    write = os.write

    def half_write(handle: int, data: memoryview) -> int:
        if count == given.kill:
            write(handle, data[: len(data) // 2])
        step("half")
        return write(handle, data)

    atomic.step_hook = step
    os.write = half_write
    if given.mended:
        strike(given.cache)
    else:
        build(given.cache, given.modality)
    sys.stdout.write(f"{count}\n")


if __name__ == "__main__":
    main()
