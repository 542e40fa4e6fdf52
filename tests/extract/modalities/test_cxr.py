"""Films as items: good ones encoded, bad ones rejected by class, absent ones told apart."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cm2.cache.store import EncodedShard
from cm2.extract.encoders.image import ImageEncoder
from cm2.extract.encoders.weights import Weights
from cm2.extract.modalities.film import prepare
from cm2.extract.modalities.film_encoder import FilmEncoder
from cm2.extract.work import Work


class Means:
    """An encoder whose features can be told by hand: mean and contrast of the film."""

    width = 2

    def encode(self, films: np.ndarray, level: str) -> np.ndarray:
        assert level == "pooled"
        pixels = films.astype(np.float32)
        return np.stack([pixels.mean(axis=(1, 2)), pixels.std(axis=(1, 2))], axis=1)


def film(path: Path, seed: int) -> Path:
    rng = np.random.default_rng(seed)
    picture = Image.fromarray(rng.integers(0, 255, (300, 260)).astype(np.uint8))
    picture.save(path, "JPEG", quality=85)
    return path


def encode(*paths: Path) -> EncodedShard:
    work = [Work(path.stem, "1 bytes", path, {"view": "AP"}) for path in paths]
    return FilmEncoder(Means())(work)  # type: ignore[arg-type]


def test_good_films_are_encoded_among_bad_ones_and_every_bad_one_has_its_class(
    tmp_path: Path,
) -> None:
    good = [film(tmp_path / f"good{i}.jpg", i) for i in range(3)]
    truncated = tmp_path / "truncated.jpg"
    truncated.write_bytes(good[0].read_bytes()[:-2000])
    empty = tmp_path / "empty.jpg"
    empty.write_bytes(b"")
    folder = tmp_path / "folder.jpg"
    folder.mkdir()
    text = tmp_path / "text.jpg"
    text.write_text("secret words of a patient")
    shard = encode(good[0], truncated, empty, good[1], folder, text, tmp_path / "gone.jpg", good[2])
    assert shard.item_ids == ["good0", "good1", "good2"]
    assert {(r.item_id, r.stage, r.error) for r in shard.rejects} == {
        ("truncated", "decode", "Truncated"),
        ("empty", "read", "EmptyFile"),
        ("folder", "read", "IsADirectoryError"),
        ("text", "decode", "NotAnImage"),
        ("gone", "read", "MissingFile"),
    }
    assert not any("secret" in r.message or str(tmp_path) in r.message for r in shard.rejects)
    for path, digest, values in zip(good, shard.source_hashes, shard.arrays["values"], strict=True):
        content = path.read_bytes()
        assert digest == hashlib.sha256(content).hexdigest()
        np.testing.assert_allclose(values[0], prepare(content).astype(np.float32).mean(), rtol=1e-5)
    assert shard.facts["bytes"] == [path.stat().st_size for path in good]
    assert shard.facts["view"] == ["AP"] * 3


def test_a_shard_of_bad_films_alone_is_a_shard(tmp_path: Path) -> None:
    shard = encode(tmp_path / "a.jpg", tmp_path / "b.jpg")
    assert shard.item_ids == []
    assert len(shard.rejects) == 2


def test_a_film_that_the_encoder_cannot_bear_is_a_reject_alone(tmp_path: Path) -> None:
    class Fragile(Means):
        def encode(self, films: np.ndarray, level: str) -> np.ndarray:
            values = super().encode(films, level)
            values[1, 0] = np.inf
            return values

    paths = [film(tmp_path / f"{i}.jpg", i) for i in range(3)]
    shard = FilmEncoder(Fragile())(  # type: ignore[arg-type]
        [Work(path.stem, "", path) for path in paths]
    )
    assert shard.item_ids == ["0", "2"]
    assert [(r.item_id, r.stage) for r in shard.rejects] == [("1", "nonfinite")]
    assert np.isfinite(shard.arrays["values"]).all()


def test_a_vector_does_not_depend_on_its_neighbours(tmp_path: Path) -> None:
    paths = [film(tmp_path / f"{i}.jpg", i) for i in range(3)]
    encoder = FilmEncoder(ImageEncoder("resnet34", Weights("cxr", seed=0)))

    def vectors(some: Sequence[Path]) -> np.ndarray:
        return encoder([Work(path.stem, "", path) for path in some]).arrays["values"]

    together = vectors(paths)
    alone = np.concatenate([vectors([path]) for path in paths])
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-5 * np.abs(alone).max())
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(together[::-1], alone, rtol=1e-2)


def test_memory_stays_flat_over_many_bad_films(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    bad = io.BytesIO()
    Image.fromarray(np.zeros((2000, 2000), np.uint8)).save(bad, "JPEG")
    path = tmp_path / "bad.jpg"
    path.write_bytes(bad.getvalue())
    encoder = FilmEncoder(Means())  # type: ignore[arg-type]
    work = [Work(f"{i}", "", path) for i in range(20)]
    encoder(work)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(3):
        assert len(encoder(work).rejects) == 20
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert after - before < 20_000  # kB; each film has 4,000 kB of pixels
