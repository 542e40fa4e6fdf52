from __future__ import annotations

import logging
from pathlib import Path
from types import ModuleType

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from cm2.cache import atomic
from cm2.cache.cohort import Cohort, view, write_cohort, write_links
from cm2.cache.store import EncodedShard, Reject, Space, StoreWriter
from cm2.errors import ConfigError, DataError, IntegrityError, LeakageError, SchemaError


def _replace(table: pa.Table, column: str, values: object) -> pa.Table:
    return table.set_column(table.column_names.index(column), column, pa.array(values))


def _links(cache: Path, items: list[list[str]], modality: str = "ehr") -> None:
    ids = Cohort.open(cache).stays["stay_id"]
    table = pa.table(
        {
            "stay_id": ids,
            "items": pa.array(items, pa.list_(pa.string())),
            "has": [bool(i) for i in items],
            "why_no": pa.array([None if i else "none" for i in items], pa.string()),
        }
    )
    write_links(cache, "default", modality, table, {"rule": "all"})


def _store(
    cache: Path,
    space: Space,
    shards: list[dict[str, np.ndarray]],
    rejects: list[str] | None = None,
    complete: bool = True,
) -> None:
    writer = StoreWriter(cache, space, {})
    for number, arrays in enumerate(shards):
        ids = [f"i{number}{row}" for row in range(len(arrays["values"]))]
        failed = [Reject(r, "decode", "E", "m") for r in (rejects or []) if number == 0]
        given = dict.fromkeys([*ids, *(r.item_id for r in failed)], "s")
        shard = EncodedShard(ids, ["h"] * len(ids), arrays, {}, failed)
        writer.commit(f"{number:012x}", shard, given)
    writer.finish(complete)


def test_a_cohort_reads_back_with_its_tasks_and_modalities(cache: Path, small: ModuleType) -> None:
    cohort = Cohort.open(cache)
    assert cohort.stays.equals(small.stays())
    assert cohort.info == {"dataset": "small", "attrition": []}
    assert cohort.tasks == ("ihm",)
    assert cohort.modalities == ("cxr",)
    links = cohort.links("cxr")
    assert links.table.equals(small.links())
    assert links.rules == {"film": "last"}


def test_the_fingerprint_changes_with_stays_and_rules_alone(
    tmp_path: Path, small: ModuleType
) -> None:
    stays = small.stays()
    other = _replace(stays, "y_ihm", pa.array([1, 0] * 4, pa.int8()))
    prints = [
        write_cohort(tmp_path / "a", "default", stays, {"rule": 1}).fingerprint,
        write_cohort(tmp_path / "b", "named", stays, {"rule": 1}).fingerprint,
        write_cohort(tmp_path / "c", "default", stays, {"rule": 2}).fingerprint,
        write_cohort(tmp_path / "d", "default", other, {"rule": 1}).fingerprint,
    ]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3


def test_a_cohort_is_written_once(cache: Path, small: ModuleType) -> None:
    info = {"dataset": "small", "attrition": []}
    before = small.tree(cache)
    write_cohort(cache, "default", small.stays(), info)
    assert small.tree(cache) == before
    with pytest.raises(ConfigError, match=r"'default'.*exists with other stays or rules"):
        write_cohort(cache, "default", small.stays(4), info)
    with pytest.raises(ConfigError, match="only in upper and lower case"):
        write_cohort(cache, "Default", small.stays(), info)
    write_cohort(cache, "second", small.stays(4), info)
    with pytest.raises(DataError, match=r"there is default, second.*--cohort third"):
        Cohort.open(cache, "third")


def test_an_absent_cohort_names_the_command(tmp_path: Path) -> None:
    assert not Cohort.exists(tmp_path, "default")
    with pytest.raises(DataError, match=r"No cohort 'default'.*Run `cm2 extract"):
        Cohort.open(tmp_path)


@pytest.mark.parametrize(
    ("column", "values", "error", "message"),
    [
        ("stay_id", None, SchemaError, "need the column 'stay_id'"),
        ("split", None, SchemaError, "need the column 'split'"),
        ("stay_id", [1.0] * 8, SchemaError, "stay_id must be int64 or text, found double"),
        ("subject_id", pa.array(range(8), pa.int32()), SchemaError, "found int32"),
        ("stay_id", [None, *range(7)], SchemaError, "1 stays have no stay_id"),
        ("stay_id", [1, 1, *range(2, 8)], DataError, "1 of 8 stays repeat a stay_id"),
        ("split", ["train"] * 7 + ["dev"], SchemaError, "found.*'dev'"),
        ("subject_id", [1] * 8, LeakageError, "1 subjects are in more than one"),
        ("in_ihm", [1] * 8, SchemaError, "in_ihm must be bool"),
        ("in_ihm", [None] + [True] * 7, SchemaError, "in_ihm must be bool without nulls"),
        ("y_ihm", None, SchemaError, "in_ihm has no labels"),
    ],
)
def test_stays_that_cannot_be_meant_are_refused(
    tmp_path: Path,
    small: ModuleType,
    column: str,
    values: object,
    error: type[Exception],
    message: str,
) -> None:
    stays = small.stays()
    stays = stays.drop_columns(column) if values is None else _replace(stays, column, values)
    with pytest.raises(error, match=message):
        write_cohort(tmp_path, "default", stays, {})
    assert not list(tmp_path.rglob("*.parquet"))


def test_text_ids_and_several_labels_are_allowed(tmp_path: Path, small: ModuleType) -> None:
    stays = pl.DataFrame(pl.from_arrow(small.stays())).with_columns(
        pl.col("stay_id").cast(pl.String),
        pl.col("subject_id").cast(pl.String),
        pl.lit(True).alias("in_pheno"),
        pl.lit(1).alias("y_pheno__sepsis"),
    )
    cohort = write_cohort(tmp_path, "default", stays.to_arrow(), {})
    assert cohort.tasks == ("ihm", "pheno")
    assert cohort.stays.schema.field("stay_id").type == pa.string()


def test_links_are_stored_in_the_order_of_the_stays(cache: Path, small: ModuleType) -> None:
    before = Cohort.open(cache).links("cxr")
    turned = small.links().take(pa.array(range(7, -1, -1)))
    write_links(cache, "default", "cxr", turned, {"film": "last"})
    assert Cohort.open(cache).links("cxr").fingerprint == before.fingerprint
    assert Cohort.open(cache).links("cxr").table.equals(before.table)
    write_links(cache, "default", "cxr", turned, {"film": "first"})
    assert Cohort.open(cache).links("cxr").fingerprint != before.fingerprint


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda t: t.drop_columns("has"), SchemaError, "Links have the columns"),
        (lambda t: _replace(t, "items", [3] * 8), SchemaError, "found int64 and int64"),
        (lambda t: _replace(t, "stay_id", [1.0] * 8), SchemaError, "found double"),
        (lambda t: t.slice(1), DataError, "8 stays of the cohort 'default', found 7 rows"),
        (lambda t: pa.concat_tables([t, t.slice(0, 1)]), DataError, "9 rows for 8 stays"),
        (lambda t: _replace(t, "stay_id", range(8)), DataError, "one row for each"),
        (lambda t: _replace(t, "has", [False] * 8), SchemaError, "`has` must be true"),
        (lambda t: _replace(t, "why_no", ["x"] * 8), SchemaError, "`why_no` null"),
        (lambda t: _replace(t, "items", [["a"]] * 8), SchemaError, "1 items"),
        (lambda t: _replace(t, "items", [[None]] * 8), SchemaError, "has="),
        (lambda t: _replace(t, "items", [[1.5]] * 8), SchemaError, "list<.*double>"),
    ],
)
def test_links_that_contradict_themselves_are_refused(
    cache: Path, small: ModuleType, change: object, error: type[Exception], message: str
) -> None:
    before = small.tree(cache)
    with pytest.raises(error, match=message):
        write_links(cache, "default", "cxr", change(small.links()), {})  # type: ignore[operator]
    assert small.tree(cache) == before


def test_links_of_another_cohort_are_refused(cache: Path, small: ModuleType) -> None:
    write_cohort(cache, "other", small.stays(4), {})
    (cache / "cohorts/default/links").rename(cache / "cohorts/other/links")
    with pytest.raises(IntegrityError, match=r"links.*expected.*--cohort other"):
        Cohort.open(cache, "other").links("cxr")
    with pytest.raises(DataError, match="has no links for 'cxr'; it has none"):
        Cohort.open(cache).links("cxr")


def test_old_links_stay_readable_until_the_new_ones_are_committed(
    cache: Path, small: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Cohort.open(cache).links("cxr")
    for step in range(4, 7):  # the table is written, the JSON file is not
        count = 0

        def hook(kind: str, last: int = step) -> None:
            nonlocal count
            count += 1
            if count > last:
                raise KeyboardInterrupt

        monkeypatch.setattr(atomic, "step_hook", hook)
        changed = _replace(
            small.links(), "items", [[f"x{step}"] if i % 2 else [] for i in range(8)]
        )
        with pytest.raises(KeyboardInterrupt):
            write_links(cache, "default", "cxr", changed, {"film": f"new {step}"})
        monkeypatch.undo()
        assert Cohort.open(cache).links("cxr").fingerprint == before.fingerprint


def test_a_view_has_one_row_per_stay_and_zeros_for_the_absent(
    cache: Path, small: ModuleType
) -> None:
    seen = view(cache, Cohort.open(cache), "cxr")
    assert (seen.values.shape, seen.values.dtype) == ((8, 1, 6), np.float32)
    assert seen.has.tolist() == [False, True] * 4
    assert seen.mask.tolist() == [[False], [True]] * 4
    assert (seen.values[~seen.has] == 0).all()
    for row in (1, 3, 5, 7):
        expected = small.encode(row % 3).arrays["values"][row % 4]
        assert (seen.values[row, 0] == expected).all()
    assert (seen.name, seen.view, seen.space) == ("cxr", "vector", small.space().id)


def test_series_follow_each_other_without_a_gap(cache: Path) -> None:
    mask = np.array([[1, 1, 0], [1, 0, 0], [0, 1, 1]], dtype=bool)
    values = np.arange(1, 10, dtype=np.float32).reshape(3, 3, 1)
    space = Space("ehr", "series", {}, ("x",))
    _store(cache, space, [{"values": values, "mask": mask}])
    _links(cache, [["i00"], ["i00", "i01"], ["i02", "i00"], ["i01", "i01", "i02"], *[[]] * 4])
    seen = view(cache, Cohort.open(cache), "ehr")
    assert seen.values[:4, :, 0].tolist() == [
        [1, 2, 0, 0, 0, 0],
        [1, 2, 4, 0, 0, 0],
        [0, 8, 9, 1, 2, 0],
        [4, 4, 0, 8, 9, 0],
    ]
    assert seen.mask[:4].tolist() == [
        [True, True, False, False, False, False],
        [True, True, True, False, False, False],
        [False, True, True, True, True, False],
        [True, True, False, True, True, False],
    ]
    assert seen.columns == ("x",)
    assert not seen.has[4:].any()


def test_vectors_keep_all_their_parts(cache: Path) -> None:
    mask = np.array([[1, 0], [1, 1]], dtype=bool)
    values = np.array([[[1, 1], [9, 9]], [[3, 3], [4, 4]]], dtype=np.float16)
    _store(cache, Space("report", "vector", {}), [{"values": values, "mask": mask}])
    _links(cache, [["i00", "i01"], ["i01"], *[[]] * 6], "report")
    seen = view(cache, Cohort.open(cache), "report")
    assert seen.values[:2, :, 0].tolist() == [[1, 0, 3, 4], [3, 4, 0, 0]]
    assert seen.mask[:2].tolist() == [[True, False, True, True], [True, True, False, False]]
    assert seen.values.dtype == np.float32


def test_a_rejected_item_counts_as_absent(cache: Path) -> None:
    values = np.ones((1, 2), np.float32)
    _store(cache, Space("report", "vector", {}), [{"values": values}], rejects=["bad"])
    _links(cache, [["bad"], ["bad", "i00"], ["i00"], *[[]] * 5], "report")
    seen = view(cache, Cohort.open(cache), "report")
    assert seen.has[:3].tolist() == [False, True, True]
    assert seen.values[:3, :, 0].tolist() == [[0], [1], [1]]


def test_a_linked_item_may_be_missing_from_a_partial_store_alone(
    cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    values = np.ones((1, 2), np.float32)
    space = Space("report", "vector", {})
    _store(cache, space, [{"values": values}], complete=False)
    _links(cache, [["i00"], ["not-yet"], *[[]] * 6], "report")
    with caplog.at_level(logging.WARNING, "cm2.cache"):
        seen = view(cache, Cohort.open(cache), "report")
    assert "1 linked items are not encoded yet" in caplog.text
    assert seen.has[:2].tolist() == [True, False]
    StoreWriter(cache, space, {}).finish(True)
    with pytest.raises(IntegrityError, match=r"1 linked items are missing.*'not-yet'.*cm2 extract"):
        view(cache, Cohort.open(cache), "report")


def test_a_store_that_the_cohort_no_longer_links_is_not_called_damaged(cache: Path) -> None:
    values = np.ones((1, 2), np.float32)
    old, new = (Space("report", "vector", {"version": i}) for i in range(2))
    _store(cache, old, [{"values": values}])
    _store(cache, new, [{"values": values}, {"values": values}])
    _links(cache, [["i10"], *[[]] * 7], "report")
    with pytest.raises(ConfigError, match=f"links 1 items of report@{new.id}, not of.*{old.id}"):
        view(cache, Cohort.open(cache), "report", old.id)


def test_a_modality_without_any_item_is_all_absent(cache: Path) -> None:
    _store(cache, Space("report", "vector", {}), [])
    _links(cache, [[]] * 8, "report")
    seen = view(cache, Cohort.open(cache), "report")
    assert not seen.has.any()
    assert seen.values.shape[0] == 8


def test_the_content_of_a_view_follows_the_linked_vectors(cache: Path, small: ModuleType) -> None:
    before = view(cache, Cohort.open(cache), "cxr")
    small.fill(cache, chunks=range(4))  # more items, not linked
    assert view(cache, Cohort.open(cache), "cxr").content == before.content
    small.fill(cache, stamp="s1", chunks=range(1))
    after = view(cache, Cohort.open(cache), "cxr")
    assert after.content != before.content
    assert after.links == before.links


def test_extracting_another_modality_changes_no_fingerprint(cache: Path, small: ModuleType) -> None:
    before = view(cache, Cohort.open(cache), "cxr")
    cohort = Cohort.open(cache).fingerprint
    small.build(cache, "report")
    after = view(cache, Cohort.open(cache), "cxr")
    assert (after.content, after.links, after.space) == (before.content, before.links, before.space)
    assert Cohort.open(cache).fingerprint == cohort
    assert Cohort.open(cache).modalities == ("cxr", "report")
