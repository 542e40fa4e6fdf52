"""Read a sweep: the best settings by validation, what each option was worth, and honesty."""

from __future__ import annotations

import statistics
from collections import Counter
from typing import Any

from ...console import records
from ..evaluation.layout import span
from .axis import shown
from .book import Roll, SweepDir
from .effects import main_effects
from .index import Standing, ranking, rows, write_index
from .selection import gain_by_chance, noise_of_means

_SHOWN = 10


def read(sweep: SweepDir, best: int = _SHOWN) -> dict[str, Any]:
    """Gather what a sweep has found, from its runs, and write its index if they are read anew.

    Args:
        sweep: The sweep, finished or not.
        best: How many settings are listed.

    Returns:
        sweep, runs (number by status), metric, settings, best (rank, setting, score, sd, runs,
        weights, and its values), effects (see `main_effects`), selection, warnings (what the runs
        of the best setting say of themselves).
    """
    roll = sweep.roll()
    found = sweep.latest
    if found is None:
        found = rows(sweep, roll)
        write_index(sweep, found)
    standings = ranking(found)
    complete = [one for one in standings if one.complete]
    weights = {row["setting"] for row in found if row["weights"]}
    undefined = any(r["val_auroc"] is None for r in found if r["status"] == "finished")
    names = list(roll.values[0]) if roll.values else []
    return {
        "sweep": str(sweep.path),
        "runs": dict(Counter(row["status"] for row in found)),
        "metric": "negative validation loss" if undefined else "validation AUROC",
        "settings": len(roll.values),
        "refused": roll.refused,
        "repeated": roll.repeated,
        "failed": sweep.failures(),
        "best": [
            {
                "rank": rank,
                "setting": one.setting,
                "score": one.score,
                "sd": statistics.stdev(one.scores) if len(one.scores) > 1 else None,
                "runs": len(one.scores),
                "weights": one.setting in weights,
                **{name: shown(value) for name, value in roll.values[one.setting].items()},
            }
            for rank, one in enumerate(complete[:best], 1)
        ],
        "effects": main_effects(found, names),
        "selection": _selection(complete, len(ranking(found, finished=False)), sweep),
        "warnings": _warnings(roll, complete[0].setting) if complete else [],
    }


def text(result: dict[str, Any]) -> str:
    """Lay out what `read` returns."""
    counts = ", ".join(f"{n} {status}" for status, n in result["runs"].items()) or "no runs yet"
    parts = [f"{result['settings']} settings; runs: {counts}"]
    if result["repeated"]:
        parts.append(f"{result['repeated']} combinations are the same training as another one.")
    parts += [f"left out, {n} x: {reason}" for reason, n in result["refused"].items()]
    if result["best"]:
        title = f"best by {result['metric']} (mean over runs)"
        lines = [{k: v for k, v in row.items() if k != "setting"} for row in result["best"]]
        parts.append(f"\n{title}\n{records(lines)}")
    if result["effects"]:
        lines = [
            {
                "option": row["option"],
                "value": row["value"],
                "settings": row["settings"],
                "mean": row["mean"],
                "above all": span(row["difference"], row["low"], row["high"], "+"),
            }
            for row in result["effects"]
        ]
        parts.append(
            f"\nwhat each option was worth, averaged over the others and compared by seed\n"
            f"{records(lines)}"
        )
    if result["runs"].get("stopped"):
        parts.append("Settings that were given up early have no part in these means.")
    if result["selection"]:
        parts.append(f"\n{result['selection']['sentence']}")
    parts += [f"warning: {one}" for one in result["warnings"]]
    parts.append(f"sweep: {result['sweep']}")
    return "\n".join(parts)


def _warnings(roll: Roll, setting: int) -> list[str]:
    """What the runs of a setting say of themselves, each sentence once."""
    said = [text for member in roll.of(setting) for text in member.run.info.get("warnings", [])]
    return list(dict.fromkeys(said))


def _selection(complete: list[Standing], n: int, sweep: SweepDir) -> dict[str, Any] | None:
    """Compare the lead of the best of n tried settings with what chance alone would give."""
    if len(complete) < 2:
        return None
    mean = statistics.fmean(one.score for one in complete)
    lead = complete[0].score - mean
    noise, source = noise_of_means(complete), "the spread over seeds"
    if noise is None:
        noise, source = _bootstrap_noise(sweep, complete), "the bootstrap of stays"
    if noise is None:
        return None
    chance = gain_by_chance(n, noise)
    sentence = (
        f"The best of {n} settings is {lead:.3f} above the mean. Were all equally good, the best "
        f"of {n} would still look {chance:.3f} above it by luck (noise {noise:.4f} from {source}). "
        f"Expect about {max(lead - chance, 0):.3f} of the lead on new stays, and judge the "
        "chosen setting once on the test stays: --final."
    )
    return {
        "tries": n,
        "mean": mean,
        "lead": lead,
        "noise": noise,
        "noise_from": source,
        "by_chance": chance,
        "sentence": sentence,
    }


def _bootstrap_noise(sweep: SweepDir, complete: list[Standing]) -> float | None:
    """Noise of the best run whose interval has a width: that of an AUROC of 1 has none."""
    roll = sweep.roll()
    for member in (member for one in complete for member in roll.of(one.setting)):
        auroc = (member.run.metrics("val") or {}).get("auroc", {})
        if auroc.get("low") is not None and auroc["high"] > auroc["low"]:
            return float(auroc["high"] - auroc["low"]) / (2 * 1.96)
    return None


__all__ = ["read", "text"]
