"""When the steps and parts of a stay were known, as shares of the window before the prediction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from cm2.cache.cohort import Cohort, view, write_cohort, write_links
from cm2.cache.space import HOURS
from cm2.cache.store import EncodedShard, Space, StoreWriter

LINKED = {1: ["a", "b"], 2: ["c"], 3: []}


def stored(cache: Path, space: Space, values: np.ndarray, hours: list[float | None]) -> np.ndarray:
    """Times of three stays with the items a and b, c, none."""
    ids = pa.array(list(LINKED), pa.int64())
    stays = pa.table({"stay_id": ids, "subject_id": ids, "split": ["train"] * 3})
    write_cohort(cache, "default", stays, {})
    writer = StoreWriter(cache, space, {})
    facts = {"hours_from_intime": hours} if hours else {}
    shard = EncodedShard(["a", "b", "c"], ["0" * 64] * 3, {"values": values}, facts, [])
    writer.commit("0" * 12, shard, dict.fromkeys("abc", "1"))
    writer.finish(complete=True)
    links = {
        "stay_id": ids,
        "items": pa.array(list(LINKED.values()), pa.list_(pa.string())),
        "has": [bool(items) for items in LINKED.values()],
        "why_no": [None, None, "none"],
    }
    write_links(cache, "default", space.modality, pa.table(links), {"until_hours": 48.0})
    found: np.ndarray = view(cache, Cohort.open(cache), space.modality).time
    return found


def test_all_parts_of_an_item_have_its_time(tmp_path: Path) -> None:
    values = np.ones((3, 2, 5), np.float32)
    found = stored(tmp_path, Space("report", "vector", {}), values, [12.0, 36.0, None])
    np.testing.assert_allclose(found, [[0.25, 0.25, 0.75, 0.75], [1] * 4, [1] * 4])


@pytest.mark.parametrize(("hours", "share"), [(-3.0, 0.0), (50.0, 1.0)])
def test_times_stay_within_the_window(tmp_path: Path, hours: float, share: float) -> None:
    values = np.ones((3, 5), np.float32)
    found = stored(tmp_path, Space("note", "vector", {}), values, [hours, 24.0, 24.0])
    np.testing.assert_allclose(found[0], [share, 0.5])


def test_items_without_hours_stand_at_the_prediction(tmp_path: Path) -> None:
    found = stored(tmp_path, Space("cxr", "vector", {}), np.ones((3, 5), np.float32), [])
    assert (found == 1).all()


def test_steps_of_a_grid_are_evenly_spaced(tmp_path: Path) -> None:
    found = stored(tmp_path, Space("ehr", "series", {}), np.ones((3, 2, 5), np.float32), [])
    np.testing.assert_allclose(found, [[0.25, 0.5, 0.75, 1]] * 3)


def test_steps_at_their_own_times_keep_them(tmp_path: Path) -> None:
    values = np.ones((3, 2, 2), np.float32)
    values[..., 0] = [[6, 12], [24, 48], [0, 3]]
    space = Space("ehr", "series", {"until_hours": 48.0}, (HOURS, "pulse"))
    found = stored(tmp_path, space, values, [])
    np.testing.assert_allclose(found[0], [0.125, 0.25, 0.5, 1])
    np.testing.assert_allclose(found[1, :2], [0, 0.0625])
