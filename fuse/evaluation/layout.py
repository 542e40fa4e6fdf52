"""Comparison rows as text: a plain table, CSV, Markdown or LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from ...console import table
from ...errors import ConfigError
from ..config import unknown

LAYOUTS = ("table", "csv", "md", "latex")
TITLES = {"auroc": "AUROC", "aupr": "AUPR", "brier": "Brier", "ece": "ECE"}
HEADER = ("model", "n", "positives", "metric", "value", "difference", "p", "p DeLong", "p Holm")
_LATEX = {c: "\\" + c for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "–": "--",
    "±": r"$\pm$",
    "≠": r"$\neq$",
}


def layout_rows(rows: Sequence[dict[str, Any]], layout: str = "table") -> str:
    """Lay out what `compare` returns; the last line says what the differences are.

    Args:
        rows: See `compare`.
        layout: `table`, `csv` (every number in full), `md` or `latex`.

    Raises:
        ConfigError: Another layout.
    """
    if layout not in LAYOUTS:
        raise ConfigError(unknown("format", layout, LAYOUTS))
    if layout == "csv":
        return csv_rows(rows)
    cells = [
        [
            row["name"],
            row["n"],
            row["positives"],
            TITLES[row["metric"]],
            span(row["value"], row["low"], row["high"]),
            "baseline"
            if "difference" not in row
            else span(row["difference"], row["difference_low"], row["difference_high"], "+"),
            *(p_value(row.get(key)) for key in ("p_bootstrap", "p_delong", "p_holm")),
        ]
        for row in rows
    ]
    note = footnote(rows)
    if layout == "table":
        return f"{table(HEADER, cells)}\n\n{note}"
    if layout == "md":
        return f"{markdown_table(HEADER, cells)}\n\n{note}"
    return f"% {note}\n{latex_table(HEADER, cells)}"


def markdown_table(header: Sequence[str], cells: Sequence[Sequence[object]]) -> str:
    """Lay out cells as a table of Markdown; None is empty."""
    lines = [header, ["---"] * len(header), *cells]
    return "\n".join("| " + " | ".join(_markdown(c) for c in line) + " |" for line in lines)


def latex_table(header: Sequence[str], cells: Sequence[Sequence[object]]) -> str:
    """Lay out cells as a tabular of LaTeX with the rules of booktabs; None is empty."""
    body = "\n".join(" & ".join(_latex(c) for c in line) + r" \\" for line in cells)
    head = " & ".join(_latex(c) for c in header)
    columns = "".join(
        "r" if cells and all(isinstance(line[i], int) for line in cells) else "l"
        for i in range(len(header))
    )
    return (
        f"\\begin{{tabular}}{{{columns}}}\n\\toprule\n{head} \\\\\n\\midrule\n{body}\n"
        "\\bottomrule\n\\end{tabular}"
    )


def footnote(rows: Sequence[dict[str, Any]]) -> str:
    """Say how intervals, differences and p values of some rows came about."""
    size = max((row.get("comparisons", 0) for row in rows), default=0)
    if not size:
        return "95 % bootstrap intervals, patients resampled."
    return (
        f"Differences: run minus {rows[0]['baseline']} on the same stays. 95 % intervals and p: "
        "paired bootstrap, patients resampled. DeLong's p: stays of a patient clustered. Holm's "
        f"family: {size} comparison{'s' if size > 1 else ''}, primary metric "
        f"{TITLES[rows[0]['metric']]}."
    )


def span(
    value: float | None, low: float | None, high: float | None, sign: str = "", digits: int = 3
) -> str:
    """Write a value with its interval; a dash where undefined."""
    if value is None:
        return "–"
    form = f"{sign}.{digits}f"
    if low is None or high is None:
        return f"{value:{form}}"
    return f"{value:{form}} [{low:{form}}, {high:{form}}]"


def p_value(p: float | None) -> str:
    """Write a p value; a dash where there was no test."""
    return "–" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def csv_rows(rows: Sequence[dict[str, Any]]) -> str:
    """Lay out rows as CSV with every number in full; a cell that would run as a formula is not."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    sink = io.StringIO()
    writer = csv.DictWriter(sink, keys, restval="", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: _safe(value) for key, value in row.items()})
    return sink.getvalue().rstrip("\n")


def _safe(value: Any) -> Any:
    # a spreadsheet would run text that begins like a formula
    return f"'{value}" if isinstance(value, str) and value[:1] in "=+-@\t\r" and value else value


def _markdown(value: object) -> str:
    text = "" if value is None else str(value)
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def _latex(value: object) -> str:
    text = "".join(_LATEX.get(c, c) for c in ("" if value is None else str(value)))
    return text.replace("<", "$<$").replace(">", "$>$")
