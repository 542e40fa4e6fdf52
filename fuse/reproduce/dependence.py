"""What a trained copula learned, as flat rows: at the chosen epoch, or epoch by epoch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from ..evaluation.understanding import by_pair
from ..rundir import RunDir
from ..sweep.effects import half_width
from .expand import Room
from .experiments import Experiment
from .rows import Row, about, paper_number
from .train import Trained

TAU, HELD_OUT = "kendall_tau", "held-out log density"
PREFIX = "copula_"
PAPER_EPOCHS = (5, 50, 100)
"""Epochs of the paper's Figure 4."""

Found = tuple[int | str, str, str, list[float]]
"""Epoch, pair, quantity and its value of each seed."""


def rows_of_copula(experiment: Experiment, room: Room, lines: Sequence[Trained]) -> list[Row]:
    """Read what the runs of a room learned of dependence.

    Args:
        experiment: One that is `of_copula`.
        room: The room.
        lines: Its trained lines.

    Returns:
        What `rows_of` tells of every line, and quantity (Kendall's tau, a natural parameter, tail
        dependence, held-out log density), pair (of modalities; empty where it is a mean over all),
        epoch (1 and on; `chosen` is each seed's best on validation, `last` its last), value (mean
        over seeds), low, high (Student's 95 % interval over seeds), sd, seeds (that got so far), n
        and positives (training stays; for the held-out density validation stays), paper.
        `chosen` alone for `densities`, all epochs and `last` for the others.
    """
    rows = []
    for line in lines:
        facts = about(experiment, room, line)
        runs = [] if line.group is None else line.group.members
        if not runs:
            rows.append({**facts, **_row("", "", TAU, [], {}), "paper": None})
            continue
        part = runs[0].info["rows"]
        found = _chosen(runs) if experiment.figure == "densities" else _by_epoch(runs)
        for epoch, pair, quantity, values in found:
            split = part["val" if quantity == HELD_OUT else "train"]
            row = {**facts, **_row(epoch, pair, quantity, values, split), "paper": None}
            told = paper_number((experiment.name,), room, line, "", quantity)
            if told is not None and epoch == "last":
                row["paper"] = told[0].value
            rows.append(row)
    return rows


def _chosen(runs: Sequence[RunDir]) -> Iterator[Found]:
    """Every quantity of the best epochs, by pair of modalities where it has one."""
    table: dict[tuple[str, str], list[float]] = {}
    for run in runs:
        for place, value in quantities(run.learned or {}).items():
            table.setdefault(place, []).append(value)
    for (quantity, pair), values in table.items():
        yield "chosen", pair, quantity, values


def quantities(learned: Mapping[str, Any]) -> dict[tuple[str, str], float]:
    """Quantities of one run by name and pair of modalities, means over coordinates.

    Args:
        learned: As a run stores it.
    """
    names = learned.get("modalities", [])
    tails = learned.get("tail_dependence", {})
    found = {TAU: learned.get("kendall_tau"), **learned.get("parameters", {})}
    found |= {f"{side} tail": tails.get(side) for side in ("lower", "upper")}
    result = {
        (name, pair): value
        for name, numbers in found.items()
        for pair, value in by_pair(numbers, names).items()
    }
    told = (learned.get("held_out") or {}).get(learned.get("family"))
    return result if told is None else {**result, (HELD_OUT, ""): told}


def _by_epoch(runs: Sequence[RunDir]) -> Iterator[Found]:
    """Tau and parameters after every epoch that has a copula, then after each seed's last."""
    histories = [
        [row for row in run.history if row.get(TAU) is not None and _names(row)] for run in runs
    ]
    table: dict[int, list[Mapping[str, Any]]] = {}
    for row in (row for history in histories for row in history):
        table.setdefault(row["epoch"], []).append(row)
    ordered: dict[int | str, list[Mapping[str, Any]]] = {**dict(sorted(table.items()))}
    ordered["last"] = [history[-1] for history in histories if history]
    for epoch, rows in ordered.items():
        for key in _names(rows[0]) if rows else ():
            yield epoch, "", key.removeprefix(PREFIX), [row[key] for row in rows]


def _names(row: Mapping[str, Any]) -> list[str]:
    parameters = [key for key in row if key.startswith(PREFIX)]
    return [*parameters, TAU] if parameters else []


def _row(
    epoch: int | str, pair: str, quantity: str, values: Sequence[float], split: Mapping[str, Any]
) -> Row:
    half = half_width(values)
    mean = fmean(values) if values else None
    return {
        "quantity": quantity,
        "pair": pair,
        "epoch": epoch,
        "value": mean,
        "low": None if half is None or mean is None else mean - half,
        "high": None if half is None or mean is None else mean + half,
        "sd": stdev(values) if len(values) > 1 else None,
        "seeds": len(values),
        "n": split.get("n"),
        "positives": split.get("positives"),
    }


__all__ = ["HELD_OUT", "PAPER_EPOCHS", "PREFIX", "TAU", "quantities", "rows_of_copula"]
