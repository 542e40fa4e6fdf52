"""Which film a stay has: last AP film of the window, fixed ties, one reason where there is none."""

from __future__ import annotations

from datetime import datetime, timedelta

import polars as pl
import pytest

from cm2.extract.modalities.linking import FilmRule, link, links_table

START = datetime(2150, 1, 1, 6, 30, 15)


def stays(count: int = 1) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "stay_id": [1000 + i for i in range(count)],
            "subject_id": [10 + i for i in range(count)],
            "intime": [START] * count,
        },
        schema_overrides={"intime": pl.Datetime("us")},
    )


def film(
    dicom: str, seconds: float | None, view: str | None = "AP", study: int = 1, subject: int = 10
) -> dict[str, object]:
    taken = None if seconds is None else START + timedelta(seconds=seconds)
    return {
        "dicom_id": dicom,
        "subject_id": subject,
        "study_id": study,
        "view": view,
        "study_time": taken,
        "path": f"/{dicom}.jpg",
    }


def table(*films: dict[str, object]) -> pl.DataFrame:
    schema = {
        "dicom_id": pl.String,
        "subject_id": pl.Int64,
        "study_id": pl.Int64,
        "view": pl.String,
        "study_time": pl.Datetime("us"),
        "path": pl.String,
    }
    return pl.DataFrame(list(films), schema)


def chosen(*films: dict[str, object]) -> tuple[str | None, str | None]:
    row = link(stays(), table(*films), 48.0).row(0, named=True)
    return row["dicom_id"], row["why_no"]


HOUR = 3600


def test_the_last_ap_film_of_the_window_is_taken_with_its_hours() -> None:
    row = link(
        stays(),
        table(film("a", 5 * HOUR), film("c", 40 * HOUR), film("b", 20 * HOUR)),
        48.0,
    ).row(0, named=True)
    assert (row["dicom_id"], row["hours_from_intime"], row["why_no"]) == ("c", 40.0, None)


@pytest.mark.parametrize(
    ("seconds", "inside"),
    [(-1, False), (0, True), (48 * HOUR, True), (48 * HOUR + 1, False)],
)
def test_both_ends_of_the_window_belong_to_it(seconds: int, inside: bool) -> None:
    expected = ("a", None) if inside else (None, "outside_window")
    assert chosen(film("a", seconds)) == expected


def test_a_later_film_of_another_view_does_not_push_the_ap_film_out() -> None:
    views = [
        film("b", 30 * HOUR, "LATERAL"),
        film("c", 31 * HOUR, "PA"),
        film("d", 32 * HOUR, None),
    ]
    assert chosen(film("a", 5 * HOUR), *views) == ("a", None)


def test_films_of_one_second_are_told_apart_by_study_then_dicom_whatever_the_row_order() -> None:
    same = [film("z", HOUR, study=1), film("a", HOUR, study=2), film("b", HOUR, study=2)]
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        assert chosen(*(same[i] for i in order)) == ("b", None)


@pytest.mark.parametrize(
    ("films", "reason"),
    [
        ([], "no_film"),
        ([film("a", HOUR, subject=99)], "no_film"),
        ([film("a", -HOUR), film("b", 60 * HOUR)], "outside_window"),
        ([film("a", None)], "outside_window"),
        ([film("a", HOUR, "PA"), film("b", 60 * HOUR)], "no_ap_film"),
        ([film("a", HOUR, None)], "no_ap_film"),
        ([film("a", HOUR, "ap")], "no_ap_film"),
    ],
)
def test_absence_has_the_narrowest_reason(films: list[dict[str, object]], reason: str) -> None:
    assert chosen(*films) == (None, reason)


def test_every_stay_keeps_its_row_and_order() -> None:
    many = stays(4).sample(fraction=1.0, shuffle=True, seed=1)
    linked = link(many, table(film("a", HOUR, subject=12)), 48.0)
    assert linked["stay_id"].to_list() == many["stay_id"].to_list()
    links = links_table(linked, "dicom_id").to_pylist()
    assert [row["items"] for row in links if row["has"]] == [["a"]]
    assert {row["stay_id"] for row in links if row["has"]} == {1002}
    assert all((row["why_no"] is None) == row["has"] for row in links)


def test_an_earlier_prediction_time_reads_nothing_later() -> None:
    films = table(film("a", 5 * HOUR), film("b", 20 * HOUR))
    assert link(stays(), films, 12.0)["dicom_id"].to_list() == ["a"]


def films_of(rule: FilmRule, *films: dict[str, object]) -> list[str | None]:
    return link(stays(), table(*films), 48.0, rule)["dicom_id"].to_list()


def test_the_first_or_all_films_can_be_asked_for() -> None:
    films = [film("b", 20 * HOUR), film("a", 5 * HOUR), film("c", 50 * HOUR), film("z", 5 * HOUR)]
    assert films_of(FilmRule("first"), *films) == ["a"]
    assert films_of(FilmRule("all"), *films) == ["a", "z", "b"]
    assert films_of(FilmRule("last"), *films) == ["b"]


def test_other_views_count_when_they_are_named_and_the_reason_names_them() -> None:
    films = [film("a", 5 * HOUR), film("b", 9 * HOUR, "PA"), film("c", 10 * HOUR, "LATERAL")]
    assert films_of(FilmRule(views=("AP", "PA")), *films) == ["b"]
    assert films_of(FilmRule(views=("LATERAL",)), *films) == ["c"]
    row = link(stays(), table(films[2]), 48.0, FilmRule(views=("AP", "PA"))).row(0, named=True)
    assert (row["dicom_id"], row["why_no"]) == (None, "no_ap_or_pa_film")


def test_the_window_may_begin_before_or_after_icu_entry() -> None:
    films = [film("a", -10 * HOUR), film("b", 5 * HOUR), film("c", 20 * HOUR)]
    assert films_of(FilmRule("first", from_hours=-12.0), *films) == ["a"]
    assert films_of(FilmRule("first", from_hours=5.0), *films) == ["b"]
    assert films_of(FilmRule("first", from_hours=6.0), *films) == ["c"]
    linked = link(stays(), table(*films), 48.0, FilmRule("first", from_hours=-12.0))
    assert linked["hours_from_intime"].to_list() == [-10.0]


def test_links_of_several_films_keep_their_order_and_each_item_once() -> None:
    films = [
        film("c", 5 * HOUR, study=7),
        film("a", 6 * HOUR, study=7),
        film("b", 7 * HOUR, study=3),
        film("x", HOUR, subject=12),
    ]
    linked = link(stays(3), table(*films), 48.0, FilmRule("all"))
    rows = links_table(linked, "dicom_id").to_pylist()
    assert [row["items"] for row in rows] == [["c", "a", "b"], [], ["x"]]
    assert [row["why_no"] for row in rows] == [None, "no_film", None]
    studies = linked.with_columns(report=pl.format("s{}", pl.col("study_id")))
    assert links_table(studies, "report").to_pylist()[0]["items"] == ["s7", "s3"]
