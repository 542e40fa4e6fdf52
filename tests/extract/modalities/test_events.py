from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import polars as pl
import pytest

from cm2.errors import DataError, SchemaError
from cm2.extract.config import ExtractConfig
from cm2.extract.modalities import events
from cm2.extract.runner import extract
from cm2.extract.selection import select
from cm2.extract.sources import open_source
from cm2.extract.sources.catalogue import Preset, published
from cm2.extract.sources.tables import Table

CORRECTED, REFERENCE = published("corrected"), published("reference")
NAMES = CORRECTED.names
Chart = Callable[..., dict[str, str]]


def found(
    tree: Any, root: Path, preset: Preset = "corrected", stay: int = 1000, **how: Any
) -> dict[str, list[tuple[float, float]]]:
    """Measurements of one stay by variable."""
    source = open_source(tree.write(root, **how))
    frame = events.measure(source, select(source)[0], published(preset))[0].found
    rows = frame.filter(pl.col("stay_id") == stay)
    by_name: dict[str, list[tuple[float, float]]] = {}
    for _, hours, variable, value in rows.iter_rows():
        by_name.setdefault(NAMES[variable], []).append((hours, value))
    return by_name


def add(tree: Any, *rows: dict[str, str]) -> None:
    tree.tables["chartevents"] += rows


def test_hours_count_from_icu_entry_and_end_at_48(
    mimic3: Any, charted: Chart, tmp_path: Path
) -> None:
    add(
        mimic3,
        charted(646, 0, "91"),
        charted(646, 48, "95"),
        charted(646, 1, "92", charttime="2150-01-01 01:00:36"),
        charted(646, 1, "99", charttime="2150-01-03 00:00:01"),
        charted(646, 1, "98", charttime="2149-12-31 23:59:59"),
    )
    saturation = found(mimic3, tmp_path)["Oxygen saturation"]
    assert saturation == [(0.0, 91.0), (pytest.approx(1.01), 92.0), (48.0, 95.0)]


def test_rows_belong_to_the_stay_of_their_admission(
    mimic3: Any, charted: Chart, tmp_path: Path
) -> None:
    add(
        mimic3,
        charted(646, 1, "91", icustay_id=""),
        charted(646, 2, "92", icustay_id="1001"),
        charted(646, 3, "93", hadm_id=""),
        charted(646, 4, "94", hadm_id="777"),
        charted(646, 5, "95"),
    )
    assert found(mimic3, tmp_path)["Oxygen saturation"] == [(1.0, 91.0), (5.0, 95.0)]


def test_only_the_reference_lends_rows_to_an_overlapping_stay(
    mimic3: Any, charted: Chart, tmp_path: Path
) -> None:
    mimic3.tables["icustays"][1] |= {
        "intime": "2150-01-01 02:00:00",
        "outtime": "2150-01-02 00:00:00",
    }
    add(mimic3, charted(646, 3, "93"))
    for preset, expected in (("corrected", None), ("reference", [(1.0, 93.0)])):
        lent = found(mimic3, tmp_path / preset, preset, stay=1001)  # type: ignore[arg-type]
        assert lent.get("Oxygen saturation") == expected
        own = found(mimic3, tmp_path / preset, preset)  # type: ignore[arg-type]
        assert own["Oxygen saturation"] == [(3.0, 93.0)]


def test_of_several_values_at_one_instant_the_largest_stays(
    mimic3: Any, charted: Chart, tmp_path: Path
) -> None:
    add(mimic3, charted(211, 5, "90"), charted(211, 5, "110"), charted(211, 5, "99"))
    for preset in ("corrected", "reference"):
        rates = found(mimic3, tmp_path / preset, preset)["Heart Rate"]  # type: ignore[arg-type]
        assert (5.0, 110.0) in rates
        assert len(rates) == 3


def test_the_reference_compares_coma_totals_as_text(
    mimic3: Any, charted: Chart, tmp_path: Path
) -> None:
    add(mimic3, charted(198, 5, "9"), charted(198, 5, "15"))
    total = "Glasgow coma scale total"
    places = CORRECTED.variables[NAMES.index(total)].reference_levels
    assert found(mimic3, tmp_path / "a")[total] == [(5.0, 15.0)]
    assert found(mimic3, tmp_path / "b", "reference")[total] == [(5.0, places.index("9"))]


def test_values_marked_as_errors_are_left_out_of_the_corrected_preset(
    mimic3: Any, charted: Chart, tmp_path: Path
) -> None:
    add(mimic3, charted(646, 1, "91", error="1"), charted(646, 2, "92", error="0"))
    assert found(mimic3, tmp_path / "a")["Oxygen saturation"] == [(2.0, 92.0)]
    kept = found(mimic3, tmp_path / "b", "reference")["Oxygen saturation"]
    assert kept == [(1.0, 91.0), (2.0, 92.0)]


def test_the_coma_total_is_summed_where_three_parts_and_no_total_are_charted(
    mimic3: Any, charted: Chart, tmp_path: Path
) -> None:
    eye, verbal, motor, total = 220739, 223900, 223901, 198
    add(
        mimic3,
        charted(eye, 1, "None"),
        charted(verbal, 1, "No Response-ETT"),
        charted(motor, 1, "Localizes Pain"),
        charted(eye, 2, "To Speech"),
        charted(motor, 2, "Obeys Commands"),
        charted(eye, 3, "To Speech"),
        charted(verbal, 3, "Oriented"),
        charted(motor, 3, "Obeys Commands"),
        charted(total, 3, "13"),
    )
    name = "Glasgow coma scale total"
    assert found(mimic3, tmp_path / "a")[name] == [(1.0, 7.0), (3.0, 13.0)]
    reference = found(mimic3, tmp_path / "b", "reference")[name]
    assert [hours for hours, _ in reference] == [3.0]


def test_closed_eyes_are_a_value_and_urine_is_no_blood(
    mimic3: Any, charted: Chart, tmp_path: Path
) -> None:
    add(mimic3, charted(220739, 1, "None"))
    lab = mimic3.tables["labevents"][0]
    mimic3.tables["labevents"] += [
        lab | {"itemid": "50820", "value": "7.3"},
        lab | {"itemid": "51491", "value": "6.0"},
        lab | {"itemid": "51478", "value": "1000"},
    ]
    rows = found(mimic3, tmp_path)
    assert rows["Glasgow coma scale eye opening"] == [(1.0, 1.0)]
    assert rows["pH"] == [(2.0, 7.3)]
    assert rows["Glucose"] == [(2.0, 110.0)]


def test_mimic4_units_are_never_seen_by_the_reference(
    mimic4: Any, charted: Chart, tmp_path: Path
) -> None:
    mimic4.tables["icu/chartevents"].append(charted(226707, 1, "67", "Inch"))
    reference = found(mimic4, tmp_path / "a", "reference")
    assert reference["Height"] == [(1.0, 67.0)]
    assert found(mimic4, tmp_path / "b")["Height"] == [(1.0, pytest.approx(170.18))]


@pytest.mark.parametrize(
    "how",
    [
        {"shuffle": 1},
        {"shuffle": 2, "upper": True},
        {"gz": False, "newline": "\r\n"},
        {"upper": True, "bom": True},
    ],
)
@pytest.mark.parametrize("preset", ["corrected", "reference"])
def test_shape_and_order_of_the_source_change_nothing(
    mimic3: Any, charted: Chart, tmp_path: Path, how: dict[str, Any], preset: Preset
) -> None:
    for i in range(60):
        add(mimic3, charted(211, i % 40 / 3, str(60 + i * 37 % 50)), charted(646, i / 2, "95"))
    plain = found(mimic3, tmp_path / "a", preset)
    assert found(mimic3, tmp_path / "b", preset, **how) == plain


@pytest.mark.parametrize(
    ("change", "column"),
    [
        ({"charttime": "yesterday"}, "charttime"),
        ({"hadm_id": "1e2"}, "hadm_id"),
        ({"icustay_id": "x"}, "icustay_id"),
        ({"itemid": "211a"}, "itemid"),
        ({"subject_id": "10.0"}, "subject_id"),
    ],
)
def test_an_unreadable_id_or_time_is_named_and_nothing_is_written(
    mimic3: Any, charted: Chart, tmp_path: Path, change: dict[str, str], column: str
) -> None:
    add(mimic3, charted(211, 2, "55512"), charted(211, 2, "55512") | change)
    source = open_source(mimic3.write(tmp_path / "root"))
    kept, _ = select(source)
    catalogue = REFERENCE if column == "subject_id" else CORRECTED  # the others never look at it
    with pytest.raises(SchemaError, match=rf"column {column}, data row 5") as caught:
        events.load(source, kept, tmp_path / "cache", catalogue)
    assert "55512" not in str(caught.value)
    assert not (tmp_path / "cache").exists()


def test_unreadable_cells_of_items_that_are_not_wanted_do_no_harm(
    mimic3: Any, charted: Chart, tmp_path: Path
) -> None:
    add(mimic3, charted(999, 2, "1", charttime="yesterday"))
    assert "Heart Rate" in found(mimic3, tmp_path)


def test_a_truncated_chart_table_is_refused_and_nothing_is_written(
    mimic3: Any, charted: Chart, tmp_path: Path
) -> None:
    for i in range(3000):
        add(mimic3, charted(211, i / 100, str(i * 7919 % 997)))
    root = mimic3.write(tmp_path / "root")
    path = root / "chartevents.csv.gz"
    path.write_bytes(path.read_bytes()[:-300])
    source = open_source(root)
    kept, _ = select(source)
    with pytest.raises(DataError, match=r"chartevents.csv.gz: truncated"):
        events.load(source, kept, tmp_path / "cache", CORRECTED)
    assert not (tmp_path / "cache").exists()


def test_tables_of_another_release_are_refused(mimic3: Any, tmp_path: Path) -> None:
    for row in mimic3.tables["chartevents"] + mimic3.tables["labevents"]:
        row["hadm_id"] = "5"
    source = open_source(mimic3.write(tmp_path / "root"))
    with pytest.raises(DataError, match="belong to one release"):
        events.measure(source, select(source)[0], CORRECTED)


def test_measurements_are_read_once_and_then_come_from_the_cache(
    mimic3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_source(mimic3.write(tmp_path / "root"))
    kept, _ = select(source)
    first = events.load(source, kept, tmp_path / "cache", CORRECTED)
    monkeypatch.setattr(events, "measure", lambda *_: pytest.fail("the source was read again"))
    again = events.load(source, kept, tmp_path / "cache", CORRECTED)
    assert first.equals(again)
    assert first.schema == again.schema


def test_several_catalogues_are_measured_in_one_pass_as_each_by_itself(
    mimic3: Any, charted: Chart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(
        mimic3,
        charted(646, 1, "91", error="1"),  # corrected leaves it out
        charted(198, 5, "9"),
        charted(198, 5, "15"),  # the reference compares as text
        charted(226512, 5, "80"),
        charted(3655, 6, "30", valueuom="cmH20"),
    )
    source = open_source(mimic3.write(tmp_path / "root"))
    kept, _ = select(source)
    alone = [events.measure(source, kept, one)[0] for one in (CORRECTED, REFERENCE)]
    read: list[str] = []
    blocks = Table.blocks

    def counted(table: Table, *args: Any) -> Any:
        read.append(table.name)
        return blocks(table, *args)

    monkeypatch.setattr(Table, "blocks", counted)
    events.load(source, kept, tmp_path / "cache", CORRECTED, REFERENCE)
    together = [
        events.load(source, kept, tmp_path / "cache", one) for one in (CORRECTED, REFERENCE)
    ]
    assert sorted(read) == ["chartevents", "labevents"]
    assert not alone[0].found.equals(alone[1].found)
    for one, other in zip(alone, together, strict=True):
        assert one.found.equals(other)


def test_the_published_preset_reads_the_charts_once_for_cohort_and_series(
    mimic3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = Mock(wraps=events.measure)
    monkeypatch.setattr(events, "measure", measured)
    root, cache = mimic3.write(tmp_path / "root"), tmp_path / "cache"
    extract(
        ExtractConfig.model_validate(
            {"data": root, "cache": cache, "modality": ("ehr",), "preset": "reference"}
        )
    )
    assert [call.args[2:] for call in measured.call_args_list] == [(CORRECTED, REFERENCE)]


def test_another_source_another_preset_or_another_stay_is_not_served_from_the_cache(
    mimic3: Any, charted: Chart, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    source = open_source(mimic3.write(tmp_path / "a"))
    kept, _ = select(source)
    events.load(source, kept, cache, CORRECTED)
    events.load(source, kept, cache, REFERENCE)
    events.load(source, kept.head(1), cache, CORRECTED)
    add(mimic3, charted(211, 9, "77"))
    other = events.load(open_source(mimic3.write(tmp_path / "b")), kept, cache, CORRECTED)
    assert 77.0 in other["value"].to_list()
    assert len(list((cache / "events").glob("*.parquet"))) == 4


def test_a_damaged_cache_file_is_made_anew_from_the_source(
    mimic3: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = tmp_path / "cache"
    source = open_source(mimic3.write(tmp_path / "a"))
    kept, _ = select(source)
    first = events.load(source, kept, cache, CORRECTED)
    path = next((cache / "events").glob("*.parquet"))
    data = bytearray(path.read_bytes())
    whole = bytes(data)
    data[len(data) // 3] ^= 1
    path.write_bytes(bytes(data))
    assert events.load(source, kept, cache, CORRECTED).equals(first)
    assert "anew" in caplog.text
    assert path.read_bytes() == whole


def test_the_cached_table_can_be_read_by_anybody(mimic3: Any, tmp_path: Path) -> None:
    source = open_source(mimic3.write(tmp_path / "a"))
    events.load(source, select(source)[0], tmp_path / "cache", CORRECTED)
    frame = pl.read_parquet(next((tmp_path / "cache" / "events").glob("*.parquet")))
    assert frame.columns == ["stay_id", "hours", "variable", "value"]
    assert frame.filter(pl.col("variable").cast(pl.String) == "Glucose")["value"].to_list() == [110]


def test_gz_members_may_be_several(mimic3: Any, charted: Chart, tmp_path: Path) -> None:
    add(mimic3, charted(646, 1, "91"))
    root = mimic3.write(tmp_path)
    path = root / "chartevents.csv.gz"
    head, _, tail = gzip.decompress(path.read_bytes()).partition(b"\n")
    path.write_bytes(gzip.compress(head + b"\n") + gzip.compress(tail))
    source = open_source(root)
    frame = events.measure(source, select(source)[0], CORRECTED)[0].found
    assert 91.0 in frame["value"].to_list()
