from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cm2.cache.store import Store
from cm2.cache.upkeep import verify
from cm2.errors import DataError, RejectsError, UnsupportedError

from .conftest import Extract, View

ENCODED = {"encoder": ["film=resnet18"], "weights": ["random:0"]}


def picture(path: Path, seed: int, depth: int = 8) -> np.ndarray:
    values = np.random.default_rng(seed).integers(0, 2**depth, (64, 80))
    kind = np.uint8 if depth == 8 else np.uint16
    Image.fromarray(values.astype(kind)).save(path)
    return values


def listing(folder: Path, *names: str, header: str = "stay_id,path") -> None:
    lines = [f"{100 + i},{name}" for i, name in enumerate(names)]
    (folder / "films.csv").write_text("\n".join([header, *lines]) + "\n")


def test_missing_broken_and_deep_images_are_rejects_of_their_own_class(
    folder: Path, run: Extract, look: View
) -> None:
    picture(folder / "a.png", 0)
    picture(folder / "deep.png", 1, depth=16)
    (folder / "torn.png").write_bytes((folder / "a.png").read_bytes()[:500])
    (folder / "text.png").write_text("no image")
    listing(folder, "a.png", "deep.png", "torn.png", "text.png", "nowhere.png")
    with pytest.raises(RejectsError, match="4 of 5"):
        run("film=films.csv", **ENCODED)
    rejects = Store.open(folder / "cache", "film").rejects
    assert sorted(rejects["error"].to_pylist()) == [
        "MissingFile",
        "NotAnImage",
        "SixteenBit",
        "Truncated",
    ]
    assert look("film").has.tolist() == [True] + [False] * 11


def test_a_disc_that_is_not_mounted_is_an_error(folder: Path, run: Extract) -> None:
    listing(folder, "x.png", "y.png")
    with pytest.raises(DataError, match="not one of the 2 listed images"):
        run("film=films.csv", **ENCODED)


def test_sixteen_bit_images_are_rescaled_as_told(folder: Path, run: Extract, look: View) -> None:
    values = picture(folder / "deep.png", 1, depth=16)
    scaled = np.rint(((values - 1000.0) / 39000.0).clip(0, 1) * 255).astype(np.uint8)
    Image.fromarray(scaled).save(folder / "flat.png")
    listing(folder, "deep.png", "flat.png")
    (folder / "own.toml").write_text('[modality.film]\nfile = "films.csv"\ngrey = [1000, 40000]\n')
    run("film", config=folder / "own.toml", **ENCODED)
    found = look("film").values[:2, 0]
    assert np.abs(found[0]).max() > 0
    assert (found[0] == found[1]).all()


def test_dicom_is_refused_with_a_recipe(folder: Path, run: Extract) -> None:
    (folder / "a.dcm").write_bytes(bytes(128) + b"DICM" + bytes(100))
    listing(folder, "a.dcm")
    with pytest.raises(UnsupportedError, match="Convert the files once"):
        run("film=films.csv", **ENCODED)


def test_an_image_that_changed_without_changing_its_size_is_encoded_again(
    folder: Path, run: Extract, look: View
) -> None:
    image = Image.fromarray(np.tile(np.arange(80, dtype=np.uint8), (64, 1)))
    image.save(folder / "a.bmp")
    listing(folder, "a.bmp")
    run("film=films.csv", **ENCODED)
    before = look("film").values[0].copy()
    image.transpose(Image.Transpose.FLIP_TOP_BOTTOM).rotate(180).save(folder / "a.bmp")
    assert run("film=films.csv", **ENCODED).modalities[0].encoded == 1
    assert (look("film").values[0] != before).any()


def test_the_reject_of_a_mended_image_is_gone_and_stays_where_another_cohort_asks_for_it(
    folder: Path, run: Extract
) -> None:
    def rejects(cohort: str = "default") -> list[str]:
        result = run("film=films.csv", max_reject=1.0, cohort=cohort, level="pixels")
        table = pq.read_table(folder / "cache" / result.modalities[0].rejects)
        return [item.partition(":")[0] for item in table["item_id"].to_pylist()]

    picture(folder / "good.png", 0)
    for name in ("a", "b"):
        (folder / f"{name}.png").write_bytes(b"no image")
    listing(folder, "good.png", "a.png", "b.png")
    assert rejects() == ["a.png", "b.png"]
    picture(folder / "a.png", 1)
    assert rejects() == ["b.png"]
    assert rejects("other") == ["b.png"]
    picture(folder / "b.png", 2)
    assert rejects() == ["b.png"]  # the other cohort has not seen that it was mended
    assert rejects("other") == []
    (folder / "b.png").write_bytes(b"no image")
    assert rejects() == ["b.png"]  # broken again as it was, and told again
    assert verify(folder / "cache") == []


def test_levels_and_copies_are_those_of_films(folder: Path, run: Extract) -> None:
    made = [picture(folder / f"{name}.png", seed) for seed, name in enumerate("ab")]
    listing(folder, "a.png", "b.png")
    run("film=films.csv", level="pixels")
    store = Store.open(folder / "cache", "film")
    assert store.space.view == "pixels"
    images = {store.image(item).tobytes() for item in store.items["item_id"].to_pylist()}
    wide = [np.asarray(Image.fromarray(v.astype(np.uint8)).resize((320, 256), 2)) for v in made]
    assert images == {values[:, 32:288].tobytes() for values in wide}
    run("film=films.csv", level="grid", views=2, **ENCODED)
    spaces = [p.name for p in (folder / "cache/stores/film").iterdir() if p.name != store.space.id]
    held = Store.open(folder / "cache", "film", spaces[0])
    arrays = held.read(held.items["item_id"].to_pylist())
    assert arrays["values"].shape == (2, 49, 512)
    assert arrays["views"].shape == (2, 2, 49, 512)
