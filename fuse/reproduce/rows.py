"""A trained experiment as flat rows: ours, the paper's, and the paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from .expand import Room, names_of
from .experiments import Experiment
from .judge import METRICS, Verdict, judge
from .paper import Printed, printed
from .streamed import as_published
from .train import Trained

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


def about(experiment: Experiment, room: Room, line: Trained) -> Row:
    """What every row of a line tells, see `rows_of`: where it belongs, and how it was trained."""
    members = [] if line.group is None else line.group.members
    return {
        "experiment": experiment.name,
        "dataset": room.dataset,
        "release": str(room.info.get("release") or ""),
        "task": room.task,
        "setting": room.setting.title,
        "modalities": "+".join(names_of(room.modalities)),
        "key": line.entry.line.key,
        "method": line.entry.line.title,
        "seeds": len(members),
        "tries": len(line.entry.tries),
        "epochs": round(fmean(run.info["epochs"] for run in members), 1) if members else None,
        "other_experiment": not all(
            as_published(line.config, name, room.setting.image) for name in _of_paper(room)
        ),
        "group": "" if line.group is None else str(line.group.path),
        "failure": line.failure,
        "warnings": sorted({text for run in members for text in run.info["warnings"]}),
    }


def paper_number(
    sources: Sequence[str], room: Room, line: Trained, task: str, metric: str
) -> tuple[Printed, str] | None:
    """The paper's number of a line and its table; None where there is none for these inputs."""
    if names_of(room.modalities) != _of_paper(room):
        return None
    setting = room.setting
    place = (room.dataset, setting.rows, setting.encoders, line.entry.line.key, task)
    return printed(sources, *place, metric)


def _of_paper(room: Room) -> tuple[str, ...]:
    """Modalities that the paper reads; those of the room where it says nothing."""
    wanted = room.setting.modalities
    return wanted.get(room.dataset, ()) if wanted else names_of(room.modalities)


def _row(
    experiment: Experiment,
    room: Room,
    line: Trained,
    metric: str,
    verdict: Verdict | None,
    baselines: tuple[str, ...],
) -> Row:
    found = paper_number(experiment.sources, room, line, room.task, metric)
    tested = paper_number(("table11",), room, line, room.task, f"{metric}_p")
    row = about(experiment, room, line) | {
        "metric": metric,
        "n": None if verdict is None else verdict.n,
        "positives": None if verdict is None else verdict.positives,
        **{
            name: None if verdict is None else verdict.value.get(name)
            for name in ("value", "low", "high", "sd")
        },
        "paper": None if found is None else found[0].value,
        "paper_low": None if found is None else found[0].low,
        "paper_high": None if found is None else found[0].high,
        "paper_p": None if tested is None else tested[0].value,
        "source": "" if found is None else found[1],
        "comparisons": 0 if verdict is None else verdict.comparisons,
        "replicates": 0 if verdict is None else verdict.replicates,
    }
    for title in baselines:
        row[f"against {title}"] = None if verdict is None else verdict.against.get(title)
    return row


__all__ = ["Row", "about", "paper_number", "rows_of"]
