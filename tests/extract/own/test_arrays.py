from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cm2.errors import DataError, RejectsError

from .conftest import Extract, View


def test_vectors_and_series_are_kept_to_the_bit(folder: Path, run: Extract, look: View) -> None:
    random = np.random.default_rng(0)
    ids = np.arange(100, 110)[::-1]
    vectors = random.normal(size=(10, 5)).astype(np.float32)
    series = random.normal(size=(10, 4, 3)).astype(np.float32)
    mask = random.random((10, 4)) < 0.6
    mask[:, 0] = True
    np.savez(folder / "v.npz", stay_id=ids, values=vectors)
    np.savez(folder / "s.npz", stay_id=ids, values=series, mask=mask)
    run("film=v.npz", "wave=s.npz")
    film, wave = look("film"), look("wave")
    assert film.has.tolist() == wave.has.tolist() == [True] * 10 + [False] * 2
    assert (film.values[:10, 0] == vectors[::-1]).all()
    assert wave.view == "series"
    assert (wave.mask[:10] == mask[::-1]).all()
    assert (wave.values[:10][mask[::-1]] == series[::-1][mask[::-1]]).all()


def test_a_row_of_nan_is_absent_and_infinity_a_reject(
    folder: Path, run: Extract, look: View
) -> None:
    values = np.ones((3, 2), np.float32)
    values[1] = np.nan
    values[2, 0] = np.inf
    np.savez(folder / "v.npz", stay_id=[100, 101, 102], values=values)
    with pytest.raises(RejectsError):
        run("film=v.npz")
    assert look("film").has[:3].tolist() == [True, False, False]


def test_an_array_without_ids_or_of_another_length_is_refused(folder: Path, run: Extract) -> None:
    np.savez(folder / "v.npz", values=np.ones((3, 2)))
    with pytest.raises(DataError, match="stay_id"):
        run("film=v.npz")
    np.savez(folder / "v.npz", stay_id=[100, 101], values=np.ones((3, 2)))
    with pytest.raises(DataError, match=r"[23]"):
        run("film=v.npz")


def test_pickled_arrays_are_never_opened(folder: Path, run: Extract) -> None:
    np.savez(folder / "v.npz", stay_id=[100], values=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError):
        run("film=v.npz")
