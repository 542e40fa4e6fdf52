"""What the report says in words and tables: aggregates only, small cells withheld."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ...cache import atomic
from ...cache.cohort import Cohort
from ...cache.layout import PROVENANCE, STORES
from ..config import FuseConfig
from ..identity import modality_names
from ..rundir import RunDir
from .cells import SMALLEST, bounded, pooled, withheld
from .compare import compare
from .evaluate import ENOUGH
from .metrics import summary
from .targets import target_names, wide

TASKS = {"ihm": "In-hospital mortality", "readm": "Death or readmission within 30 days"}
DATASETS = {"mimic3": "MIMIC-III", "mimic4": "MIMIC-IV"}
MODALITIES = {"ehr": "EHR series", "cxr": "Chest film", "report": "Radiology report"}
SERIES = {"lstm": "LSTM over the series", "transformer": "Transformer over the series"}
FIGURES = ("auroc", "aupr", "brier", "ece")
Floats = NDArray[np.float64]


def own_cohort(run: RunDir, cache: Path) -> Cohort | None:
    """The cohort that a run was trained on, or None if the cache does not hold it."""
    if not Cohort.exists(cache, run.config.cohort):
        return None
    cohort = Cohort.open(cache, run.config.cohort)
    return cohort if cohort.fingerprint == run.info["fingerprints"]["cohort"] else None


def modalities(run: RunDir, cache: Path | None, smallest: int) -> list[dict[str, Any]]:
    """Describe each modality: encoder, frozen or trained, weights, availability by split.

    Args:
        run: A finished run.
        cache: Its cache, which knows where weights came from; None if it is not at hand.
        smallest: Counts below this are not shown, see `cells`.
    """
    rows = run.info["rows"]
    inputs = run.info["fingerprints"]["modalities"]
    found = []
    for name in modality_names(run.config):
        space = run.info["spaces"][name]
        series = space["view"] == "series"
        weights = str(space.get("weights", ""))
        provenance = _provenance(cache, name, inputs[name]["space"])
        seen = str(provenance.get("pretrained_on", ""))
        random = bool(provenance.get("random_weights")) or weights.startswith("random:")
        found.append(
            {
                "name": name,
                "title": MODALITIES.get(name, name),
                "encoder": SERIES[run.config.series_encoder]
                if series
                else str(space.get("encoder", "none")),
                "trained": series,
                "random": random,
                "weights": "" if series else str(provenance.get("weights") or weights or "none"),
                "pretrained_on": "" if seen == "nothing" else seen,
                "available": [
                    {"split": split, **_available(name, rows[split], smallest)}
                    for split in ("train", "val", "test")
                    if split in rows
                ],
            }
        )
    return found


def results(run: RunDir, others: Sequence[RunDir], names: Sequence[str], split: str) -> Any:
    """Metrics of the run and of others on the same stays, and how far the run is ahead.

    Args:
        run: The run of the report.
        others: Judged runs beside it.
        names: How the runs are called, the run first.
        split: Which predictions.

    Returns:
        One mapping for each run: name, n, positives, each of `FIGURES` as an interval, and for the
        others "ahead": by metric the difference run minus other with interval and Holm's p.
    """
    table: dict[str, dict[str, Any]] = {}
    for metrics in (FIGURES[:2], FIGURES[2:]):
        for row in compare(others, run, split, metrics=metrics):
            entry = table.setdefault(row["run"], {"n": row["n"], "positives": row["positives"]})
            entry[row["metric"]] = row
            if row.get("difference") is not None:
                low, high = row["difference_low"], row["difference_high"]
                entry.setdefault("ahead", {})[row["metric"]] = {
                    "value": -row["difference"],
                    "low": None if high is None else -high,
                    "high": None if low is None else -low,
                    "p": row["p_holm"],
                    "comparisons": row["comparisons"],
                }
    order = [str(one.path) for one in (run, *others)]
    return [
        {"name": name, "this": i == 0, **table[path]}
        for i, (name, path) in enumerate(zip(names, order, strict=True))
    ]


def by_label(metrics: Mapping[str, Any], smallest: int) -> list[dict[str, Any]]:
    """Metrics of each of several labels: name, n, positives, and `FIGURES` unless events are few.

    Args:
        metrics: What `evaluate` returned; of one target nothing comes back.
        smallest: Counts below this are not shown, see `cells`.
    """
    found = []
    for name, one in metrics.get("targets", {}).items():
        n, positives = one["n"], one["positives"]
        few = 0 < min(positives, n - positives) < smallest
        entry = {"name": name, "n": n, "few": few, "positives": None if few else positives}
        found.append(entry | ({} if few else {key: one[key] for key in FIGURES}))
    return found


def patterns(predictions: pa.Table, names: Sequence[str], smallest: int) -> list[dict[str, Any]]:
    """Count stays and events of each availability pattern and judge the large enough ones.

    Args:
        predictions: Judged stays, see `evaluate`.
        names: The modalities in order.
        smallest: Groups and event counts below this are not shown, see `cells`.
    """
    stays, y, p, subjects = wide(predictions, target_names(predictions))
    known = ~np.isnan(y).all(1)
    pattern = dict(
        zip(predictions["stay_id"].to_pylist(), predictions["pattern"].to_pylist(), strict=True)
    )
    own = [pattern[stays[i]] for i in np.flatnonzero(known)]
    y, p, subjects = y[known], p[known], subjects[known]
    event = (y == 1).any(1)
    shown = pooled(Counter(own), smallest)
    order = sorted(set(shown.values()), key=lambda patterns: (-_stays(patterns, own), patterns))
    group = np.array([order.index(shown[name]) for name in own])
    events = [int(event[group == i].sum()) for i in range(len(order))]
    hidden = withheld(events, smallest)
    found = []
    for i, (together, positives, hide) in enumerate(zip(order, events, hidden, strict=True)):
        rows = group == i
        n = int(rows.sum())
        small = hide or 0 < min(positives, n - positives) < smallest
        found.append(
            {
                "pooled": len(together) if len(together) > 1 else 0,
                "present": [_share_with(name, together) for name in names],
                "n": None if n < smallest else n,
                "share": n / len(group),
                "positives": None if hide else positives,
                "rate": None if hide else positives / n,
                "auroc": None if small else _pooled_auroc(y[rows], p[rows], subjects[rows]),
            }
        )
    return found


def _pooled_auroc(y: Floats, p: Floats, subjects: NDArray[Any]) -> dict[str, Any]:
    """AUROC of all known pairs of stay and label."""
    told = ~np.isnan(y)
    drawn = np.repeat(subjects, y.shape[1])[told.ravel()]
    auroc: dict[str, Any] = summary(y[told].astype(np.int64), p[told], drawn)["auroc"]
    return auroc


def attrition(cohort: Cohort | None, run: RunDir) -> list[dict[str, Any]]:
    """List how many stays each rule leaves, down to the stays this run could use.

    Args:
        cohort: The cohort; None if the cache is not at hand.
        run: The run.
    """
    if cohort is None:
        return []
    rows = [dict(row) for row in cohort.info.get("attrition", [])]
    parts = run.info["rows"].values()
    rows.append(
        {
            "rule": "with a known target and a modality of this run",
            "stays": sum(part["n"] for part in parts),
            "subjects": sum(part.get("subjects", 0) for part in parts),
            "paper": None,
        }
    )
    largest = max(row["stays"] for row in rows) or 1
    before = rows[0]["stays"]
    for row in rows:
        row["share"] = row["stays"] / largest
        row["removed"] = before - row["stays"]
        before = row["stays"]
    return rows


def settings(config: FuseConfig) -> list[dict[str, Any]]:
    """List every option with its value, its meaning, and whether it is the default."""
    usual = FuseConfig.of({"model": config.model})  # with the method's own options
    return [
        {
            "name": name,
            "value": ", ".join(map(str, value)) if isinstance(value, tuple) else str(value),
            "meaning": field.description or "",
            "changed": name != "modalities" and value != getattr(usual, name),
        }
        for name, field in type(config).model_fields.items()
        for value in [getattr(config, name)]
    ]


def fingerprints(run: RunDir) -> list[tuple[str, str]]:
    """List what identifies the run: its own hash, cohort, spaces, contents, versions."""
    info = run.info
    rows = [("run", info["identity"]), ("cohort", info["fingerprints"]["cohort"])]
    for name, parts in info["fingerprints"]["modalities"].items():
        rows += [(f"{name} {kind}", value) for kind, value in parts.items()]
    if "training_subjects" in info:
        rows.append(("training patients", info["training_subjects"]))
    rows += [(f"version of {name}", value) for name, value in info["versions"].items()]
    return rows


def limits(
    run: RunDir, split: str, targets: Mapping[str, Floats], random: list[str], synthetic: bool
) -> list[str]:
    """Say what this page does not show.

    Args:
        run: The run.
        split: What was judged.
        targets: Labels of the judged stays by target, NaN where unknown.
        random: Titles of modalities whose encoder has random weights.
        synthetic: Whether the stays are made up.
    """
    told = {name: y[~np.isnan(y)] for name, y in targets.items()}
    classes = {name: int(min(y.sum(), len(y) - y.sum())) for name, y in told.items()}
    label = min(classes, key=lambda name: classes[name])
    rarer, n, several = classes[label], len(told[label]), len(targets) > 1
    hidden = several and not synthetic and 0 < rarer < SMALLEST
    looks = run.test_looks
    said = [
        "This is research software. It is not a medical device; its numbers must not guide care.",
        "Everything here comes from one data set and one split by patient. How the model does "
        "elsewhere is not known until it is judged there.",
        "One training run is shown. Another seed gives other numbers; the intervals contain the "
        "choice of test patients, not the choice of seed.",
    ]
    if run.config.folds:
        said.append(
            f"One fold is shown, number {run.config.fold} of {run.config.folds} counted from 0: "
            "its test stays are a part of all. `cm2 evaluate` on the group judges every fold "
            "together."
        )
    if rarer < ENOUGH:
        said.append(
            f"{f'Fewer than {SMALLEST}' if hidden else rarer} of the {n} judged stays are of the "
            f"rarer class{f' of {label!r}' if several else ''}. A validation should have "
            f"{ENOUGH} of each: read intervals, not values."
        )
    if split == "val":
        said.append(
            "The stays judged here chose the epoch, so the values are too good."
            + (" No test stay has been looked at." if not looks else "")
        )
    if looks > (1 if split == "test" else 0):
        said.append(
            f"The test stays have been looked at {looks} time{'s' if looks > 1 else ''} with this "
            "run. Choices made after the first look make the values on them too good."
        )
    if random:
        said.append(
            f"The encoder of {', '.join(random)} has random weights: what it adds says nothing "
            "about the modality."
        )
    said.append(
        "The data are synthetic, so no count is withheld."
        if synthetic
        else f"Groups of fewer than {SMALLEST} stays are pooled, event counts of 1 to "
        f"{SMALLEST - 1} are withheld."
    )
    said.append(
        "The page holds aggregates only; the stay-level files in the run’s folder “predictions” "
        "are restricted data unless synthetic."
    )
    return said


def _available(modality: str, part: Mapping[str, Any], smallest: int) -> dict[str, Any]:
    of = part["n"]
    text, drawn = bounded(part["available"].get(modality, 0), of, smallest)
    return {"text": f"{text} of {of}", "share": drawn / max(of, 1)}


def _stays(patterns: Sequence[str], own: Sequence[str]) -> int:
    return sum(name in patterns for name in own)


def _share_with(modality: str, patterns: Sequence[str]) -> str:
    has = [modality in name.split("+") for name in patterns]
    return "all" if all(has) else "some" if any(has) else "none"


def _provenance(cache: Path | None, modality: str, space: str) -> dict[str, Any]:
    path = None if cache is None else cache / STORES / modality / space / PROVENANCE
    if path is None or not path.is_file():
        return {}
    return atomic.read_json(path, f"Remove {path.parent} and extract {modality} again.")


__all__ = [
    "DATASETS",
    "FIGURES",
    "MODALITIES",
    "TASKS",
    "attrition",
    "by_label",
    "fingerprints",
    "limits",
    "modalities",
    "own_cohort",
    "patterns",
    "results",
    "settings",
]
