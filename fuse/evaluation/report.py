"""One offline HTML page about a run: what it is, how good it is, what it learned, what it is not.

The page asks nothing of any network, runs no script, and holds aggregates only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from ...errors import ConfigError
from ..identity import modality_names
from ..rundir import RunDir
from . import facts, plots, plots_copula, plots_judgement, plots_training
from .bands import bands
from .cells import SMALLEST, bounded
from .layout import p_value
from .page import fill, write
from .paired import labels, paired
from .understanding import understanding

_MOST_PAIRS = 6
_GRID = (np.arange(80) + 0.5) / 80


def write_report(
    run: RunDir, out: Path, *, cache: Path | None, others: Sequence[RunDir] = ()
) -> Path:
    """Write the page.

    Args:
        run: A finished run. It is shown on test stays if it was judged there, else on validation.
        out: The file to write.
        cache: Its cache, for attrition and the origin of weights; None leaves those out.
        others: Runs of the same task to stand beside it; those not judged on the same split are
            named and left out.

    Returns:
        `out`.

    Raises:
        ConfigError: The run is not finished, the runs have different tasks, or the cache is not
            the run's.
    """
    run.require_finished()
    return write(render(content(run, cache, others)), out)


def render(page: dict[str, Any]) -> str:
    """Fill the template; every value but the figures is escaped."""
    filters: dict[str, Callable[..., str]] = {
        "signed": _signed,
        "p_value": p_value,
        "percent": _percent,
        "place": _place,
    }
    return fill(Path(__file__).parent / "report.html.j2", page, filters)


def content(run: RunDir, cache: Path | None, others: Sequence[RunDir]) -> dict[str, Any]:
    """Gather everything the template shows.

    Args:
        run: The run.
        cache: Its cache or None.
        others: Runs beside it.

    Raises:
        ConfigError: The cache does not hold the cohort that the run was trained on.
    """
    split = "test" if run.metrics("test") is not None else "val"
    beside = [other for other in others if other.path != run.path]
    judged = [other for other in beside if other.metrics(split) is not None]
    names = labels([run, *judged])
    data = paired([run, *judged], split)
    told = data.y[~np.isnan(data.y).all(1)]
    y = data.y.ravel()  # several labels: pairs of stay and label
    known = ~np.isnan(y)
    y, p = y[known].astype(np.int64), [seeds[0].ravel()[known] for seeds in data.p]
    subjects = np.repeat(data.subjects, len(data.targets))[known]
    rows = facts.results(run, judged, names, split)
    cohort = None if cache is None else facts.own_cohort(run, cache)
    if cache is not None and cohort is None:
        raise ConfigError(
            f"{cache} does not hold the cohort {run.config.cohort!r} that {run.path} was trained "
            "on, and what another cohort says of itself is not true of this run. Name the run's "
            "own cache by --cache, or none."
        )
    synthetic = cohort is not None and bool(cohort.info.get("synthetic"))
    smallest = 1 if synthetic else SMALLEST
    inputs = facts.modalities(run, cache, smallest)
    random = [row["title"] for row in inputs if row["random"]]
    metrics = run.metrics(split) or {}
    n, positives = len(told), int((told == 1).any(1).sum())
    rates = np.nanmean(told, 0)  # by label
    dataset = str(run.info.get("dataset", "unknown"))
    return {
        "title": facts.TASKS.get(run.config.task, run.config.task),
        "task": run.config.task,
        "dataset": facts.DATASETS.get(dataset, dataset),
        "synthetic": synthetic,
        "release": "" if cohort is None else str(cohort.info.get("release") or ""),
        "cohort": run.config.cohort,
        "name": names[0],
        "config": run.config,
        "identity": run.info["identity"][:12],
        "split": split,
        "split_title": {"test": "test", "val": "validation"}[split],
        "looks": run.test_looks,
        "best_epoch": run.info.get("best_epoch", 0),
        "epochs": len(run.history),
        "warnings": [w for w in run.info.get("warnings", []) if not (random and "random" in w)],
        "unknown_origin": cohort is None,
        "random": random,
        "inputs": inputs,
        "rows": run.info["rows"],
        "results": rows,
        "elsewhere": run.elsewhere,
        "left_out": data.left_out[0],
        "not_judged": [
            name
            for name, other in zip(labels([run, *beside])[1:], beside, strict=True)
            if other not in judged
        ],
        "calibration_fit": metrics.get("calibration"),
        "n": n,
        "positives": positives,
        "prevalence": positives / n,
        "labels": len(rates),
        "uninformed": {"aupr": float(rates.mean()), "brier": float((rates * (1 - rates)).mean())},
        "figures": _figures(run, y, p, subjects, smallest),
        "patterns": facts.patterns(run.predictions(split), modality_names(run.config), smallest),
        "dependence": _dependence(run, smallest),
        "understanding": understanding(run, others, metrics, split, smallest),
        "by_label": facts.by_label(metrics, smallest),
        "consequences": _consequences(metrics, float(y.mean())),
        "attrition": facts.attrition(cohort, run),
        "settings": facts.settings(run.config),
        "fingerprints": facts.fingerprints(run),
        "limits": facts.limits(
            run, split, dict(zip(data.targets, data.y.T, strict=True)), random, synthetic
        ),
        "modality_titles": facts.MODALITIES,
        "smallest": smallest,
        "enough": SMALLEST,
        "steps": plots_copula.LEGEND,
    }


def _figures(
    run: RunDir, y: Any, p: Sequence[Any], subjects: Any, smallest: int
) -> dict[str, Markup | None]:
    both = 0 < y.sum() < len(y)
    band = bands(y, p[0], subjects) if both else None
    history, best = run.history, int(run.info.get("best_epoch", 0))
    drawn = {
        "roc": plots.roc(y, p, band) if both else None,
        "pr": plots.precision_recall(y, p, band) if both else None,
        "calibration": plots.calibration(y, p[0], smallest),
        "losses": plots_training.losses(history, best, run.config.warmup) if history else None,
        "validation": plots_training.validation(history, best) if history else None,
        "monitors": plots_training.monitors(history, best) if history else None,
    }
    return {name: None if svg is None else Markup(svg) for name, svg in drawn.items()}


def _consequences(metrics: dict[str, Any], prevalence: float) -> dict[str, Any]:
    """Draw the decision curve and the missingness curve, where the judgement holds them."""
    curve, rows = metrics.get("decision") or {}, metrics.get("missingness") or []
    names = dict.fromkeys(row["modality"] for row in rows)
    return {
        "decision": Markup(plots_judgement.decision(curve, prevalence))
        if "threshold" in curve
        else None,
        "missingness": Markup(plots_judgement.missingness(rows, metrics)) if rows else None,
        "withheld": [facts.MODALITIES.get(name, name) for name in names],
    }


def _dependence(run: RunDir, smallest: int) -> dict[str, Any] | None:
    learned = run.learned
    if learned is None or "family" not in learned or len(learned["modalities"]) < 2:
        return None
    names = learned["modalities"]
    M, width = len(names), run.config.copula_dim or run.config.hidden
    of, pairs = run.info["rows"]["val"]["n"], []
    for pair in combinations(range(M), 2):
        first, second = names[pair[0]], names[pair[1]]
        table = np.asarray(learned["u_histogram"][f"{first},{second}"], np.int64)
        stays = int(table.sum()) // width
        enough = stays >= SMALLEST
        density = plots_copula.pair_density(
            learned["family"], learned["parameters"], M, pair, _GRID
        )
        svg = plots_copula.dependence(
            f"copula-{pair[0]}-{pair[1]}", (first, second), density, table if enough else None
        )
        pairs.append(
            {
                "title": f"{facts.MODALITIES.get(first, first)} and "
                f"{facts.MODALITIES.get(second, second)}",
                "stays": bounded(stays, of, smallest)[0],
                "drawn": enough,
                "tau": _range(_pick(learned.get("kendall_tau"), pair)),
                "figure": Markup(svg),
            }
        )
    tails = learned.get("tail_dependence", {})
    return {
        "family": learned["family"],
        "coupling": learned.get("coupling", ""),
        "width": width,
        "parameters": [
            (name, _range(np.asarray(value, float)))
            for name, value in learned["parameters"].items()
            if name != "correlation"
        ],
        "lower": _range(_pick(tails.get("lower"), None)),
        "upper": _range(_pick(tails.get("upper"), None)),
        "validation_tau": learned.get("validation_kendall_tau"),
        "pairs": pairs[:_MOST_PAIRS],
        "omitted": max(0, len(pairs) - _MOST_PAIRS),
        "mixtures": [
            {"title": facts.MODALITIES.get(name, name), "weights": sorted(weights, reverse=True)}
            for name, weights in zip(names, learned["mixture_weights"], strict=True)
        ],
    }


def _pick(value: Any, pair: tuple[int, int] | None) -> Any:
    # matrices of elliptical families have one entry for each pair, perhaps by coordinate
    array = np.asarray(0.0 if value is None else value, float)
    if array.ndim < 2:
        return array
    if pair is not None:
        return array[..., pair[0], pair[1]]
    return array[..., ~np.eye(array.shape[-1], dtype=bool)]


def _range(value: Any) -> str:
    array = np.atleast_1d(value)
    low, high = float(array.min()), float(array.max())
    return f"{low:.3f}" if high - low < 5e-4 else f"{low:.3f} to {high:.3f}"


def _percent(share: float, digits: int = 0) -> str:
    return f"{100 * share:.{digits}f} %"


def _signed(value: float, digits: int = 3, sign: str = "+") -> str:
    return f"{value:{sign}.{digits}f}".replace("-", "−")


def _place(value: float, low: float = 0.0, high: float = 1.0) -> str:
    # position along a track, in percent of its length
    return f"{100 * min(max((value - low) / (high - low), 0.0), 1.0):.2f}%"


__all__ = ["content", "render", "write_report"]
