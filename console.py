"""What the command line shows: bars and messages on stderr, tables on stdout."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

SECONDS_BETWEEN_LINES = 10.0


class _Stderr(logging.Handler):
    """Writes to the stderr of the moment, which a moving table takes over for its time."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr, flush=True)


def set_up_logging(verbosity: int) -> None:
    """Send the package's log to stderr.

    Args:
        verbosity: -1 and 0 warnings, which are a part of the result, 1 information, 2 everything.
    """
    level = {0: logging.WARNING, 1: logging.INFO}.get(max(verbosity, 0), logging.DEBUG)
    handler = _Stderr()
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    logger = logging.getLogger("cm2")
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(level)


class Bars:
    """A `Progress` for people: a moving bar on a terminal, plain lines elsewhere.

    Args:
        quiet: Show nothing.
    """

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet

    @contextmanager
    def __call__(
        self, description: str, total: int | None, unit: str = "items"
    ) -> Iterator[Callable[[int], None]]:
        """Open one bar."""
        if self._quiet:
            yield lambda done: None
        elif sys.stderr.isatty():
            with _moving_bar(description, total, unit) as advance:
                yield advance
        else:
            with _plain_lines(description, total, unit) as advance:
                yield advance


@contextmanager
def _moving_bar(description: str, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:,.1f} {unit}/s")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(description, total=total)
        yield lambda done: progress.advance(task, done)


@contextmanager
def _plain_lines(description: str, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
    start = last = time.monotonic()
    count = 0

    def show(now: float) -> None:
        rate = count / max(now - start, 1e-9)
        of_total = "" if total is None else f"/{total:,}"
        left = "" if total is None or not rate else f", {max(total - count, 0) / rate:.0f} s left"
        print(
            f"{description}: {count:,}{of_total} {unit}, {rate:,.1f}/s{left}",
            file=sys.stderr,
            flush=True,
        )

    def advance(done: int) -> None:
        nonlocal count, last
        count += done
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES:
            last = now
            show(now)

    yield advance
    print(
        f"{description}: {count:,} {unit} in {time.monotonic() - start:.1f} s",
        file=sys.stderr,
        flush=True,
    )


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Lay out a table in plain text; numbers to the right, text to the left.

    Args:
        header: Column titles.
        rows: One sequence of cells per row; None shows as an empty cell.
    """
    cells = [[_cell(value) for value in row] for row in rows]
    numeric = [
        bool(rows) and all(isinstance(row[i], int | float | None) for row in rows)
        for i in range(len(header))
    ]
    widths = [max(len(line[i]) for line in [list(header), *cells]) for i in range(len(header))]

    def line(values: Sequence[str]) -> str:
        padded = (
            value.rjust(width) if right else value.ljust(width)
            for value, width, right in zip(values, widths, numeric, strict=True)
        )
        return "  ".join(padded).rstrip()

    rule = "  ".join("─" * width for width in widths)
    return "\n".join([line(header), rule, *(line(row) for row in cells)])


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


def interval(metric: dict[str, float | None] | None) -> str:
    """Write a metric with its interval as `0.812 [0.744, 0.871]`, or a dash where undefined.

    Args:
        metric: Keys `value`, `low`, `high`.
    """
    if metric is None or metric.get("value") is None:
        return "–"
    if metric.get("low") is None:
        return f"{metric['value']:.3f}"
    return f"{metric['value']:.3f} [{metric['low']:.3f}, {metric['high']:.3f}]"


def records(rows: Sequence[Mapping[str, object]]) -> str:
    """Lay out rows given as mappings; a key that a row lacks is an empty cell.

    Args:
        rows: One mapping of column title to cell per row.
    """
    header = list(dict.fromkeys(key for row in rows for key in row))
    return table(header, [[row.get(key) for key in header] for row in rows])


def metric_table(rows: Sequence[tuple[str, str, Mapping[str, Any]]]) -> str:
    """Lay out the metrics of models with their intervals.

    Args:
        rows: Name of the model, split, metrics as `evaluate` returns them.
    """
    header = ["model", "split", "n", "positives", "AUROC", "AUPR", "Brier", "ECE"]
    body = [
        [name, split, metrics.get("n"), metrics.get("positives")]
        + [interval(metrics.get(key)) for key in ("auroc", "aupr", "brier", "ece")]
        for name, split, metrics in rows
    ]
    errors = [metrics.get("ece") or {} for _, _, metrics in rows]
    above = any(e.get("low") is not None and e["low"] > e["value"] for e in errors)
    said = "\nECE: resamples repeat stays, which raises it; so an interval can lie above its value"
    return table(header, body) + (said if above else "")


def outline(facts: Mapping[str, Any], indent: str = "") -> list[str]:
    """Write nested facts as indented lines.

    Args:
        facts: Names to values; mappings and lists of mappings open a level.
        indent: Blanks before every line.
    """
    lines = []
    for key, item in facts.items():
        if isinstance(item, Mapping) and item:
            lines += [f"{indent}{key}:", *outline(item, indent + "  ")]
        elif isinstance(item, list) and item and isinstance(item[0], Mapping):
            lines.append(f"{indent}{key}:")
            lines += [
                f"{indent}  - " + ", ".join(f"{k} {v}" for k, v in part.items() if v is not None)
                for part in item
            ]
        else:
            lines.append(f"{indent}{key}: {item}")
    return lines
