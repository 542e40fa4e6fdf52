"""The engines with the real encoders, from source tree to store; and a thousand bad films."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import io
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from cm2.cache.cohort import Cohort
from cm2.cache.store import Store
from cm2.extract.config import ExtractConfig
from cm2.extract.film_list import write_film_list
from cm2.extract.runner import extract
from cm2.extract.sources.demo import write_demo

pytestmark = pytest.mark.slow
PROGRAM = "from cm2.cli import main; main()"
METADATA = "mimic-cxr-2.0.0-metadata.csv.gz"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data")
    write_demo(out, 400, 2)
    return out


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    cache = tmp_path_factory.mktemp("cache")
    extract(ExtractConfig.model_validate({"data": data, "cache": cache, "modality": "all"}))
    films = Store.open(cache, "cxr")
    assert len(films.manifest["shards"]) > 1  # else nothing could be shared out
    return digests(cache)


def digests(cache: Path) -> dict[str, str]:
    return {
        str(path.relative_to(cache)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(cache.rglob("*"))
        if path.is_file() and path.parent.name != "receipts"
    }


def command(data: Path, cache: Path, *more: str) -> list[str]:
    fixed = ["-q", "extract", "--data", str(data), "--cache", str(cache)]
    return [sys.executable, "-c", PROGRAM, *fixed, *more]


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")
def test_a_ray_of_two_workers_stores_the_same_bytes_of_every_modality(
    data: Path, whole: dict[str, str], tmp_path: Path
) -> None:
    options = ["--modality", "all", "--engine", "ray", "--workers", "2"]
    done = subprocess.run(
        command(data, tmp_path / "c", *options), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert digests(tmp_path / "c") == whole


def test_three_jobs_of_an_array_that_start_at_once_store_the_same_bytes(
    data: Path, whole: dict[str, str], tmp_path: Path
) -> None:
    jobs = [
        subprocess.Popen(
            command(data, tmp_path / "c", "--modality", "all", "--shard", f"{part}/3"),
            stdout=subprocess.DEVNULL,
        )
        for part in range(3)
    ]
    assert [job.wait(timeout=400) for job in jobs] == [0, 0, 0]
    assert digests(tmp_path / "c") == whole


def jpeg(values: np.ndarray, mode: str | None = None, **options: object) -> bytes:
    out = io.BytesIO()
    picture = Image.fromarray(values)
    (picture.convert(mode) if mode else picture).save(out, "JPEG", **options)
    return out.getvalue()


def bad_kinds() -> dict[str, tuple[bytes | None, str, str]]:
    """Name -> content (None: no file), stage and class of the reject."""
    values = np.random.default_rng(0).integers(0, 255, (300, 260)).astype(np.uint8)
    good = jpeg(values)
    large = np.random.default_rng(1).integers(0, 255, (2000, 1800)).astype(np.uint8)
    turned = Image.Exif()
    turned[0x0112] = 6
    claim = bytearray(good)
    frame = claim.index(b"\xff\xc0")
    claim[frame + 5 : frame + 9] = (30_000).to_bytes(2, "big") * 2
    png = io.BytesIO()
    Image.fromarray(values).save(png, "PNG")
    deep = io.BytesIO()
    Image.fromarray(values.astype(np.uint16) * 200).save(deep, "PNG")
    return {
        "gone": (None, "read", "MissingFile"),
        "empty": (b"", "read", "EmptyFile"),
        "text": (b"patient of 61 years", "decode", "NotAnImage"),
        "chance": (np.random.default_rng(2).bytes(5000), "decode", "NotAnImage"),
        "half": (good[: len(good) // 2], "decode", "Truncated"),
        "half of a large one": (jpeg(large)[:900_000], "decode", "Truncated"),
        "png": (png.getvalue(), "decode", "WrongFormat"),
        "deep": (deep.getvalue(), "decode", "WrongFormat"),
        "cmyk": (jpeg(np.stack([values] * 3, -1), "CMYK"), "decode", "WrongColours"),
        "turned": (jpeg(values, exif=turned), "decode", "Rotated"),
        "tiny": (jpeg(values[:20, :20]), "decode", "TooSmall"),
        "black": (jpeg(np.zeros((2000, 1800), np.uint8)), "decode", "Constant"),
        "bomb": (bytes(claim), "decode", "TooLarge"),
    }


MEASURED = """
import json, resource, sys
from cm2.cli import main
try: main()
except SystemExit as stop:
    print(json.dumps([stop.code, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]))
"""


def with_bad_films(folder: Path, count: int) -> tuple[Path, dict[str, str]]:
    """The synthetic tree with many bad films of one stay, and their kinds by id."""
    write_demo(folder, 60, 2)
    config = ExtractConfig.model_validate({"data": folder, "cache": folder / "none"})
    write_film_list(config, folder / "list.csv")
    linked = pl.read_csv(folder / "list.csv").row(0, named=True)
    table = pl.read_csv(folder / METADATA, infer_schema=False)
    like = table.filter(pl.col("dicom_id") == linked["dicom_id"])
    kinds = bad_kinds()
    named = {f"zz-{i:05d}": list(kinds)[i % len(kinds)] for i in range(count)}
    rows = pl.concat([like.with_columns(dicom_id=pl.lit(name)) for name in named])
    with gzip.open(folder / METADATA, "wb") as out:
        pl.concat([table, rows]).write_csv(out)
    place = (folder / linked["path"]).parent
    for name, kind in named.items():
        content = kinds[kind][0]
        if content is not None:
            (place / f"{name}.jpg").write_bytes(content)
    return folder, named


def test_a_thousand_bad_films_are_listed_by_class_and_stage_and_take_no_memory(
    tmp_path: Path,
) -> None:
    peaks = []
    for count in (100, 1000):
        tree, named = with_bad_films(tmp_path / f"d{count}", count)
        cache = tmp_path / f"c{count}"
        options = ["--modality", "cxr", "--film", "all", "--workers", "1"]
        program = command(tree, cache, *options)
        program[2] = MEASURED
        done = subprocess.run(program, capture_output=True, text=True, check=False)
        code, peak = json.loads(done.stdout.splitlines()[-1])
        assert code == 4, done.stderr
        assert f"{count:,} of " in done.stderr
        assert "patient of" not in done.stderr + done.stdout
        peaks.append(peak)
        store = Store.open(cache, "cxr")
        kinds = bad_kinds()
        found = {row["item_id"]: (row["stage"], row["error"]) for row in store.rejects.to_pylist()}
        assert found == {name: kinds[kind][1:] for name, kind in named.items()}
        linked = [
            i for items in Cohort.open(cache).links("cxr").table["items"].to_pylist() for i in items
        ]
        good = set(linked) - set(named)
        assert set(store.items["item_id"].to_pylist()) == good
        assert len(good) > 15
    assert Counter(named.values()).most_common()[-1][1] >= 1000 // 13
    assert peaks[1] - peaks[0] < 50_000, peaks  # kB
