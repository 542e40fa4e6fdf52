"""Which film a stay has: the last frontal one of its first 48 hours, or why there is none."""

from __future__ import annotations

import polars as pl
import pyarrow as pa

from ...cache.cohort import Cohort

VIEW = "AP"

# Why a stay has no film, from the widest reason to the narrowest.
NO_FILM = "no_film"
OUTSIDE_WINDOW = "outside_window"
NO_AP_FILM = "no_ap_film"


def link(stays: pl.DataFrame, films: pl.DataFrame, until_hours: float) -> pl.DataFrame:
    """Choose the last AP film between ICU entry and `until_hours` later, both ends included.

    Films of the same second are told apart by study_id, then dicom_id, the larger one last.

    Args:
        stays: stay_id, subject_id, intime; one row per stay.
        films: dicom_id, subject_id, study_id, view, study_time, path.
        until_hours: End of the window in hours after ICU entry.

    Returns:
        One row per stay in the order given: stay_id, dicom_id, study_id, subject_id, path,
        hours_from_intime (null without a film) and why_no (null with one).
    """
    found = stays.lazy().join(films.lazy(), on="subject_id", how="inner")
    after = pl.col("study_time") - pl.col("intime")
    window = pl.duration(seconds=round(until_hours * 3600))
    found = found.with_columns(
        hours_from_intime=after.dt.total_microseconds() / 3.6e9,
        inside=((after >= pl.duration(seconds=0)) & (after <= window)).fill_null(value=False),
    ).with_columns(fits=pl.col("inside") & (pl.col("view") == VIEW).fill_null(value=False))
    reasons = found.group_by("stay_id").agg(
        why_no=pl.when(pl.col("fits").any())
        .then(None)
        .when(pl.col("inside").any())
        .then(pl.lit(NO_AP_FILM))
        .otherwise(pl.lit(OUTSIDE_WINDOW)),
        any_film=pl.lit(value=True),
    )
    last = (
        found.filter("fits")
        .sort("stay_id", "study_time", "study_id", "dicom_id")
        .group_by("stay_id", maintain_order=True)
        .last()
        .select("stay_id", "dicom_id", "study_id", "path", "hours_from_intime")
    )
    return (
        stays.lazy()
        .select("stay_id", "subject_id")
        .join(last, on="stay_id", how="left", maintain_order="left")
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
    """Turn one item per stay (column `item`, null without) and why_no into the links table."""
    items = [[] if value is None else [value] for value in linked[item].to_list()]
    return pa.table(
        {
            "stay_id": linked["stay_id"].to_arrow(),
            "items": pa.array(items, pa.list_(pa.string())),
            "has": pa.array([bool(entry) for entry in items], pa.bool_()),
            "why_no": pa.array(linked["why_no"].to_list(), pa.string()),
        }
    )


__all__ = [
    "NO_AP_FILM",
    "NO_FILM",
    "OUTSIDE_WINDOW",
    "VIEW",
    "link",
    "links_table",
    "stays_of",
]
