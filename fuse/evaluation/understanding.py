"""What the report says about the copula beyond its density: fit, course, seeds, draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from markupsafe import Markup
from scipy import stats

from ..rundir import RunDir
from . import plots_fit
from .cells import SMALLEST, bounded


def understanding(
    run: RunDir,
    others: Sequence[RunDir],
    metrics: Mapping[str, Any],
    split: str,
    smallest: int,
) -> dict[str, Any]:
    """Gather figures and rows; what a run has no record of is None or empty.

    Args:
        run: The run of the report.
        others: Runs beside it; those that differ in their seed alone tell how far chance goes.
        metrics: What its judgement holds.
        split: Which stays were judged.
        smallest: Counts below this are not shown, see `cells`.
    """
    learned = run.learned
    if learned is None or "family" not in learned or len(learned["modalities"]) < 2:
        empty = dict.fromkeys(("uniformity", "families", "sizes", "epochs"))
        return {**empty, "best_sizes": [], "seeds": [], "draws": []}
    bounds = learned.get("validation_ks_bound")
    held = {k: v for k, v in (learned.get("held_out") or {}).items() if v is not None}
    by_size = {
        name: found
        for name, found in (learned.get("held_out_by_K") or {}).items()
        if found["sizes"] and found["n"] >= SMALLEST
    }
    rows = run.info["rows"]
    first, second = learned["modalities"][:2]
    epochs = plots_fit.densities(run.history, learned["family"], (first, second))
    draws = [
        {
            **row,
            "stays": bounded(row["n"], rows[split]["n"], smallest)[0],
            "figure": Markup(plots_fit.imputed(row, smallest)),
        }
        for row in metrics.get("imputed", [])
        if row["n"] >= SMALLEST
    ]
    return {
        "uniformity": None
        if bounds is None
        else Markup(plots_fit.uniformity(learned["validation_ks"], bounds)),
        "families": Markup(plots_fit.families(held, learned["family"])) if held else None,
        "best_family": max(held, key=lambda name: held[name]) if held else None,
        "sizes": Markup(plots_fit.sizes(by_size, run.config.K)) if by_size else None,
        "best_sizes": [
            {
                **best_size(name, one),
                "stays": bounded(one["n"], rows["val"]["n"], smallest)[0],
            }
            for name, one in by_size.items()
        ],
        "epochs": None if epochs is None else Markup(epochs),
        "seeds": over_seeds([run, *siblings(run, others)]),
        "draws": draws,
    }


def best_size(name: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """The K with the highest held-out density: modality, n, K, and what it is ahead by."""
    K = max(found["sizes"], key=lambda size: found["sizes"][size]["value"])
    return {"modality": name, "n": found["n"], "K": int(K), **found["sizes"][K]}


def siblings(run: RunDir, others: Sequence[RunDir]) -> list[RunDir]:
    """Runs that differ from one in their seed alone."""
    own = {**run.record, "config": {**run.record["config"], "seed": None}}
    return [
        other
        for other in others
        if {**other.record, "config": {**other.record["config"], "seed": None}} == own
    ]


def over_seeds(runs: Sequence[RunDir]) -> list[dict[str, Any]]:
    """Kendall's tau of each pair of modalities over runs that differ in their seed.

    Returns:
        For each pair: pair, tau (of each run: mean over coordinates), mean, low, high (95 %
        interval of Student's t), n; empty for fewer than two runs.
    """
    found: dict[str, list[float]] = {}
    for run in runs:
        for pair, tau in (kendall(run.learned) if run.learned else {}).items():
            found.setdefault(pair, []).append(tau)
    rows = []
    for pair, taus in found.items():
        n = len(taus)
        if n < 2:
            continue
        mean, error = float(np.mean(taus)), float(np.std(taus, ddof=1)) / n**0.5
        half = float(stats.t.ppf(0.975, n - 1)) * error
        rows.append(
            {
                "pair": pair,
                "tau": taus,
                "mean": mean,
                "low": mean - half,
                "high": mean + half,
                "n": n,
            }
        )
    return rows


def kendall(learned: Mapping[str, Any]) -> dict[str, float]:
    """Kendall's tau by pair of modalities, mean over coordinates."""
    return by_pair(learned.get("kendall_tau"), learned.get("modalities", []))


def by_pair(value: Any, names: Sequence[str]) -> dict[str, float]:
    """Split a number of the copula by pair of modalities, mean over coordinates.

    Args:
        value: One number, or a matrix of the modalities; perhaps one for each coordinate.
        names: The modalities.
    """
    if value is None or len(names) < 2:
        return {}
    array = np.asarray(value, float)
    matrix = array.ndim >= 2 and array.shape[-2:] == (len(names),) * 2
    return {
        f"{names[a]} and {names[b]}": float((array[..., a, b] if matrix else array).mean())
        for a, b in combinations(range(len(names)), 2)
    }


__all__ = ["best_size", "by_pair", "kendall", "over_seeds", "siblings", "understanding"]
