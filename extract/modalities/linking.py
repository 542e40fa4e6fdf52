"""Which films a stay has: by default the last frontal one of its first 48 hours, or why none."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl
import pyarrow as pa

from ...cache.cohort import Cohort
from ..config import ExtractConfig

VIEW = "AP"

# Why a stay has no film, from the widest reason to the narrowest; the narrowest is `other_view`.
NO_FILM = "no_film"
OUTSIDE_WINDOW = "outside_window"
NO_AP_FILM = "no_ap_film"


@dataclass(frozen=True)
class FilmRule:
    """Which of the films of a window a stay keeps.

    Args:
        which: last, first or all.
        views: Values of ViewPosition that count, spelled as in the table.
        from_hours: Start of the window in hours after ICU entry; negative before it.
    """

    which: str = "last"
    views: tuple[str, ...] = (VIEW,)
    from_hours: float = 0.0

    @classmethod
    def of(cls, config: ExtractConfig) -> FilmRule:
        """The rule that the options name."""
        return cls(config.film, config.film_views, config.film_from_hours)

    @property
    def other_view(self) -> str:
        """Reason code of a stay whose films of the window all show other views."""
        return f"no_{'_or_'.join(view.lower() for view in self.views)}_film"


LAST_AP = FilmRule()
"""The published rule."""


def film_end(config: ExtractConfig) -> float:
    """End of the window of films in hours after ICU entry."""
    given = config.film_until_hours
    return config.until_hours if given is None else given


def link(
    stays: pl.DataFrame, films: pl.DataFrame, until_hours: float, rule: FilmRule = LAST_AP
) -> pl.DataFrame:
    """Choose the films of every stay inside a window, both ends included.

    Films of the same second are told apart by study_id, then dicom_id, the larger one last.

    Args:
        stays: stay_id, subject_id, intime; one row per stay.
        films: dicom_id, subject_id, study_id, view, study_time, path.
        until_hours: End of the window in hours after ICU entry.
        rule: Which films count, and how many of them are kept.

    Returns:
        stay_id, dicom_id, study_id, subject_id, path, hours_from_intime and view (null without a
        film) and why_no (null with one). Stays in the order given, one row each; with `all` one
        row per film, in time order.
    """
    found = stays.lazy().join(films.lazy(), on="subject_id", how="inner")
    after = pl.col("study_time") - pl.col("intime")
    begin = pl.duration(seconds=round(rule.from_hours * 3600))
    end = pl.duration(seconds=round(until_hours * 3600))
    of_view = pl.col("view").is_in(list(rule.views)).fill_null(value=False)
    found = found.with_columns(
        hours_from_intime=after.dt.total_microseconds() / 3.6e9,
        inside=((after >= begin) & (after <= end)).fill_null(value=False),
    ).with_columns(fits=pl.col("inside") & of_view)
    reasons = found.group_by("stay_id").agg(
        why_no=pl.when(pl.col("fits").any())
        .then(None)
        .when(pl.col("inside").any())
        .then(pl.lit(rule.other_view))
        .otherwise(pl.lit(OUTSIDE_WINDOW)),
        any_film=pl.lit(value=True),
    )
    fitting = found.filter("fits").sort("stay_id", "study_time", "study_id", "dicom_id")
    if rule.which != "all":
        grouped = fitting.group_by("stay_id", maintain_order=True)
        fitting = grouped.first() if rule.which == "first" else grouped.last()
    kept = fitting.select("stay_id", "dicom_id", "study_id", "path", "hours_from_intime", "view")
    return (
        stays.lazy()
        .select("stay_id", "subject_id")
        .join(kept, on="stay_id", how="left", maintain_order="left_right")
        .join(reasons, on="stay_id", how="left", maintain_order="left")
        .with_columns(
            why_no=pl.when(pl.col("any_film").is_null())
            .then(pl.lit(NO_FILM))
            .otherwise(pl.col("why_no"))
        )
        .drop("any_film")
        .collect()
    )


def stays_of(cohort: Cohort) -> pl.DataFrame:
    """The columns of the stays that links need: stay_id, subject_id, intime."""
    return pl.DataFrame(
        pl.from_arrow(cohort.stays.select(["stay_id", "subject_id", "intime"]))
    ).with_columns(pl.col("intime").cast(pl.Datetime("us")))


def links_table(linked: pl.DataFrame, item: str) -> pa.Table:
    """Turn rows of stay_id, an item (column `item`, null for none) and why_no into the links.

    A stay may have several rows; its items keep their order, each once.
    """
    stays = linked.group_by("stay_id", maintain_order=True).agg(
        items=pl.col(item).drop_nulls().unique(maintain_order=True),
        why_no=pl.col("why_no").first(),
    )
    has = stays["items"].list.len() > 0
    why_no = [None if there else why for there, why in zip(has, stays["why_no"], strict=True)]
    return pa.table(
        {
            "stay_id": stays["stay_id"].to_arrow(),
            "items": pa.array(stays["items"].to_list(), pa.list_(pa.string())),
            "has": pa.array(has.to_list(), pa.bool_()),
            "why_no": pa.array(why_no, pa.string()),
        }
    )


__all__ = [
    "LAST_AP",
    "NO_AP_FILM",
    "NO_FILM",
    "OUTSIDE_WINDOW",
    "VIEW",
    "FilmRule",
    "film_end",
    "link",
    "links_table",
    "stays_of",
]
