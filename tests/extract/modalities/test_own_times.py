"""`--step-hours 0`: every measurement at its own time, for models that want no grid."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import cm2
from cm2.cache.upkeep import verify
from cm2.errors import ConfigError
from cm2.extract.config import ExtractConfig
from cm2.extract.runner import extract
from cm2.progress import silent

Chart = Callable[..., dict[str, str]]


def test_the_real_measurements_stand_at_their_own_times(shared: Path, tmp_path: Path) -> None:
    root = shared / "data" / "mimiciii_demo"
    extract(ExtractConfig(data=root, cache=tmp_path, step_hours=0, until_hours=24))
    (table,) = (tmp_path / "events").glob("*.parquet")
    events = pl.read_parquet(table).with_columns(pl.col("variable").cast(pl.String))
    events = events.filter(pl.col("hours") <= 24)
    found = cm2.open_cache(tmp_path).events("ihm", "all")
    assert found["times"].shape == found["mask"].shape
    assert found["values"].shape == (*found["mask"].shape, len(found["columns"]))
    numbers = [name for name in found["columns"] if "->" not in name]
    assert len(numbers) == 12
    place = {name: found["columns"].index(name) for name in numbers}
    checked = 0
    for row, stay in enumerate(found["stay_id"]):
        mine = events.filter(pl.col("stay_id") == stay)
        times = mine["hours"].unique().sort().to_numpy()
        real = int(found["mask"][row].sum())
        assert np.array_equal(found["times"][row, :real].numpy(), times.astype(np.float32))
        assert not found["times"][row, real:].any()
        assert not found["measured"][row, real:].any()
        for name in numbers:
            rows = mine.filter(pl.col("variable") == name).sort("hours")
            measured = found["measured"][row, :, place[name]].numpy()
            at = np.searchsorted(times, rows["hours"].to_numpy())
            assert np.flatnonzero(measured).tolist() == at.tolist()
            values = found["values"][row, :, place[name]].numpy()
            assert np.array_equal(values[at], rows["value"].to_numpy().astype(np.float32))
            checked += len(at)
    assert len(found["stay_id"]) == 57
    assert checked > 10_000
    assert verify(tmp_path, silent) == []


def test_gaps_repeat_what_was_last_known(mimic3: Any, charted: Chart, tmp_path: Path) -> None:
    mimic3.tables["chartevents"].append(charted(646, 2, "93"))
    root = mimic3.write(tmp_path / "root")
    extract(ExtractConfig(data=root, cache=tmp_path, step_hours=0))
    found = cm2.open_cache(tmp_path).events("ihm", "all", labelled=False)
    row = found["stay_id"].index(1000)
    rate = found["columns"].index("Heart Rate")
    assert found["times"][row].tolist() == [1, 2, 3]
    assert found["values"][row, :, rate].tolist() == [80, 80, 90]
    assert found["measured"][row, :, rate].tolist() == [True, False, True]
    eye = found["columns"].index("Glasgow coma scale eye opening->4")
    assert found["values"][row, :, eye].tolist() == [1, 1, 1], "the normal level"
    assert not found["measured"][row, :, eye].any()


def test_a_series_on_a_grid_is_refused_with_the_remedy(mimic3: Any, tmp_path: Path) -> None:
    extract(ExtractConfig(data=mimic3.write(tmp_path / "root"), cache=tmp_path))
    with pytest.raises(ConfigError, match="--step-hours 0"):
        cm2.open_cache(tmp_path).events("ihm", "all")


def test_events_of_the_user_keep_their_times_whoever_stands_beside_them(tmp_path: Path) -> None:
    stays = "stay_id,subject_id,split,y_aki\n1,1,train,0\n2,2,val,1\n3,3,test,0\n"
    (tmp_path / "stays.csv").write_text(stays)
    rows = ["1,0.5,a,3", "1,0.5,b,4", "1,7.25,a->b,5", "2,1,a,6"]
    head = "stay_id,hours,variable,value"

    def call(cache: Path, lines: list[str]) -> Any:
        (tmp_path / "e.csv").write_text("\n".join([head, *lines]) + "\n")
        options = {"stays": tmp_path / "stays.csv", "modality": f"lab={tmp_path / 'e.csv'}"}
        extract(ExtractConfig.model_validate({**options, "cache": cache, "step_hours": 0}))
        return cm2.open_cache(cache)

    found = call(tmp_path / "a", rows).events("aki", "train", "lab")
    assert found["columns"] == ("a", "a->b", "b")
    assert found["times"].tolist() == [[0.5, 7.25]]
    assert found["values"].tolist() == [[[3, 0, 4], [3, 5, 4]]]
    assert found["measured"].tolist() == [[[True, False, True], [False, True, False]]]
    longer = [*rows, *(f"2,{hour},a,1" for hour in range(2, 9))]
    linked = [
        cache.cohort.links("lab").table["items"].to_pylist()[0]
        for cache in (call(tmp_path / "a", rows), call(tmp_path / "b", longer))
    ]
    assert linked[0] == linked[1], "how long another stay is does not change this one"
