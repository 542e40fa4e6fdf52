from __future__ import annotations

import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import polars as pl
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cm2.cache.cohort import Cohort
from cm2.errors import CM2Error, DataError, RejectsError, SchemaError
from cm2.extract.summary import ExtractSummary

from .conftest import Extract, View, column, why_not

ENTRY = "2150-01-01 06:00:00"
UNTIL = "2150-01-03 06:00"  # 48 h later


def stays(folder: Path, *intimes: str) -> None:
    """A table of stays 100, 101, …, each with its entry."""
    lines = [f"{100 + row},{row},{intime}" for row, intime in enumerate(intimes)]
    (folder / "stays.csv").write_text("\n".join(["stay_id,subject_id,intime", *lines]) + "\n")


def events(folder: Path, *rows: str, time: str = "time") -> None:
    """Events of the variable a, each with a value that says which row it is: 1, 2, …"""
    lines = [f"{row},a,{i + 1}" for i, row in enumerate(rows)]
    (folder / "e.csv").write_text("\n".join([f"stay_id,{time},variable,value", *lines]) + "\n")


def errors(folder: Path, result: ExtractSummary) -> list[str]:
    """Stage and class of the rejects of the first modality."""
    table = pq.read_table(folder / "cache" / result.modalities[0].rejects)
    return [f"{row['stage']}:{row['error']}" for row in table.to_pylist()]


@pytest.mark.parametrize(
    ("entry", "time"),
    [(f"{ENTRY}-05:00", "2150-01-03 08:00"), (ENTRY, "2150-01-03T08:00:00Z")],
)
@pytest.mark.parametrize("kind", ["events", "texts"])
def test_times_of_which_only_one_side_has_a_zone_are_refused(
    folder: Path, run: Extract, entry: str, time: str, kind: str
) -> None:
    stays(folder, entry)
    events(folder, f"100,{time}")
    if kind == "texts":
        (folder / "e.csv").write_text(f"stay_id,time,text\n100,{time},fever\n")
    with pytest.raises(
        SchemaError, match=r"e\.csv: .*'time'.* zone .*intime of the table of stays"
    ):
        run("x=e.csv", encoder=["x=tinybert"] if kind == "texts" else [], weights=["random:0"])


def test_times_of_parquet_of_which_only_one_side_has_a_zone_are_refused(
    folder: Path, run: Extract
) -> None:
    naive = datetime.datetime(2150, 1, 1, 6)
    aware = naive.replace(tzinfo=ZoneInfo("America/New_York"))
    for intime, time in ((naive, aware), (aware, naive)):
        table = {"stay_id": [100], "subject_id": [1], "intime": [intime]}
        pl.DataFrame(table).write_parquet(folder / "s.parquet")
        table = {"stay_id": [100], "time": [time], "variable": ["a"], "value": [1.0]}
        pl.DataFrame(table).write_parquet(folder / "e.parquet")
        with pytest.raises(SchemaError, match="time zone"):
            run("x=e.parquet", stays=folder / "s.parquet", cohort=f"c{intime.tzinfo is None}")


@pytest.mark.parametrize("place", ["csv", "parquet"])
def test_times_with_zones_on_both_sides_are_compared_in_utc(
    folder: Path, run: Extract, look: View, place: str
) -> None:
    stays(folder, f"{ENTRY}-05:00")
    events(
        folder,
        "100,2150-01-01T11:30Z",  # half an hour after the entry
        "100,2150-01-03 16:29:59.5+05:30",  # half a second before 48 h
        "100,2150-01-03T06:01:00.000-0500",  # a minute too late
        "100,2150-01-01 12:59 +02",  # a minute before the entry
    )
    if place == "parquet":
        table = pl.read_csv(folder / "e.csv").with_columns(
            pl.Series("time", [11.5, 58.99, 59.02, 10.9])
        )
        start = pl.datetime(2150, 1, 1, time_zone="UTC")
        table.with_columns(
            time=(start + pl.duration(minutes=pl.col("time") * 60)).dt.convert_time_zone(
                "Asia/Kolkata"
            )
        ).write_parquet(folder / "e.parquet")
    summary = run(f"x=e.{place}", step_hours=24.0)
    assert column(look("x"), "a")[0].tolist() == [1, 2]
    assert column(look("x"), "measured:a")[0].tolist() == [1, 1]
    assert "after_prediction_time 1, before_entry 1" in summary.modalities[0].timing


def test_zones_in_some_rows_only_are_refused(folder: Path, run: Extract) -> None:
    stays(folder, f"{ENTRY}Z", ENTRY)
    events(folder, "100,2150-01-01 07:00Z")
    with pytest.raises(SchemaError, match=r"stays\.csv: intime has a time zone in row 1 .* row 2"):
        run("x=e.csv")
    stays(folder, f"{ENTRY}Z")
    events(folder, "100,2150-01-01 07:00Z", "100,2150-01-01 07:00")
    with pytest.raises(SchemaError, match=r"1 times .* have a time zone and 1 have none"):
        run("x=e.csv")


@pytest.mark.parametrize(
    "word", ["03/29/2020 00:30", "01/02/2020", "2150-13-01", "2150-01-01 25:00", "yesterday"]
)
def test_an_entry_in_another_form_is_refused_with_its_row_and_without_the_cell(
    folder: Path, run: Extract, word: str
) -> None:
    stays(folder, ENTRY, "", word)
    events(folder, "100,2150-01-01 07:00")
    with pytest.raises(SchemaError, match=r"stays\.csv, row 3: intime .*2150-01-31") as caught:
        run("x=e.csv")
    assert word not in str(caught.value)


@pytest.mark.parametrize(
    ("time", "bad"),
    [("hours", "2,5"), ("hours", "unknown"), ("minute", "1h"), ("time", "02.01.2150 07:00")],
)
def test_a_time_that_cannot_be_read_is_a_reject_of_its_own_class(
    folder: Path, run: Extract, look: View, time: str, bad: str
) -> None:
    good = ENTRY if time == "time" else "1"
    events(folder, f"100,{good}", f'101,"{bad}"', time=time)
    with pytest.raises(RejectsError, match="1 of 2"):
        run("x=e.csv")
    assert errors(folder, run("x=e.csv", max_reject=0.5)) == ["read:NotATime"]
    assert look("x").has[:2].tolist() == [True, False]


def test_a_time_that_cannot_be_read_rejects_texts_and_rows_of_tables_too(
    folder: Path, run: Extract, look: View
) -> None:
    (folder / "t.csv").write_text('stay_id,hours,text\n100,1,fever\n100,"1,5",pain\n')
    encoded = {"encoder": ["note=tinybert"], "weights": ["random:0"]}
    assert errors(folder, run("note=t.csv", max_reject=0.5, **encoded)) == ["read:NotATime"]
    assert look("note").mask[0].sum() == 1
    (folder / "w.csv").write_text('stay_id,hours,x\n100,1,5\n101,"1,5",6\n')
    assert errors(folder, run("lab=w.csv", max_reject=0.5)) == ["read:NotATime"]
    assert look("lab").has[:2].tolist() == [True, False]


def test_a_time_that_cannot_be_read_rejects_an_image_that_is_there(
    folder: Path, run: Extract
) -> None:
    for name in ("a", "b"):
        Image.linear_gradient("L").save(folder / f"{name}.png")
    (folder / "f.csv").write_text('stay_id,hours,path\n100,1,a.png\n101,"1,5",b.png\n')
    result = run("film=f.csv", max_reject=0.5, level="pixels", side=64)
    assert errors(folder, result) == ["read:NotATime"]
    assert result.modalities[0].stays == 1


def test_stays_without_a_usable_time_have_a_reason_of_their_own(folder: Path, run: Extract) -> None:
    stays(folder, ENTRY, "", ENTRY, ENTRY, ENTRY)
    events(
        folder,
        f"100,{ENTRY}",
        f"101,{ENTRY}",
        "102,",
        f"103,{UNTIL}:01",
        "104,2149-12-31",
        "104,2150-01-01",
    )
    result = run("x=e.csv").modalities[0]
    assert result.rejected == 0
    assert result.absent == {"after_prediction_time": 1, "before_entry": 1, "no_time": 2}
    assert result.timing == (
        "checked: nothing after 48 h; rows not used: after_prediction_time 1, before_entry 2, "
        "no_time 2"
    )
    assert why_not(folder / "cache", "x")[101] == "no_time"
    (folder / "n.csv").write_text("stay_id,hours,text\n100,1,fever\n101,,pain\n")
    run("note=n.csv", encoder=["note=tinybert"], weights=["random:0"])
    assert why_not(folder / "cache", "note")[101] == "no_time"
    (folder / "w.csv").write_text("stay_id,hours,x\n100,1,5\n101,,6\n")
    run("lab=w.csv")
    assert why_not(folder / "cache", "lab")[101] == "no_time"


@pytest.mark.parametrize("hours", ["-3", "60", ""])
def test_a_file_that_has_nothing_for_any_stay_is_an_error_with_the_reasons(
    folder: Path, run: Extract, hours: str
) -> None:
    events(folder, f"100,{hours}", f"101,{hours}", time="hours")
    reason = {"-3": "before_entry", "60": "after_prediction_time", "": "no_time"}[hours]
    with pytest.raises(DataError, match=rf"e\.csv: .*any of the 2 stays .*\({reason} 2\)"):
        run("x=e.csv")


def test_only_a_series_begins_at_the_entry_earlier_texts_images_and_tables_are_used(
    folder: Path, run: Extract, look: View
) -> None:
    events(folder, "100,-3", "100,1", time="hours")
    run("x=e.csv")
    assert column(look("x"), "a")[0].max() == 2
    assert column(look("x"), "measured:a")[0].sum() == 1
    (folder / "t.csv").write_text("stay_id,hours,text\n100,1,fever\n100,-3,pain\n")
    run("note=t.csv", encoder=["note=tinybert"], weights=["random:0"])
    assert look("note").mask[0].sum() == 2
    (folder / "w.csv").write_text("stay_id,hours,x\n100,-3,5\n")
    run("lab=w.csv")
    assert column(look("lab"), "x")[0].tolist() == [5]
    Image.linear_gradient("L").save(folder / "a.png")
    (folder / "f.csv").write_text("stay_id,hours,path\n100,-3,a.png\n")
    result = run("film=f.csv", level="pixels", side=64).modalities[0]
    assert (result.stays, result.timing) == (1, "checked: nothing after 48 h")


def test_times_that_are_no_numbers_of_hours_are_refused(folder: Path, run: Extract) -> None:
    table = {"stay_id": [100], "hours": [datetime.date(2150, 1, 1)], "variable": ["a"]}
    pl.DataFrame({**table, "value": [1.0]}).write_parquet(folder / "e.parquet")
    with pytest.raises(SchemaError, match="'hours' must hold numbers, found Date"):
        run("x=e.parquet")


def test_a_word_that_means_unknown_is_no_unreadable_time(folder: Path, run: Extract) -> None:
    events(folder, f"100,{ENTRY}", "101,never")
    (folder / "own.toml").write_text('[modality.x]\nfile = "e.csv"\nmissing = ["never"]\n')
    assert run("x", config=folder / "own.toml").modalities[0].absent["no_time"] == 1


def test_an_entry_with_a_zone_stays_marked_in_the_cohort(folder: Path, run: Extract) -> None:
    stays(folder, f"{ENTRY}+01:00")
    events(folder, "100,1", time="hours")
    run("x=e.csv")
    (found,) = Cohort.open(folder / "cache").stays["intime"].to_pylist()
    assert found == datetime.datetime(2150, 1, 1, 5, tzinfo=datetime.UTC)


def test_no_error_of_a_time_is_a_bug(folder: Path, run: Extract) -> None:
    for word in ("2150-01-01 06:00:00.1234567890", "24:00", "0000-00-00", "2150-01-01T", "٢١٥٠"):
        stays(folder, word)
        with pytest.raises(CM2Error):
            run("x=e.csv")
