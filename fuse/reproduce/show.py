"""Rows of an experiment as text: a head that says what was done, then one table for each room."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...cache.layout import ARRAY_VIEWS
from ...cache.reader import Store
from ...console import table
from ...errors import ConfigError
from ..config import unknown
from ..evaluation.facts import DATASETS, SERIES
from ..evaluation.layout import (
    LAYOUTS,
    TITLES,
    csv_rows,
    latex_table,
    markdown_table,
    p_value,
    span,
)
from ..stream.options import pairs
from .budget import told
from .expand import Plan, Request, Room
from .rows import Row

AGAINST = "against "
_SEEDS = (
    "Means over seeds, Student's 95 % intervals over them: luck in training, not in patients. n "
    "and positives: training stays, of held-out densities validation stays."
)
Table = tuple[list[str], list[list[Any]]]
_SHOWN_EPOCHS = (1, 2, 5, 10, 20, 50, 100, 200, 500)


@dataclass(frozen=True)
class Result:
    """An experiment that was trained and judged.

    Attributes:
        plan: What was planned.
        request: What was asked for.
        seeds: Seeds of every line.
        rows: By room, its rows.
    """

    plan: Plan
    request: Request
    seeds: tuple[int, ...]
    rows: tuple[tuple[Row, ...], ...]


def as_text(result: Result, layout: str = "table") -> str:
    """Lay an experiment out.

    Args:
        result: The experiment.
        layout: `table`, `csv` (every number in full, rows only), `md` or `latex`.

    Raises:
        ConfigError: Another layout.
    """
    if layout not in LAYOUTS:
        raise ConfigError(unknown("format", layout, LAYOUTS))
    if layout == "csv":
        return csv_rows([flat(row) for room in result.rows for row in room])
    comment = "% " if layout == "latex" else ""
    parts = ["\n".join(comment + line for line in _listed(head(result), layout))]
    for room, rows in zip(result.plan.rooms, result.rows, strict=True):
        title = f"### {room.title}" if layout == "md" else comment + room.title
        shown = copula_table if result.plan.experiment.of_copula else score_table
        parts += [title, _laid_out(*shown(result.plan, rows), layout)]
        notes = footnotes(rows)
        parts.append("\n".join(comment + note for note in notes))
    if len(result.rows) > 1 and layout != "latex" and not result.plan.experiment.of_copula:
        title = "side by side: AUROC, in brackets the paper's"
        parts += [f"### {title}" if layout == "md" else title, side_by_side(result, layout)]
    return "\n\n".join(parts)


def head(result: Result) -> list[str]:
    """Say what was done: data, presets, encoders, budget, and what was left out."""
    plan, request = result.plan, result.request
    lines = [f"{plan.experiment.name}: {plan.experiment.title}"]
    for cache in request.caches:
        room = next((room for room in plan.rooms if room.cache == cache), None)
        if room is not None:
            lines.append(f"data: {_data(room)}")
    config = plan.rooms[0].entries[0].tries[0]
    budget = f"at most {config.epochs} epochs, patience {config.patience}, seeds "
    budget += ", ".join(map(str, result.seeds))
    budget += f"; tries of every method: {_tries(result)}"
    given = {name: value for name, value in request.options.items() if name != "preset"}
    preset = str(request.options.get("preset") or "corrected")
    own = f" with {', '.join(f'{name} {value}' for name, value in given.items())}" if given else ""
    how = "from the cache (frozen encoders)"
    if request.stream:
        how = "encoders of films and texts trained too; lines of series alone from the cache"
    lines += [f"run: preset {preset}{own}, {how}", f"budget: {budget}"]
    lines += [f"note: {text}" for text in plan.experiment.says]
    lines += [f"left out: {text}" for text in plan.skipped]
    return lines


def _tries(result: Result) -> str:
    """Settings of a method, and of those that read fewer options than are tuned."""
    counts = {e.line.title: len(e.tries) for room in result.plan.rooms for e in room.entries}
    most = max(counts.values())
    if most == 1:
        return "1, nothing tuned"
    request = result.request
    drawn = "" if request.tries is None else "its own setting and others drawn from "
    fewer = "".join(f", {n} of {name}" for name, n in counts.items() if n < most)
    return f"{most}{fewer} ({drawn}{told(request.tune)}), chosen on validation"


def side_by_side(result: Result, layout: str) -> str:
    """One column for each room, one line for each method."""
    methods = list(dict.fromkeys(row["method"] for room in result.rows for row in room))
    cells = []
    for name in methods:
        line = [name]
        for room in result.rows:
            row = next((r for r in room if r["method"] == name and r["metric"] == "auroc"), None)
            line.append("" if row is None else _short(row))
        cells.append(line)
    rooms = result.plan.rooms
    header = ["method", *(f"{room.dataset} {room.task} {room.setting.title}" for room in rooms)]
    return markdown_table(header, cells) if layout == "md" else table(header, cells)


def flat(row: Row) -> Row:
    """A row with the comparisons as columns of their own."""
    result: Row = {}
    for name, value in row.items():
        if name.startswith(AGAINST):
            for part in ("difference", "low", "high", "p", "p_holm", "n"):
                result[f"{name} {part}"] = None if value is None else value[part]
        else:
            result[name] = "; ".join(value) if isinstance(value, list) else value
    return result


def footnotes(rows: Sequence[Row]) -> list[str]:
    """Say how intervals, differences and p values of a room came about."""
    judged = next((row for row in rows if row["value"] is not None), None)
    if judged is None:
        return ["Nothing was trained."]
    notes = [_SEEDS if "quantity" in judged else _resampled(judged)]
    if any(row["paper"] is not None and row["other_experiment"] for row in rows):
        notes.append(
            "≠: another experiment: the paper trains an encoder that is frozen here, or takes "
            "another one, or starts it elsewhere."
        )
    notes += sorted({f"warning: {text}" for row in rows for text in row["warnings"]})
    notes += sorted({f"{row['method']} failed: {row['failure']}" for row in rows if row["failure"]})
    return notes


def _resampled(row: Row) -> str:
    return (
        "Differences: line minus baseline on the test stays of both. 95 % intervals and p: paired "
        f"bootstrap, patients resampled {row['replicates']:,} times, seeds averaged inside each "
        f"resample; p after Holm over {row['comparisons']} comparisons with one baseline."
    )


def score_table(plan: Plan, rows: Sequence[Row]) -> Table:
    """Header and cells of a room: values, the paper's, and differences from every baseline."""
    baselines = [name for name in rows[0] if name.startswith(AGAINST)]
    paper = any(row["paper"] is not None for row in rows)
    tests = plan.experiment.name == "table11"
    header = ["method", "metric", "n", "positives", "value", *(["paper"] if paper else [])]
    for name in baselines:
        header += [f"minus {name.removeprefix(AGAINST)}", "p Holm"]
    if tests:
        header += ["p", "paper's p"]
    cells = []
    for row in rows:
        line: list[Any] = [row["method"], TITLES[row["metric"]], row["n"], row["positives"]]
        line.append(_value(row))
        if paper:
            line.append(_printed(row))
        for name in baselines:
            entry = row[name]
            if entry is None:
                line += ["", ""]
            else:
                gap = span(entry["difference"], entry["low"], entry["high"], "+")
                if entry["n"] != row["n"]:
                    gap += f" (n {entry['n']})"
                line += [gap, p_value(entry["p_holm"])]
        if tests:
            entry = next((row[name] for name in baselines if name == baselines[0]), None)
            line += [
                "" if entry is None else p_value(entry["p"]),
                "" if row["paper_p"] is None else f"{row['paper_p']:.3g}",
            ]
        cells.append(line)
    return header, cells


def copula_table(plan: Plan, rows: Sequence[Row]) -> Table:
    """Header and cells of what copulas learned; of the epochs only some, which CSV holds all of."""
    header = ["method", "epoch", "quantity", "pair", "n", "positives", "seeds", "value", "paper"]
    cells = [
        [
            *(row[name] for name in ("method", "epoch", "quantity", "pair", "n", "positives")),
            row["seeds"],
            _value(row),
            "" if row["paper"] is None else f"{row['paper']:.3f}{_mark(row)}",
        ]
        for row in rows
        if isinstance(row["epoch"], str) or row["epoch"] in _SHOWN_EPOCHS
    ]
    return header, cells


def _laid_out(header: Sequence[str], cells: Sequence[Sequence[Any]], layout: str) -> str:
    if layout == "md":
        return markdown_table(header, cells)
    return latex_table(header, cells) if layout == "latex" else table(header, cells)


def _value(row: Row) -> str:
    if row["value"] is None:
        return "failed" if row["failure"] else "–"
    sd = "" if row["sd"] is None else f" ± {row['sd']:.3f}"
    return span(row["value"], row["low"], row["high"]) + sd


def _printed(row: Row) -> str:
    if row["paper"] is None:
        return ""
    return span(row["paper"], row["paper_low"], row["paper_high"]) + _mark(row)


def _mark(row: Row) -> str:
    return " ≠" if row["other_experiment"] else ""


def _short(row: Row) -> str:
    own = "failed" if row["value"] is None else f"{row['value']:.3f}"
    if row["paper"] is None:
        return own
    return f"{own} ({row['paper']:.3f}{' ≠' if row['other_experiment'] else ''})"


def _data(room: Room) -> str:
    info = room.info
    parts = [DATASETS.get(room.dataset, room.dataset)]
    if info.get("synthetic"):
        parts[0] += "-shaped synthetic demo: no comparison with the paper means anything"
    if info.get("release"):
        parts.append(f"release {info['release']}")
    trained = [entry.tries[0] for entry in room.entries if entry.tries[0].mode == "stream"]
    for text in room.modalities:
        name, _, space = text.partition("@")
        config = next((one for one in trained if name in pairs(one.trunk)), None)
        if config is not None:
            start = pairs(config.init).get(name, "random weights")
            parts.append(f"{name}: {pairs(config.trunk)[name]}, trained end to end, from {start}")
            continue
        store = Store.open(room.cache, name, space or None, ARRAY_VIEWS)
        kind, origin = store.space.parts, store.provenance
        if store.space.view == "series":
            how = f"{SERIES[room.entries[0].tries[0].series_encoder]}, trained"
            how += f", cache preset {kind['preset']}" if "preset" in kind else ""
        elif "encoder" in kind:
            weights = origin.get("weights") or "unnamed"
            how = f"{kind['encoder']}, frozen, weights {weights}"
            how += " (never trained)" if origin.get("random_weights") else ""
        else:
            how = "as they are, one projection trained"
        parts.append(f"{name}: {how}")
    return "; ".join(parts)


def _listed(lines: Sequence[str], layout: str) -> list[str]:
    if layout != "md":
        return list(lines)
    return [f"## {lines[0]}", "", *(f"* {line}" for line in lines[1:])]


__all__ = [
    "Result",
    "as_text",
    "copula_table",
    "flat",
    "footnotes",
    "head",
    "score_table",
    "side_by_side",
]
