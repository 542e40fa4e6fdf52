"""The table of stays: labels, splits by patient, attrition."""

from __future__ import annotations

from typing import Any

import polars as pl
import pyarrow as pa

from ..cache.cohort import Cohort
from ..errors import ConfigError
from .config import ExtractConfig
from .modalities import events
from .selection import ADULT_YEARS, PUBLISHED_POSITIVES, select
from .sources import Source
from .sources.catalogue import Catalogue, published
from .splits import assign

READMISSION_DAYS = 30
TASKS = ("ihm", "readm")
PUBLISHED_SPLITS = {
    "mimic3": {"train": 14_681, "val": 3_222, "test": 3_236},
    "mimic4": {"train": 18_064, "val": 2_035, "test": 4_972},
}
_EPSILON_HOURS = 1e-6


def rules(source: Source, config: ExtractConfig) -> dict[str, object]:
    """Return everything that decides which stays and labels a cohort has, splits apart."""
    return {
        "dataset": source.dataset,
        "adult_years": ADULT_YEARS,
        "eligible": f"48 h in the unit and a measurement in the first {events.PREDICTION_HOURS} h",
        "prediction_hours": events.PREDICTION_HOURS,
        "ihm": config.death_rule,
        "readm": config.readm_rule,
        "readmission_days": READMISSION_DAYS,
    }


def build(
    source: Source, config: ExtractConfig, *catalogues: Catalogue
) -> tuple[pa.Table, dict[str, Any]]:
    """Make the table of stays of a MIMIC data set.

    A stay is eligible for both tasks when it lasts 48 h and has at least one measurement in the
    first 48 h. In-hospital death (`ihm`) and death or readmission within 30 days (`readm`) are
    predicted at 48 h after ICU entry.

    Args:
        source: The data set.
        config: Rules, splits, cache.
        catalogues: What will be measured next; the tables are read for it in the same pass.

    Returns:
        One row per kept stay, sorted by stay_id, and the record for cohort.json: dataset, release,
        synthetic, rules, split, attrition, tasks.

    Raises:
        DataError: Tables are missing, damaged, or of different releases.
        LeakageError: The user's lists put a patient into two splits.
    """
    source.check_lengths(source.lengths, allow=config.allow_count_drift)
    kept, attrition = select(source)
    catalogue = published("corrected")  # who is in a cohort never hangs on the user's variables
    measured = events.load(source, kept, config.cache, catalogue, *catalogues)
    charted = events.lengths(source, kept, config.cache, catalogue)
    source.check_lengths(charted, allow=config.allow_count_drift)
    with_events = measured["stay_id"].unique()
    long_enough = pl.col("los_days") * 24 >= events.PREDICTION_HOURS - _EPSILON_HOURS
    eligible = long_enough.fill_null(value=False) & pl.col("stay_id").is_in(with_events.implode())
    stays = kept.with_columns(
        eligible=eligible,
        died=_died(config.death_rule),
        los_hours=pl.col("los_days") * 24,
        race=race_group(),
        sex=pl.when(pl.col("sex").is_in(["F", "M"])).then("sex").otherwise(pl.lit("unknown")),
        unit=pl.col("unit").fill_null("unknown"),
    )
    admissions = stays if config.readm_rule == "icu" else source.admissions.unique()
    stays = stays.join(readmitted(admissions), on="hadm_id", how="left")
    attrition.add("task", "eligible at 48 h", stays.filter("eligible"))
    splits, split_rule = assign(
        source.dataset, stays["subject_id"].to_list(), config.splits, config.split_seed
    )
    readm = pl.col("died") | pl.col("readmitted").fill_null(value=False)
    table = stays.select(
        "stay_id",
        "subject_id",
        "hadm_id",
        "intime",
        "outtime",
        pl.col("subject_id").replace_strict(splits, return_dtype=pl.String).alias("split"),
        "age",
        "sex",
        "race",
        "unit",
        "los_hours",
        in_ihm="eligible",
        y_ihm=pl.col("died").cast(pl.Int8),
        in_readm="eligible",
        y_readm=readm.cast(pl.Int8),
    ).sort("stay_id")
    return to_arrow(table), {
        "dataset": source.dataset,
        "release": source.release,
        "synthetic": source.synthetic,
        "rules": rules(source, config),
        "split": split_rule,
        "attrition": attrition.rows,
        "rows": source.lengths,
        "tasks": _tasks(source, table, stays),
    }


def check(cohort: Cohort, source: Source, config: ExtractConfig) -> None:
    """Refuse to go on with a cohort that was built under other rules than now asked for.

    Raises:
        ConfigError: Data set, rules or splits differ; the message says which.
    """
    asked = rules(source, config)
    built = cohort.info["rules"]
    differences = [
        f"{name}: {built.get(name)!r} there, {value!r} now"
        for name, value in asked.items()
        if built.get(name) != value
    ]
    subjects = cohort.stays.column("subject_id").to_pylist()
    _, split_rule = assign(source.dataset, subjects, config.splits, config.split_seed)
    if split_rule != cohort.info["split"]:
        differences.append(f"split: {cohort.info['split']} there, {split_rule} now")
    if differences:
        raise ConfigError(
            f"The cohort {cohort.name!r} in {config.cache} was built differently ("
            + "; ".join(differences)
            + "). Repeat its options, or name another one with --cohort; vectors are shared."
        )


def race_group() -> pl.Expr:
    """Group the release's words for race or ethnicity, as mimic3-benchmarks does.

    asian, black (with Caribbean), hispanic (with South American), white (with Portuguese and
    Middle Eastern), other, unknown (not given, declined, not obtainable).
    """
    word = pl.col("race").str.to_uppercase()

    def has(pattern: str) -> pl.Expr:
        return word.str.contains(pattern)

    return (
        pl.when(word.is_null() | has("^UNKNOWN|^UNABLE|DECLINED|NOT SPECIFIED"))
        .then(pl.lit("unknown"))
        .when(has("HISPANIC|LATINO|SOUTH AMERICAN"))
        .then(pl.lit("hispanic"))
        .when(has("^BLACK|CARIBBEAN"))
        .then(pl.lit("black"))
        .when(has("^ASIAN"))
        .then(pl.lit("asian"))
        .when(has("^WHITE|PORTUGUESE|MIDDLE EASTERN"))
        .then(pl.lit("white"))
        .otherwise(pl.lit("other"))
        .alias("race")
    )


def _died(rule: str) -> pl.Expr:
    """Return whether the patient died in this admission.

    `deathtime`: a time of death or the flag of the admission. `dod`, the published rule: the date
    or the time of death lies between admission and discharge; a death later on the day of
    discharge counts as well, because a date is its midnight.
    """
    if rule == "deathtime":
        return pl.col("deathtime").is_not_null() | pl.col("expire_flag").eq(1).fill_null(
            value=False
        )
    within = [
        pl.col(column).is_between(pl.col("admittime"), pl.col("dischtime")).fill_null(value=False)
        for column in ("dod", "deathtime")
    ]
    return pl.any_horizontal(within)


def readmitted(admissions: pl.DataFrame) -> pl.DataFrame:
    """Return hadm_id, readmitted: the patient's next admission begins within 30 days."""
    ordered = admissions.select("subject_id", "hadm_id", "admittime", "dischtime").sort(
        "subject_id", "admittime", "dischtime", "hadm_id"
    )
    following = pl.col("admittime").shift(-1).over("subject_id")
    gap = following - pl.col("dischtime")
    soon = (gap < pl.duration(days=READMISSION_DAYS)).fill_null(value=False)
    return ordered.select("hadm_id", readmitted=soon)


def to_arrow(table: pl.DataFrame) -> pa.Table:
    """Return the stays as an Arrow table with plain text columns."""
    arrow = table.to_arrow()
    strings = {"split", "sex", "race", "unit"}
    schema = pa.schema(
        [
            pa.field(field.name, pa.string() if field.name in strings else field.type)
            for field in arrow.schema
        ]
    )
    return arrow.cast(schema)


def _tasks(source: Source, table: pl.DataFrame, stays: pl.DataFrame) -> dict[str, object]:
    published = {} if source.synthetic else PUBLISHED_POSITIVES[source.dataset]
    eligible = table.filter("in_ihm")
    survivors = stays.filter(pl.col("eligible") & ~pl.col("died"))
    return {
        "ihm": {
            "stays": eligible.height,
            "positives": int(eligible["y_ihm"].sum()),
            "paper_positives": published.get("ihm"),
        },
        "readm": {
            "stays": eligible.height,
            "positives": int(eligible["y_readm"].sum()),
            "readmitted_survivors": int(survivors["readmitted"].sum()),
            "paper_positives": published.get("readm"),
        },
    }


__all__ = [
    "PUBLISHED_SPLITS",
    "TASKS",
    "build",
    "check",
    "race_group",
    "readmitted",
    "rules",
    "to_arrow",
]
