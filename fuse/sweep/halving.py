"""Successive halving: all settings a little, the best third three times as long, and so forth.

A run that goes on is the same run, continued; one that does not keeps its history, and a later
sweep that wants it whole trains it anew. Every step is a function of the histories alone, so a
killed sweep goes on where it was. (Jamieson and Talwalkar, AISTATS 2016, with a factor of 3.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .index import ranking, read_run
from .ledger import Ledger
from .plan import Plan

FACTOR = 3
FEWEST = 3
"""Epochs after the warm-up that a run is given before it is judged."""

Train = Callable[..., None]


def rungs(epochs: int, warmup: int) -> list[int]:
    """Epochs after which settings are given up.

    Args:
        epochs: Largest number of epochs of any run.
        warmup: Longest warm-up.
    """
    found = list[int]()
    step = -(-epochs // FACTOR)
    while step >= warmup + FEWEST and step < epochs:
        found.insert(0, step)
        step = -(-step // FACTOR)
    return found


def halve(plan: Plan, ledger: Ledger, train: Train) -> None:
    """Train all settings, and give up two thirds of them at every rung.

    Args:
        plan: Settings and runs.
        ledger: Rows of the runs.
        train: Brings runs, by number, to an epoch or to their end.
    """
    alive = list(range(len(plan.settings)))
    steps = rungs(
        max(config.epochs for config in plan.configs),
        max(config.warmup for config in plan.configs),
    )
    for until in steps:
        ledger.stage = f"{len(alive)} settings to epoch {until}"
        train(_runs(plan, alive), until)
        best = _best(plan, ledger, alive, until)
        for setting in sorted(set(alive) - set(best)):
            ledger.give_up(setting)
        alive = best
    ledger.stage = f"{len(alive)} settings to the end"
    train(_runs(plan, alive))
    ledger.prune(range(len(plan.members)))


def _best(plan: Plan, ledger: Ledger, alive: Sequence[int], until: int) -> list[int]:
    """The best third of the settings by what they had reached at an epoch."""
    runs = _runs(plan, alive)
    rows = [{**ledger.rows[i], **read_run(plan.members[i].run, until)} for i in runs]
    for row, i in zip(rows, runs, strict=True):
        if ledger.rows[i]["status"] == "failed":
            row["status"] = "failed"
    ranked = ranking(rows, finished=False)
    return sorted(one.setting for one in ranked[: -(-len(alive) // FACTOR)])


def _runs(plan: Plan, settings: Sequence[int]) -> list[int]:
    chosen = set(settings)
    return [i for i, member in enumerate(plan.members) if member.setting in chosen]


__all__ = ["halve", "rungs"]
