"""What is measured in the synthetic hospital: vital signs, coma scale, laboratory values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from numpy.random import Generator
from scipy.special import expit

from .demo_patients import Hospital, Stay

CHARTED_HOURS = 60.0
_EYE = ("None", "To Pain", "To Speech", "Spontaneously")
_VERBAL = (
    "No Response",
    "Incomprehensible sounds",
    "Inappropriate Words",
    "Confused",
    "Oriented",
)
_MOTOR = (
    "No response",
    "Abnormal extension",
    "Abnormal Flexion",
    "Flex-withdraws",
    "Localizes Pain",
    "Obeys Commands",
)
# itemid, label, unit, hours between values, mean, spread between stays, effect of one standard
# deviation of severity, spread within a stay, decimals, lowest and highest value
_VITALS: tuple[tuple[int, str, str, float, float, float, float, float, int, float, float], ...] = (
    (220045, "Heart Rate", "bpm", 1, 84, 11.0, 6.0, 5.0, 0, 20, 220),
    (220210, "Respiratory Rate", "insp/min", 1, 18, 2.8, 1.7, 2.5, 0, 4, 60),
    (220277, "O2 saturation pulseoxymetry", "%", 1, 97, 1.2, -0.7, 1.2, 0, 60, 100),
    (220179, "Non Invasive Blood Pressure systolic", "mmHg", 2, 121, 14.0, -7.0, 8.0, 0, 40, 240),
    (220180, "Non Invasive Blood Pressure diastolic", "mmHg", 2, 63, 9.0, -4.0, 6.0, 0, 15, 150),
    (220181, "Non Invasive Blood Pressure mean", "mmHg", 2, 80, 9.5, -5.0, 6.0, 0, 20, 180),
    (223761, "Temperature Fahrenheit", "°F", 4, 98.4, 0.6, 0.3, 0.5, 1, 88, 107),
    (220621, "Glucose (serum)", "mg/dL", 8, 130, 24.0, 11.0, 20.0, 0, 40, 600),
)
_OTHER_ITEMS = (
    (220739, "GCS - Eye Opening", ""),
    (223900, "GCS - Verbal Response", ""),
    (223901, "GCS - Motor Response", ""),
    (223835, "Inspired O2 Fraction", ""),
    (223951, "Capillary Refill R", ""),
    (226512, "Admission Weight (Kg)", "kg"),
    (226730, "Height (cm)", "cm"),
    (226707, "Height", "Inch"),
    (220048, "Heart Rhythm", ""),
)
_LABS = (
    (50931, "Glucose", "Blood", "Chemistry", "mg/dL"),
    (50820, "pH", "Blood", "Blood Gas", "units"),
    (50912, "Creatinine", "Blood", "Chemistry", "mg/dL"),
    (51491, "pH", "Urine", "Hematology", "units"),
    (51478, "Glucose", "Urine", "Hematology", "mg/dL"),
)


def d_items() -> pl.DataFrame:
    """Return icu/d_items."""
    known = [(row[0], row[1], row[2]) for row in _VITALS] + list(_OTHER_ITEMS)
    return pl.DataFrame(
        {
            "itemid": [item for item, _, _ in known],
            "label": [label for _, label, _ in known],
            "abbreviation": [label for _, label, _ in known],
            "linksto": ["chartevents"] * len(known),
            "category": ["Routine Vital Signs"] * len(known),
            "unitname": [unit or None for _, _, unit in known],
            "param_type": ["Numeric" if unit else "Text" for _, _, unit in known],
            "lownormalvalue": [None] * len(known),
            "highnormalvalue": [None] * len(known),
        }
    ).sort("itemid")


def d_labitems() -> pl.DataFrame:
    """Return hosp/d_labitems."""
    header = ["itemid", "label", "fluid", "category"]
    return pl.DataFrame([row[:4] for row in _LABS], header, orient="row")


class _Events:
    """Collects measurements of one stay after another as columns."""

    def __init__(self) -> None:
        self.parts: list[pl.DataFrame] = []

    def add(
        self, stay: Stay, item: int, hours: np.ndarray, values: Sequence[str], unit: str
    ) -> None:
        seconds = (np.asarray(hours) * 3600).astype(np.int64)
        if seconds.size:
            self.parts.append(
                pl.DataFrame(
                    {
                        "stay": np.full(seconds.size, stay.stay_id),
                        "seconds": seconds,
                        "itemid": np.full(seconds.size, item),
                        "value": list(values),
                        "valueuom": [unit or None] * seconds.size,
                    },
                    schema_overrides={"valueuom": pl.String},
                )
            )

    def frame(self, stays: Sequence[Stay]) -> pl.DataFrame:
        keys = pl.DataFrame(
            {
                "stay": [s.stay_id for s in stays],
                "subject_id": [s.subject_id for s in stays],
                "hadm_id": [s.hadm_id for s in stays],
                "intime": [s.entered for s in stays],
            }
        )
        return (
            pl.concat(self.parts)
            .join(keys, on="stay", maintain_order="left")
            .with_columns(
                charttime=pl.col("intime") + pl.duration(seconds=pl.col("seconds")),
                valuenum=pl.col("value").cast(pl.Float64, strict=False),
            )
            .sort("subject_id", "charttime", "itemid", "value")
        )


def _charted(stay: Stay) -> float:
    return min(stay.hours, CHARTED_HOURS)


def _times(rng: Generator, until: float, every: float) -> np.ndarray:
    times = np.arange(rng.uniform(0, every), until, every)
    spread: np.ndarray = times + rng.uniform(-0.05, 0.05, times.size).clip(-times)
    return spread


def _severity_over_time(stay: Stay, hours: np.ndarray) -> np.ndarray:
    return np.asarray(stay.z[0] * (0.7 + 0.3 * hours / 48))


def _numbers(values: np.ndarray, decimals: int) -> list[str]:
    return [f"{value:.{decimals}f}" for value in values]


def chartevents(hospital: Hospital, rng: Generator) -> pl.DataFrame:
    """Return icu/chartevents."""
    events = _Events()
    for stay in hospital.stays:
        if stay.kind != "silent":
            _chart_vitals(events, stay, rng)
            _chart_rest(events, stay, rng)
    table = events.frame(hospital.stays)
    return table.select(
        "subject_id",
        "hadm_id",
        pl.col("stay").alias("stay_id"),
        pl.lit(None, pl.Int64).alias("caregiver_id"),
        "charttime",
        (pl.col("charttime") + pl.duration(minutes=7)).alias("storetime"),
        "itemid",
        "value",
        "valuenum",
        "valueuom",
        pl.lit(0).alias("warning"),
    )


def _chart_vitals(events: _Events, stay: Stay, rng: Generator) -> None:
    for item, _, unit, every, mean, between, effect, within, decimals, low, high in _VITALS:
        hours = _times(rng, _charted(stay), every)
        drift = np.zeros(hours.size)
        shocks = rng.normal(size=hours.size)
        for step in range(1, hours.size):
            drift[step] = 0.7 * drift[step - 1] + 0.7 * shocks[step]
        level = mean + between * rng.normal() + effect * _severity_over_time(stay, hours)
        values = (level + within * drift).clip(low, high)
        if item == 220045 and hours.size and rng.random() < 0.02:
            values[int(rng.integers(hours.size))] = 999  # a sensor that fell off
        events.add(stay, item, hours, _numbers(values, decimals), unit)


def _chart_rest(events: _Events, stay: Stay, rng: Generator) -> None:
    until, z = _charted(stay), stay.z[0]
    hours = _times(rng, until, 4)
    sleep = 0.9 * z + rng.normal() + rng.normal(scale=0.3, size=hours.size)
    ventilated = rng.random() < expit(-1.2 + 1.1 * z)
    eye = np.digitize(-sleep, [-1.9, -1.3, -0.7])
    verbal = np.digitize(-sleep, [-2.0, -1.6, -1.1, -0.5])
    motor = np.digitize(-sleep, [-2.4, -2.1, -1.8, -1.4, -0.9])
    spoken = ["No Response-ETT" if ventilated else _VERBAL[level] for level in verbal]
    events.add(stay, 220739, hours, [_EYE[level] for level in eye], "")
    events.add(stay, 223900, hours, spoken, "")
    events.add(stay, 223901, hours, [_MOTOR[level] for level in motor], "")
    events.add(stay, 220048, hours[:3], ["SR (Sinus Rhythm)"] * hours[:3].size, "")
    if ventilated:
        hours = _times(rng, until, 6)
        share = (45 + 7 * z + rng.normal(scale=5, size=hours.size)).clip(21, 100).round()
        as_fraction = rng.random() < 0.1
        events.add(stay, 223835, hours, _numbers(share / 100 if as_fraction else share, 2), "")
    if rng.random() < 0.08:
        hours = _times(rng, until, 8)
        slow = rng.random(hours.size) < expit(-1 + z)
        text = ["Abnormal >3 Seconds" if s else "Normal <3 Seconds" for s in slow]
        events.add(stay, 223951, hours, text, "")
    first = np.array([rng.uniform(0, 2)])
    height = rng.normal(170, 9)
    events.add(stay, 226512, first, _numbers(np.array([rng.normal(81, 17)]).clip(35, 200), 1), "kg")
    if rng.random() < 0.5:
        events.add(stay, 226730, first, _numbers(np.array([height]), 0), "cm")
        events.add(stay, 226707, first, _numbers(np.array([height / 2.54]), 0), "Inch")


def labevents(hospital: Hospital, rng: Generator) -> pl.DataFrame:
    """Return hosp/labevents."""
    events = _Events()
    units: Mapping[int, str] = {row[0]: row[4] for row in _LABS}
    for stay in hospital.stays:
        if stay.kind == "silent":
            continue
        z = stay.z[0]

        def draw(item: int, every: float, mean: float, spread: float, decimals: int) -> None:
            hours = _times(rng, _charted(stay) + 6, every) - 6  # noqa: B023  # drawn at once
            values = mean + rng.normal(scale=spread, size=hours.size)
            events.add(stay, item, hours, _numbers(values.clip(0.1), decimals), units[item])  # noqa: B023

        draw(50931, 12, 130 + 8 * z + rng.normal(scale=18), 15, 0)
        draw(50912, 12, float(np.exp(0.1 + 0.25 * z + rng.normal(scale=0.4))), 0.1, 1)
        if rng.random() < expit(-0.5 + z):
            draw(50820, 8, 7.38 - 0.025 * z + rng.normal(scale=0.03), 0.02, 2)
        if rng.random() < 0.3:  # urine must not be taken for blood
            draw(51491, 24, 6.0, 0.5, 1)
            draw(51478, 24, 300, 150, 0)
    table = events.frame(hospital.stays).with_row_index("labevent_id", offset=1)
    lost = pl.Series(rng.random(table.height) < 0.1)  # drawn outside an admission: no hadm_id
    return table.select(
        "labevent_id",
        "subject_id",
        pl.when(lost).then(None).otherwise(pl.col("hadm_id")).alias("hadm_id"),
        pl.col("labevent_id").alias("specimen_id"),
        "itemid",
        pl.lit(None, pl.String).alias("order_provider_id"),
        "charttime",
        (pl.col("charttime") + pl.duration(minutes=40)).alias("storetime"),
        "value",
        "valuenum",
        "valueuom",
        *(
            pl.lit(None, pl.String).alias(name)
            for name in ("ref_range_lower", "ref_range_upper", "flag", "priority", "comments")
        ),
    )
