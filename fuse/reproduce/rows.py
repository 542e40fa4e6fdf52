"""A trained experiment as flat rows: ours, the paper's, and the paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from .expand import Room
from .experiments import Experiment
from .judge import METRICS, Verdict, judge
from .paper import printed
from .train import Trained

FROZEN = ("cxr", "report", "note")
"""Modalities whose encoder the paper trains end to end, and a cache holds encoded."""

Row = dict[str, Any]


def rows_of(
    experiment: Experiment, room: Room, lines: Sequence[Trained], replicates: int = 0
) -> list[Row]:
    """Judge a room.

    Args:
        experiment: Where the room belongs: it names the tables of the paper.
        room: The room.
        lines: Its trained lines.
        replicates: See `judge`.

    Returns:
        One row for each metric and line: experiment, dataset, release, task, setting, modalities,
        key, method, metric, n, positives, seeds, tries, epochs (mean), value, low, high, sd, paper,
        paper_low, paper_high, paper_p, source, other_experiment (the paper trains what is frozen
        here), comparisons, replicates, group, failure, warnings (of its runs); and for each
        baseline b: `against b` (difference, low, high, p, p_holm, n).
    """
    kept = [i for i, line in enumerate(lines) if line.group is not None]
    places = {i: place for place, i in enumerate(kept)}
    baselines = {title: places[i] for title, i in room.baselines.items() if i in places}
    groups = [line.group for line in lines if line.group is not None]
    verdicts = judge(groups, baselines, replicates) if groups else []
    rows = []
    for metric in METRICS:
        for i, line in enumerate(lines):
            verdict = verdicts[places[i]][metric] if i in places else None
            rows.append(_row(experiment, room, line, metric, verdict, tuple(baselines)))
    return rows


def _row(
    experiment: Experiment,
    room: Room,
    line: Trained,
    metric: str,
    verdict: Verdict | None,
    baselines: tuple[str, ...],
) -> Row:
    setting, key = room.setting, line.entry.line.key
    place = (room.dataset, setting.rows, setting.encoders, key, room.task)
    named = room.modalities if not setting.modalities else setting.modalities.get(room.dataset, ())
    same_inputs = tuple(text.partition("@")[0] for text in room.modalities) == named
    found = printed(experiment.sources, *place, metric) if same_inputs else None
    tested = printed(("table11",), *place, f"{metric}_p") if same_inputs else None
    members = [] if line.group is None else line.group.members
    row: Row = {
        "experiment": experiment.name,
        "dataset": room.dataset,
        "release": str(room.info.get("release") or ""),
        "task": room.task,
        "setting": setting.title,
        "modalities": "+".join(text.partition("@")[0] for text in room.modalities),
        "key": key,
        "method": line.entry.line.title,
        "metric": metric,
        "n": None if verdict is None else verdict.n,
        "positives": None if verdict is None else verdict.positives,
        "seeds": len(members),
        "tries": len(line.entry.tries),
        "epochs": round(fmean(run.info["epochs"] for run in members), 1) if members else None,
        **{
            name: None if verdict is None else verdict.value.get(name)
            for name in ("value", "low", "high", "sd")
        },
        "paper": None if found is None else found[0].value,
        "paper_low": None if found is None else found[0].low,
        "paper_high": None if found is None else found[0].high,
        "paper_p": None if tested is None else tested[0].value,
        "source": "" if found is None else found[1],
        "other_experiment": any(name in FROZEN for name in named),
        "comparisons": 0 if verdict is None else verdict.comparisons,
        "replicates": 0 if verdict is None else verdict.replicates,
        "group": "" if line.group is None else str(line.group.path),
        "failure": line.failure,
        "warnings": sorted({text for run in members for text in run.info["warnings"]}),
    }
    for title in baselines:
        row[f"against {title}"] = None if verdict is None else verdict.against.get(title)
    return row


__all__ = ["Row", "rows_of"]
