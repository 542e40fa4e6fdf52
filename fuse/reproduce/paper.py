"""The numbers that the paper prints, with the cell that each stands in.

paper.csv: source (table or figure), dataset, rows, encoders, row, task, metric, value, low, high.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import NamedTuple


class Cell(NamedTuple):
    """Where a number stands in the paper.

    Attributes:
        source: Such as `table2`.
        dataset: `mimic3` or `mimic4`.
        rows: `matched` or `partial`.
        encoders: Of Table 10, such as `lstm+vit`; else empty.
        row: Method or variant.
        task: `ihm` or `readm`; empty in figures.
        metric: `auroc`, `aupr`; `auroc_p`, `aupr_p` of Table 11; `theta`, `kendall_tau`.
    """

    source: str
    dataset: str
    rows: str
    encoders: str
    row: str
    task: str
    metric: str


class Printed(NamedTuple):
    """A printed number.

    Attributes:
        value: The number.
        low: Lower end of its 95 % interval; None where none is printed.
        high: Upper end.
    """

    value: float
    low: float | None
    high: float | None


@cache
def numbers() -> dict[Cell, Printed]:
    """Every number of the paper's tables on methods, by cell."""
    text = files(__package__).joinpath("paper.csv").read_text("utf-8")
    found = {}
    for line in csv.DictReader(text.splitlines()):
        low, high = (float(line[end]) if line[end] else None for end in ("low", "high"))
        cell = Cell(*(line[name] for name in Cell._fields))
        found[cell] = Printed(float(line["value"]), low, high)
    return found


def printed(sources: Sequence[str], *place: str) -> tuple[Printed, str] | None:
    """Look a number up.

    Args:
        sources: Tables in which to look, the first one first.
        place: The other parts of its `Cell`, in order.

    Returns:
        The number and the table it stands in; None if the paper has none.
    """
    for source in sources:
        if (found := numbers().get(Cell(source, *place))) is not None:
            return found, source
    return None


__all__ = ["Cell", "Printed", "numbers", "printed"]
