"""What may be looked at beyond the metrics of all stays: subgroups, thresholds, corrections."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike, NDArray

from ...errors import ConfigError
from ..rundir import RunDir
from .recalibration import recalibration
from .subgroups import Grouping, group_names
from .targets import summarise, target_names
from .thresholds import choose, operating_point


@dataclass(frozen=True)
class Looks:
    """What is looked at beyond the metrics of all stays.

    Attributes:
        by: Groupings by columns of the cohort, such as `sex` or `age:65`; see `subgroups`.
        drop: Modalities withheld from a share of the stays, `cxr` or `cxr=0.5`; see `missingness`.
        threshold: How a threshold is fixed on validation stays, or empty; see `thresholds`.
        recalibrate: `none`, `platt` or `isotonic`, fitted to validation stays.
    """

    by: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    threshold: str = ""
    recalibrate: str = "none"


NOTHING_MORE = Looks()
Fixed = TypeVar("Fixed")


class Target(NamedTuple):
    """Predictions of one target for the n stays whose target is known.

    Attributes:
        y: Labels, ``(n,)``.
        p: Probabilities, ``(n,)``.
        subjects: Patients, ``(n,)``.
    """

    y: NDArray[np.int8]
    p: NDArray[np.float64]
    subjects: NDArray[Any]

    def groups(self, unit: str) -> NDArray[Any] | None:
        """What the bootstrap draws: patients, or None for stays."""
        return self.subjects if unit == "patient" else None


NOBODY = Target(np.empty(0, np.int8), np.empty(0), np.empty(0))


def known_targets(predictions: pa.Table) -> dict[str, Target]:
    """Take predictions in the long form apart by target, without the unknown ones."""
    found = {}
    for name in target_names(predictions):
        part = predictions.filter(
            pc.and_(pc.equal(predictions["target"], name), predictions["y"].is_valid())
        )
        if part.num_rows:
            subjects = np.array(part["subject_id"].to_pylist())
            found[name] = Target(part["y"].to_numpy(), part["p"].to_numpy(), subjects)
    return found


def by_target(
    predictions: pa.Table, judge_one: Callable[[Target], dict[str, Any]]
) -> dict[str, Any]:
    """Judge each target by itself.

    Returns:
        The result of the only target, or {"targets": name to result}.
    """
    return _listed(
        predictions, {name: judge_one(one) for name, one in known_targets(predictions).items()}
    )


def _listed(predictions: pa.Table, results: dict[str, dict[str, Any]]) -> dict[str, Any]:
    names = target_names(predictions)
    return results[names[0]] if len(names) == 1 else {"targets": results}


def by_group(
    predictions: pa.Table,
    stays: pa.Table,
    groupings: list[Grouping],
    replicates: int,
    unit: str,
) -> dict[str, dict[str, Any]]:
    """Judge subgroups: by column and name of the group what `summarise` returns.

    Args:
        predictions: In the long form.
        stays: The cohort's table.
        groupings: How stays are grouped.
        replicates: Bootstrap resamples.
        unit: What is resampled, "patient" or "stay".
    """
    result: dict[str, dict[str, Any]] = {}
    for grouping in groupings:
        names = pa.array(group_names(stays, predictions["stay_id"].to_pylist(), grouping))
        groups = result.setdefault(grouping.column, {})  # a column may be cut more than once
        for name in sorted(set(names.to_pylist())):
            part = predictions.filter(pc.equal(names, name))
            if part["y"].null_count < part.num_rows:
                groups[name] = summarise(part, replicates=replicates, unit=unit)
    return result


def from_validation(
    run: RunDir, predictions: pa.Table, looks: Looks, replicates: int, unit: str
) -> dict[str, Any]:
    """Thresholds and corrections fixed on validation stays and carried to these.

    Of several targets, one for which validation fixes nothing has a threshold of null with the
    reason, and is named among `uncorrected`.

    Raises:
        ConfigError: Validation fixes nothing for any target, or what is asked for is unknown.
    """
    validation = known_targets(run.predictions("val"))
    result: dict[str, Any] = {}
    if looks.threshold:
        points = {}
        rules = _fixed(partial(choose, looks.threshold), validation, target_names(predictions))
        for name, one in known_targets(predictions).items():
            threshold = rules[name]
            points[name] = (
                {"threshold": None, "reason": str(threshold)}
                if isinstance(threshold, ConfigError)
                else operating_point(
                    one.y, one.p, threshold, one.groups(unit), replicates=replicates
                )
            )
        result["threshold"] = {"rule": looks.threshold, **_listed(predictions, points)}
    if looks.recalibrate != "none":
        names = np.array(predictions["target"].to_pylist())
        p = predictions["p"].to_numpy().copy()
        fit = partial(recalibration, looks.recalibrate)
        ways = _fixed(fit, validation, target_names(predictions))
        for name, correct in ways.items():
            if not isinstance(correct, ConfigError):
                p[names == name] = correct(p[names == name])
        at = predictions.column_names.index("p")
        corrected = predictions.set_column(at, "p", pa.array(p, pa.float64()))
        result["recalibrated"] = {
            "how": looks.recalibrate,
            "uncorrected": [n for n, way in ways.items() if isinstance(way, ConfigError)],
            **summarise(corrected, replicates=replicates, unit=unit),
        }
    return result


def same_stays(predictions: pa.Table, looks: Looks) -> list[str]:
    """Say that stays are judged by what was fixed on themselves.

    Args:
        predictions: Of the run's own cohort, in the long form.
        looks: What was asked for.
    """
    by_value = looks.threshold.startswith("p=")
    fixed = ["threshold"] if looks.threshold and not by_value else []
    fixed += ["correction"] if looks.recalibrate != "none" else []
    known = predictions.filter(predictions["y"].is_valid())
    validation = known.filter(pc.equal(known["split"], "val"))
    stays, own = (len(pc.unique(part["stay_id"])) for part in (known, validation))
    if not fixed or not own:
        return []
    return [
        f"{own} of the {stays} stays are validation's, on which the {' and the '.join(fixed)} "
        "had been fixed: what they show of it is too good."
    ]


def _fixed(
    fix: Callable[[ArrayLike, ArrayLike], Fixed], validation: dict[str, Target], names: list[str]
) -> dict[str, Fixed | ConfigError]:
    """What validation fixes for each target, or why it does not; raises if for none."""
    found: dict[str, Fixed | ConfigError] = {}
    for name in names:
        seen = validation.get(name, NOBODY)
        try:
            found[name] = fix(seen.y, seen.p)
        except ConfigError as error:
            found[name] = error
    errors = [one for one in found.values() if isinstance(one, ConfigError)]
    if len(errors) == len(names):
        raise errors[0]
    return found


__all__ = [
    "NOTHING_MORE",
    "Looks",
    "by_group",
    "by_target",
    "from_validation",
    "known_targets",
    "same_stays",
]
