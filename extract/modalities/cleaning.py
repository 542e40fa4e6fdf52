"""From charted text to one number per measurement, under the corrected or the published rules.

The rules are expressions over the columns `value`, `valuenum`, `valueuom` (text) and `variable`
(position in the catalogue), `unit`, `label` (of the item). Null means: not a measurement. A level
of a categorical variable is a number too; see `reference_rank` for the published order.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from ..sources.catalogue import Catalogue, Variable, published

DECIMAL = r"^(\d+(\.\d*)?|\.\d+)$"
KG_PER_LB = 0.453592
CM_PER_INCH = 2.54
FAHRENHEIT_FROM = 79.0
LIVING_FAHRENHEIT = 50.0
_REFERENCE_REFILL = {
    "Normal <3 secs": 0.0,
    "Brisk": 0.0,
    "Abnormal >3 secs": 1.0,
    "Delayed": 1.0,
}


def clean(rows: pl.LazyFrame, catalogue: Catalogue) -> pl.LazyFrame:
    """Replace the charted text in `value` by a number, float64, under the rules of its preset.

    Args:
        rows: value, valuenum, valueuom (text), variable (uint8), unit, label.
        catalogue: The variables, and which rules.
    """
    # One step per column: polars would compute a shared part anew in every branch that names it.
    if catalogue.preset == "reference":
        rows = (
            rows.with_columns(number=_finite(pl.col("value")))
            .with_columns(level=_level(pl.col("value"), catalogue))
            .with_columns(value=_reference(catalogue))
        )
        return rows.drop("number", "level")
    bound = {
        name: pl.lit(
            pl.Series([getattr(v, name) for v in catalogue.variables], dtype=pl.Float64)
        ).gather(pl.col("variable"))
        for name in ("low", "valid_low", "valid_high", "high")
    }
    inside = pl.col("value").is_between(bound["low"], bound["high"])
    moved = pl.col("value").clip(bound["valid_low"], bound["valid_high"])
    named = pl.col("variable").is_in([i for i, v in enumerate(catalogue.variables) if v.texts])
    lower = pl.when(named).then(pl.col("text")).str.to_lowercase()
    return (
        rows.with_columns(text=_masked())
        .with_columns(level=_level(lower, catalogue), number=_number(pl.col("text")))
        .with_columns(value=_corrected(catalogue))
        .with_columns(value=pl.when(inside).then(moved))
        .drop("text", "number", "level")
    )


def _level(text: pl.Expr, catalogue: Catalogue) -> pl.Expr:
    """Return the level that a text means for the variable of its row, null where it means none.

    A table of variables by texts is four times as fast as a join; `replace_strict` would hold back
    all rows.
    """
    levels = _levels(catalogue)
    texts = sorted({text for _, text in levels})
    table = [levels.get((i, text)) for i in range(len(catalogue.variables)) for text in texts]
    code = text.cast(pl.Enum(texts), strict=False).to_physical()
    place = pl.col("variable").cast(pl.UInt32) * len(texts) + code
    return pl.lit(pl.Series(table, dtype=pl.Float64)).gather(place)


def _levels(catalogue: Catalogue) -> dict[tuple[int, str], float]:
    """Return the level of each variable's texts; for the reference their rank as text."""
    levels: dict[tuple[int, str], float] = {}
    for i, variable in enumerate(catalogue.variables):
        named: Mapping[str, float] = {}
        if catalogue.preset == "corrected":
            named = variable.texts
        elif variable.name.startswith("Glasgow"):
            named = {
                text: float(rank) for rank, text in enumerate(sorted(variable.reference_levels))
            }
        elif variable.categorical:
            named = _REFERENCE_REFILL
        levels |= {(i, text): level for text, level in named.items()}
    return levels


def _masked() -> pl.Expr:
    """Return the charted text, stripped; the release's own number where it is masked."""
    text = pl.col("value").str.strip_chars()
    return pl.when(text == "___").then(pl.col("valuenum").str.strip_chars()).otherwise(text)


def _is(name: str) -> pl.Expr:
    return pl.col("variable") == published("corrected").place(name)  # these places are fixed


def _categorical(catalogue: Catalogue) -> pl.Expr:
    return pl.col("variable").is_in(
        [i for i, variable in enumerate(catalogue.variables) if variable.categorical]
    )


def _any(*names: str) -> pl.Expr:
    return pl.any_horizontal([_is(name) for name in names])


def _number(text: pl.Expr) -> pl.Expr:
    """Read a plain decimal number, `.2` and `5.` included."""
    return pl.when(text.str.contains(DECIMAL)).then(text.cast(pl.Float64, strict=False))


def _finite(text: pl.Expr) -> pl.Expr:
    """Read whatever Python's float reads, except NaN and infinity."""
    number = text.str.strip_chars().cast(pl.Float64, strict=False)
    return pl.when(number.is_finite()).then(number)


def _celsius(fahrenheit: pl.Expr) -> pl.Expr:
    return (fahrenheit - 32) * 5 / 9


def _corrected(catalogue: Catalogue) -> pl.Expr:
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
    number, unit = pl.col("number"), pl.col("unit")
    text = pl.when(number.is_null()).then(pl.col("text"))  # the others need no second look
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
    whole = pl.when(number == number.round(0)).then(number)
    return (
        pl.when(_is("Glasgow coma scale total"))
        .then(pl.col("level").fill_null(whole))
        .when(_categorical(catalogue))
        .then("level")
        .otherwise(value)
    )


def _reference(catalogue: Catalogue) -> pl.Expr:
    """Return the published rules with their quirks (mimic3-benchmarks).

    * Every inspired oxygen whose unit text lacks `torr` is divided by 100, fractions too.
    * Temperature is converted from 79 on, whatever the item's unit.
    * Height and weight are converted by `in`, `lb`, `oz` in unit text or label; inches are rounded.
    * In MIMIC-IV the unit text is never seen, so only labels convert.
    * Text of the coma scale must match exactly; nothing is an outlier.

    A text at which the published code stops (`120/`, an unknown level) is missing here.
    """
    text, number = pl.col("value"), pl.col("number")
    plain = _number(text)
    unit = pl.col("valueuom").str.to_lowercase().fill_null("")
    both = unit + "|" + pl.col("label").str.to_lowercase()
    value = (
        pl.when(_is("Systolic blood pressure"))
        .then(number.fill_null(_number(text.str.extract(r"^(\d+)/\d+$", 1))))
        .when(_is("Diastolic blood pressure"))
        .then(number.fill_null(_number(text.str.extract(r"^\d+/(\d+)$", 1))))
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
    return pl.when(_categorical(catalogue)).then("level").otherwise(value)


def reference_rank(variable: Variable) -> list[float]:
    """Return, for each rank of a coma-scale text, its place among the reference's columns.

    At one instant the published code keeps the text that sorts last, so cleaned values are ranks
    until duplicates are gone.
    """
    order = list(variable.reference_levels)
    return [float(order.index(text)) for text in sorted(order)]


__all__ = ["clean", "reference_rank"]
