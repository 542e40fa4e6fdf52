"""A thousand bad images of a dozen kinds among two hundred good ones."""

from __future__ import annotations

import io
import resource
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from cm2.cache.store import Store
from cm2.errors import RejectsError

from .conftest import Extract, View

BAD, GOOD = 1000, 200


def encoded(values: np.ndarray, kind: str = "JPEG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, kind)
    return stream.getvalue()


def noise(seed: int, depth: type = np.uint8, side: int = 80) -> np.ndarray:
    top = np.iinfo(depth).max
    return np.random.default_rng(seed).integers(0, top, (side, side)).astype(depth)


def bomb() -> bytes:
    """A few kilobytes that claim 30,000 x 30,000 pixels."""
    data = bytearray(encoded(noise(0)))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = (30_000).to_bytes(2, "big") * 2
    return bytes(data)


def kinds() -> dict[str, tuple[bytes | None, str]]:
    """Content (None: no such file) and class by name."""
    jpeg, png = encoded(noise(1)), encoded(noise(2), "PNG")
    return {
        "text": (b"name of a patient", "NotAnImage"),
        "page": (b"<html>404 not found</html>", "NotAnImage"),
        "chance": (np.random.default_rng(3).bytes(4000), "NotAnImage"),
        "zeros": (bytes(3000), "NotAnImage"),
        "empty": (b"", "NotAnImage|EmptyFile"),
        "half": (jpeg[: len(jpeg) // 2], "Truncated"),
        "torn": (png[: len(png) // 2], "Truncated"),
        "black": (encoded(np.zeros((80, 80), np.uint8), "PNG"), "Constant"),
        "white": (encoded(np.full((80, 80), 255, np.uint8)), "Constant"),
        "deep": (encoded(noise(4, np.uint16), "PNG"), "SixteenBit"),
        "gif": (encoded(noise(5), "GIF"), "NotAnImage"),
        "bomb": (bomb(), "TooLarge"),
        "gone": (None, "MissingFile"),
    }


@pytest.mark.slow
def test_the_good_are_encoded_the_bad_are_listed_and_memory_stays_flat(
    folder: Path, run: Extract, look: View
) -> None:
    made = kinds()
    names = [list(made)[i % len(made)] for i in range(BAD)]
    listed = []
    for i, name in enumerate(names):
        content = made[name][0]
        path = f"bad{i:04d}-{name}.jpg"
        if content is not None:
            (folder / path).write_bytes(content + i.to_bytes(2, "big") * (name == "chance"))
        listed.append(path)
    for i in range(GOOD):
        (folder / f"good{i:03d}.png").write_bytes(encoded(noise(100 + i), "PNG"))
        listed.insert(6 * i, f"good{i:03d}.png")
    stays = range(len(listed))
    pl.DataFrame({"stay_id": stays, "subject_id": stays}).write_csv(folder / "stays.csv")
    pl.DataFrame({"stay_id": stays, "path": listed}).write_csv(folder / "films.csv")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(RejectsError, match="1,000 of 1,200") as caught:
        run("film=films.csv", encoder=["film=resnet18"], weights=["random:0"])
    assert caught.value.exit_code == 4
    assert (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_500_000
    )  # kB; the network
    has = look("film").has
    assert [path.startswith("good") for path in listed] == has.tolist()
    found = Counter(Store.open(folder / "cache", "film").rejects["error"].to_pylist())
    counted = Counter(made[name][1] for name in names)
    either = counted.pop("NotAnImage|EmptyFile")
    assert sum(found.values()) == BAD
    for kind, count in counted.items():
        assert count <= found[kind] <= count + either
