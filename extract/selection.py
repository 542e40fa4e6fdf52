"""Which ICU stays are kept: the published rules, one row of attrition each."""

from __future__ import annotations

from dataclasses import dataclass, field

import polars as pl

from ..errors import DataError
from .sources import Source

ADULT_YEARS = 18

# ICU stays left after each rule: MIMIC-III by mimic3-benchmarks, MIMIC-IV v2.2 by the CM2 paper
# and by users of its cohort. Shown beside the counts, never enforced.
PUBLISHED = {
    "mimic3": {"all": 61532, "one_unit": 55830, "one_stay": 50186, "adult": 42276, "task": 21139},
    "mimic4": {"all": 73181, "adult": 56888, "task": 25071},
}
PUBLISHED_POSITIVES = {
    "mimic3": {"ihm": 2795, "readm": 3987},
    "mimic4": {"ihm": 3153, "readm": 4603},
}


@dataclass
class Attrition:
    """How many stays and subjects are left after each rule.

    Args:
        published: Published counts by key of the rule; empty for data without any.
    """

    published: dict[str, int]
    rows: list[dict[str, object]] = field(default_factory=list)

    def add(self, key: str, rule: str, left: pl.DataFrame, *, only_if_fewer: bool = False) -> None:
        """Record what is left; with `only_if_fewer` a rule that takes nothing is not shown."""
        if only_if_fewer and self.rows and self.rows[-1]["stays"] == left.height:
            return
        self.rows.append(
            {
                "rule": rule,
                "stays": left.height,
                "subjects": left["subject_id"].n_unique(),
                "paper": self.published.get(key),
            }
        )


def select(source: Source) -> tuple[pl.DataFrame, Attrition]:
    """Apply the selection rules in their published order.

    A stay is kept when it ends in the care unit (in MIMIC-III also the ward) where it began, is the
    only such stay of its hospital admission, and the patient is 18 or older at entry. Stays without
    usable times, without an admission or without a patient are dropped and counted.

    Args:
        source: The data set.

    Returns:
        The kept stays joined with admission and patient, plus `age` in years, sorted by stay_id,
        and the attrition.

    Raises:
        DataError: Two different rows have one id, or nothing is left.
    """
    stays = _unique(source.icustays, "stay_id", "ICU stay")
    attrition = Attrition({} if source.synthetic else PUBLISHED[source.dataset])
    attrition.add("all", "ICU stays", stays)
    usable = pl.col("intime").is_not_null() & (
        pl.col("outtime").is_null() | (pl.col("outtime") >= pl.col("intime"))
    )
    stays = stays.filter(usable)
    attrition.add("times", "with usable times", stays, only_if_fewer=True)
    stays = stays.filter(~pl.col("moved")).drop("moved")
    attrition.add("one_unit", "in one care unit throughout", stays)
    joined = stays.join(
        _unique(source.admissions, "hadm_id", "admission"), on=["subject_id", "hadm_id"]
    ).join(_unique(source.patients, "subject_id", "patient"), on="subject_id")
    attrition.add("known", "of a listed admission and patient", joined, only_if_fewer=True)
    joined = joined.filter(pl.len().over("hadm_id") == 1)
    attrition.add("one_stay", "the only one of the admission", joined)
    joined = joined.with_columns(age=source.age).filter(pl.col("age") >= ADULT_YEARS)
    attrition.add("adult", "of an adult", joined)
    if joined.is_empty():
        raise DataError(
            f"{source.root}: no ICU stay is left after selection: "
            + "; ".join(f"{row['stays']} {row['rule']}" for row in attrition.rows)
            + ". Do the tables belong to one release?"
        )
    return joined.sort("stay_id"), attrition


def _unique(frame: pl.DataFrame, key: str, what: str) -> pl.DataFrame:
    """Drop rows that repeat another one entirely; refuse two different rows of one id."""
    rows = frame.drop_nulls(key).unique()
    double = rows.filter(pl.col(key).is_duplicated())
    if double.height:
        raise DataError(
            f"{double[key].n_unique()} {what} ids stand in several different rows, first "
            f"{key} {double[key].sort()[0]}. Expected one row each; do the tables mix two releases?"
        )
    return rows


__all__ = ["ADULT_YEARS", "PUBLISHED", "PUBLISHED_POSITIVES", "Attrition", "select"]
