"""From charted text to one number per measurement, under the corrected or the published rules.

The rules are expressions over the columns `value`, `valuenum`, `valueuom` (text) and `variable`
(position in the catalogue), `unit`, `label` (of the item). Null means: not a measurement. A level
of a categorical variable is a number too; see `reference_rank` for the published order.
"""

from __future__ import annotations

import polars as pl

from ..sources.catalogue import Preset, Variable, variables

DECIMAL = r"^(\d+(\.\d*)?|\.\d+)$"
KG_PER_LB = 0.453592
CM_PER_INCH = 2.54
FAHRENHEIT_FROM = 79.0
LIVING_FAHRENHEIT = 50.0


def clean(preset: Preset) -> pl.Expr:
    """Return the cleaning rules of a preset as one expression, float64."""
    return _corrected() if preset == "corrected" else _reference()


def _is(name: str) -> pl.Expr:
    position = next(i for i, variable in enumerate(variables()) if variable.name == name)
    return pl.col("variable") == position


def _any(*names: str) -> pl.Expr:
    return pl.any_horizontal([_is(name) for name in names])


def _number(text: pl.Expr) -> pl.Expr:
    """Read a plain decimal number, `.2` and `5.` included."""
    return pl.when(text.str.contains(DECIMAL)).then(text.cast(pl.Float64, strict=False))


def _celsius(fahrenheit: pl.Expr) -> pl.Expr:
    return (fahrenheit - 32) * 5 / 9


def _lookup(variable: Variable, text: pl.Expr) -> pl.Expr:
    return text.replace_strict(
        list(variable.texts), list(variable.texts.values()), default=None, return_dtype=pl.Float64
    )


def _corrected() -> pl.Expr:
    """Return the rules that mend the published ones.

    * Units come from the item, never from the unit text or the label.
    * Pressures written `a/b` are taken apart; `120/` is missing.
    * Inspired oxygen and saturation above and below 1 are percent and fraction.
    * Temperature: 79 and more, or a Fahrenheit item from 50, is Fahrenheit; below 50 no living
      body's Fahrenheit, so Celsius in the wrong field.
    * `___` (masked) is replaced by the release's own number.
    * Both bedside systems' spellings mean one level; eye opening `None` is the lowest.
    * Values outside the outlier bounds are missing, between outlier and valid moved to valid.
    """
    text = pl.col("value").str.strip_chars()
    text = pl.when(text == "___").then(pl.col("valuenum").str.strip_chars()).otherwise(text)
    number = _number(text)
    unit = pl.col("unit")
    fahrenheit = (number >= FAHRENHEIT_FROM) | ((unit == "degF") & (number >= LIVING_FAHRENHEIT))
    value = (
        pl.when(_is("Systolic blood pressure"))
        .then(number.fill_null(_number(text.str.extract(r"^([\d.]+)/[\d.]+$", 1))))
        .when(_is("Diastolic blood pressure"))
        .then(number.fill_null(_number(text.str.extract(r"^[\d.]+/([\d.]+)$", 1))))
        .when(_is("Fraction inspired oxygen"))
        .then(pl.when(number > 1).then(number / 100).otherwise(number))
        .when(_is("Oxygen saturation"))
        .then(pl.when(number <= 1).then(number * 100).otherwise(number))
        .when(_is("Temperature") & fahrenheit)
        .then(_celsius(number))
        .when(_is("Weight") & (unit == "lb"))
        .then(number * KG_PER_LB)
        .when(_is("Weight") & (unit == "oz"))
        .then(number / 16 * KG_PER_LB)
        .when(_is("Height") & (unit == "inch"))
        .then(number * CM_PER_INCH)
        .otherwise(number)
    )
    for variable in variables():
        if variable.categorical:
            found = _lookup(variable, text.str.to_lowercase())
            whole = pl.when(number.is_in(list(variable.levels))).then(number)
            value = (
                pl.when(_is(variable.name))
                .then(found.fill_null(whole) if variable.name.endswith("total") else found)
                .otherwise(value)
            )
    return _within_bounds(value)


def _within_bounds(value: pl.Expr) -> pl.Expr:
    position = pl.col("variable")

    def bound(numbers: list[float]) -> pl.Expr:
        return position.replace_strict(
            list(range(len(numbers))), numbers, return_dtype=pl.Float64, default=None
        )

    table = variables()
    low, high = bound([v.low for v in table]), bound([v.high for v in table])
    moved = value.clip(bound([v.valid_low for v in table]), bound([v.valid_high for v in table]))
    return pl.when((value >= low) & (value <= high)).then(moved)


def _reference() -> pl.Expr:
    """Return the published rules with their quirks (mimic3-benchmarks).

    * Every inspired oxygen whose unit text lacks `torr` is divided by 100, fractions too.
    * Temperature is converted from 79 on, whatever the item's unit.
    * Height and weight are converted by `in`, `lb`, `oz` in unit text or label; inches are rounded.
    * In MIMIC-IV the unit text is never seen, so only labels convert.
    * Text of the coma scale must match exactly; nothing is an outlier.

    A text at which the published code stops (`120/`, an unknown level) is missing here.
    """
    text = pl.col("value")
    number = text.str.strip_chars().cast(pl.Float64, strict=False)
    number = pl.when(number.is_finite()).then(number)
    plain = _number(text)
    unit = pl.col("valueuom").str.to_lowercase().fill_null("")
    both = unit + "|" + pl.col("label").str.to_lowercase()
    value = (
        pl.when(_is("Systolic blood pressure"))
        .then(number.fill_null(_number(text.str.extract(r"^(\d+)/\d+$", 1))))
        .when(_is("Diastolic blood pressure"))
        .then(number.fill_null(_number(text.str.extract(r"^\d+/(\d+)$", 1))))
        .when(_is("Capillary refill rate"))
        .then(
            text.replace_strict(
                ["Normal <3 secs", "Brisk", "Abnormal >3 secs", "Delayed"],
                [0.0, 0.0, 1.0, 1.0],
                default=None,
                return_dtype=pl.Float64,
            )
        )
        .when(_is("Fraction inspired oxygen") & ~unit.str.contains("torr", literal=True))
        .then(number / 100)
        .when(_any("Glucose", "pH"))
        .then(plain)
        .when(_is("Oxygen saturation"))
        .then(pl.when(plain <= 1).then(plain * 100).otherwise(plain))
        .when(_is("Temperature"))
        .then(pl.when(number >= FAHRENHEIT_FROM).then(_celsius(number)).otherwise(number))
        .when(_is("Weight") & both.str.contains("oz", literal=True))
        .then(number / 16 * KG_PER_LB)
        .when(_is("Weight") & both.str.contains("lb", literal=True))
        .then(number * KG_PER_LB)
        .when(_is("Height") & both.str.contains("in", literal=True))
        .then((number * CM_PER_INCH).round(0))
        .otherwise(number)
    )
    for variable in variables():
        if variable.categorical and variable.name.startswith("Glasgow"):
            ranked = sorted(variable.reference_levels)
            rank = text.replace_strict(
                ranked,
                [float(i) for i in range(len(ranked))],
                default=None,
                return_dtype=pl.Float64,
            )
            value = pl.when(_is(variable.name)).then(rank).otherwise(value)
    return value


def reference_rank(variable: Variable) -> list[float]:
    """Return, for each rank of a coma-scale text, its place among the reference's columns.

    At one instant the published code keeps the text that sorts last, so cleaned values are ranks
    until duplicates are gone.
    """
    order = list(variable.reference_levels)
    return [float(order.index(text)) for text in sorted(order)]


__all__ = ["clean", "reference_rank"]
