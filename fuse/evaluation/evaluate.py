"""Judge a finished run on the stays of a cache: predictions, metrics, and a count of the looks."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ...cache.cohort import Cohort
from ...errors import DataError
from ...progress import Progress, silent
from ..group import RunGroup
from ..rundir import FITTED, RunDir
from .group import judge_group
from .looks import (
    NOTHING_MORE,
    Looks,
    by_group,
    by_target,
    from_validation,
    known_targets,
    same_stays,
)
from .recalibration import require_way
from .subgroups import Grouping
from .targets import summarise
from .thresholds import decision_curve, parse_rule

_log = logging.getLogger("cm2.fuse.evaluation")

PROVES_NOTHING = 10
"""Fewer events (or stays without one) than this: any AUROC is compatible with chance."""

ENOUGH = 100
"""Events and stays without one that a validation should have (Collins et al., 2016)."""


def evaluate(
    run: RunDir | RunGroup,
    cache: Path,
    split: str = "test",
    *,
    looks: Looks = NOTHING_MORE,
    replicates: int = 1000,
    unit: str = "patient",
    progress: Progress = silent,
) -> dict[str, Any]:
    """Predict a split anew, judge it, and store predictions and metrics in the run.

    Args:
        run: A finished run; or a group, whose members are judged one by one and then together.
        cache: Its cache, or another one with the same spaces. What is found on stays of another
            cohort is stored beside what was found on the run's own, as `<split>@<cohort>`.
        split: `val`, `test` or `all`; a look at test stays is counted in run.json.
        looks: What else is looked at.
        replicates: Bootstrap resamples; 0 for no intervals.
        unit: What is resampled, "patient" or "stay".
        progress: Where progress is shown.

    Returns:
        Of a group what `judge_group` returns. Of a run what `<split>_metrics.json` holds: task,
        split, seed, external (name of the other cohort or null), the entries of
        `targets.summarise`, "by_pattern" (the same metrics by availability pattern, such as
        "ehr+cxr"), "without" (see `missingness.contributions`), "imputed" (see
        `imputed.imputed`), "decision" (see
        `thresholds.decision_curve`; by target if there are several), "notes"; and if asked for
        "by_group" (column to group to metrics), "missingness" (see there), "threshold" (rule and
        `thresholds.operating_point`; by target if there are several), "recalibrated" (how, and the
        metrics of the corrected probabilities).

    Raises:
        ConfigError: A look that cannot be meant, or a run that is not finished; no stay is judged.
        DataError: No stay of the split has a known target.
    """
    members = run.members if isinstance(run, RunGroup) else [run]
    for member in members:
        member.require_weights()
    for member in members:
        place, metrics = _evaluate(member, cache, split, looks, replicates, unit, progress)
    if isinstance(run, RunGroup):
        external = metrics["external"]
        return judge_group(run, place, external=external, replicates=replicates, unit=unit)
    return metrics


def _evaluate(
    run: RunDir,
    cache: Path,
    split: str,
    looks: Looks,
    replicates: int,
    unit: str,
    progress: Progress,
) -> tuple[str, dict[str, Any]]:
    """Judge one run; return also the name under which predictions and metrics are stored."""
    from ..inference import forward, prepare, probabilities, table
    from .imputed import imputed
    from .missingness import contributions, missingness, parse_drops

    drops = parse_drops(looks.drop, [text.partition("@")[0] for text in run.config.modalities])
    groupings = _groupings(looks.by, cache, run.config.cohort)
    if looks.threshold:
        parse_rule(looks.threshold)
    require_way(looks.recalibrate)
    with progress(f"judging {run.path.name}", None, "steps") as advance:
        loaded = prepare(run, cache, split)
        cohort = loaded.cohort
        place = f"{split}@{loaded.source[:12]}" if loaded.source else split
        p = probabilities(forward(loaded.model, loaded.data, loaded.rows))
        predictions = table(run, loaded.data, loaded.rows, p)
        if not loaded.source and FITTED in run.info["warnings"]:
            predictions = _cross_fitted(predictions, run.predictions("val"))
        advance(1)
        metrics = judge(
            predictions, replicates=replicates, unit=unit, seed=run.config.seed, split=split
        )
        metrics["external"] = (
            f"{cohort.info.get('dataset', '')} ({place})" if loaded.source else None
        )
        advance(1)
        if len(loaded.model.specs) > 1:
            metrics["without"] = contributions(loaded, p, replicates=replicates, unit=unit)
            metrics["imputed"] = imputed(loaded)
            advance(1)
        metrics["decision"] = by_target(
            predictions,
            lambda one: decision_curve(one.y, one.p, one.groups(unit), replicates=replicates),
        )
        if groupings:
            metrics["by_group"] = by_group(predictions, cohort.stays, groupings, replicates, unit)
            advance(1)
        if drops:
            metrics["missingness"] = missingness(loaded, p, drops, replicates=replicates, unit=unit)
            advance(1)
        if looks.threshold or looks.recalibrate != "none":
            metrics |= from_validation(run, predictions, looks, replicates, unit)
            if not loaded.source:
                metrics["notes"] += same_stays(predictions, looks)
            advance(1)
    if split in ("test", "all"):
        run.count_look(place)
    run.write_predictions(place, predictions)
    run.write_metrics(place, metrics)
    for note in metrics["notes"]:
        _log.warning(note)
    return place, metrics


def _groupings(texts: Sequence[str], cache: Path, cohort: str) -> list[Grouping]:
    """Read subgroups; what cannot be meant is refused before the run is loaded."""
    columns = Cohort.open(cache, cohort).stays.column_names if texts else []
    return [Grouping.parse(text, columns) for text in texts]


def _cross_fitted(predictions: pa.Table, stored: pa.Table) -> pa.Table:
    """Predictions with those of validation stays that are stored: later ones saw their targets."""

    def keys(part: pa.Table) -> list[tuple[Any, str]]:
        return list(zip(part["stay_id"].to_pylist(), part["target"].to_pylist(), strict=True))

    found = dict(zip(keys(stored), stored["p"].to_pylist(), strict=True))
    later = zip(keys(predictions), predictions["p"].to_pylist(), strict=True)
    p = pa.array([found.get(key, value) for key, value in later], pa.float64())
    return predictions.set_column(predictions.column_names.index("p"), "p", p)


def judge(
    predictions: pa.Table, *, replicates: int, unit: str, seed: int, split: str
) -> dict[str, Any]:
    """Turn a table of predictions into metrics, overall and by availability pattern.

    Args:
        predictions: Columns subject_id, split, task, y, p, pattern; null targets are left out.
        replicates: Bootstrap resamples.
        unit: What is resampled.
        seed: Seed of the run, recorded; the resamples are the same for every run.
        split: What the table was asked to hold.

    Raises:
        DataError: No target is known.
    """
    known = predictions.filter(predictions["y"].is_valid())
    if not known.num_rows:
        stays = "stays" if split == "all" else f"{split} stays"
        raise DataError(
            f"None of the {predictions.num_rows} {stays} has a known target, so nothing can "
            "be judged; `cm2 predict` writes their probabilities."
        )
    splits = dict(zip(known["stay_id"].to_pylist(), known["split"].to_pylist(), strict=True))
    targets = {name: one.y.astype(np.int64) for name, one in known_targets(predictions).items()}

    def of(table: pa.Table) -> dict[str, Any]:
        return summarise(table, replicates=replicates, unit=unit)

    return {
        "task": known["task"][0].as_py(),
        "split": split,
        "seed": seed,
        **of(predictions),
        "by_pattern": {
            name: of(predictions.filter(pc.equal(predictions["pattern"], name)))
            for name in sorted(set(known["pattern"].to_pylist()))
        },
        "notes": notes(targets, list(splits.values())),
    }


def notes(targets: Mapping[str, NDArray[np.int64]], splits: Sequence[str]) -> list[str]:
    """Say in plain words what the numbers cannot show.

    Args:
        targets: Known labels of each target; of several the one with the rarest class counts.
        splits: Split of each stay.
    """
    rarer, name = min((int(min(y.sum(), len(y) - y.sum())), name) for name, y in targets.items())
    y = targets[name]
    kind = "events" if 2 * y.sum() <= len(y) else "stays without an event"
    of = f" of {name!r}" if len(targets) > 1 else ""
    said = []
    if rarer < PROVES_NOTHING:
        said.append(
            f"Only {rarer} {kind}{of} among {len(y)} stays: these numbers prove nothing. They show "
            "that the pipeline runs."
        )
    elif rarer < ENOUGH:
        said.append(
            f"Only {rarer} {kind}{of} among {len(y)} stays: read the intervals, not the values. A "
            f"validation should have at least {ENOUGH} events and {ENOUGH} stays without one."
        )
    trained = splits.count("train")
    if trained:
        said.append(
            f"{trained} of the {len(splits)} stays are of the training split: if they are the "
            "run's own training data, the numbers are too good."
        )
    return said
