"""The looks of `evaluate` as tables for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ...console import metric_table, table
from .cells import SMALLEST
from .evaluate import PROVES_NOTHING
from .layout import p_value, span
from .subgroups import UNKNOWN

_POINTS = ("sensitivity", "specificity", "ppv", "npv", "f1")


def shown(metrics: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Lay out what was looked at beyond the metrics of all stays.

    Args:
        metrics: As `evaluate` returns them.

    Yields:
        Title and text of each table.
    """
    split = metrics["split"]
    if targets := metrics.get("targets"):
        rows = [(name, split, part) for name, part in targets.items()]
        yield "by label", metric_table([*rows, ("all pairs", split, metrics["micro"])])
    if len(patterns := metrics.get("by_pattern", {})) > 1:
        rows = [(k, split, _large_enough(v)) for k, v in patterns.items()]
        yield "by what is there", metric_table(rows) + _why_empty(patterns)
    for column, groups in metrics.get("by_group", {}).items():
        text = metric_table([(_marked(k, v), split, _large_enough(v)) for k, v in groups.items()])
        text += _why_empty(groups)
        if any(_few(part) for part in groups.values()):
            text += f"\n* fewer than {PROVES_NOTHING} events or stays without one: proves nothing"
        yield f"by {column}", text
    if without := [entry for entry in metrics.get("without", []) if entry["n"]]:
        yield (
            "a modality withheld from the stays that have it and another one",
            table(
                ["withheld", "n", "positives", "change of p", "|change|", "AUROC", "difference"],
                [
                    [
                        *(e["modality"], e["n"], e["positives"], f"{e['mean_change']:+.3f}"),
                        *(f"{e['mean_absolute_change']:.3f}", *_metric(e["auroc"])),
                    ]
                    if e["n"] >= SMALLEST
                    else [e["modality"], "", "", *["–"] * 4]
                    for e in without
                ],
            )
            + _why_empty({e["modality"]: e for e in without}),
        )
    if curve := metrics.get("missingness"):
        yield (
            "a modality withheld from a share of them",
            table(
                ["withheld", "share", "stays", "AUROC", "difference", "p"],
                [
                    [
                        *(e["modality"], f"{100 * e['share']:g} %", e["withheld"]),
                        *_lost(e),
                    ]
                    for e in curve
                ],
            ),
        )
    if threshold := metrics.get("threshold"):
        points = threshold.get("targets") or {"": threshold}
        yield (
            f"alarms at the threshold fixed on validation ({threshold['rule']})",
            table(
                ["target", "threshold", *_POINTS, "alarms per 100"],
                [[name or metrics["task"], *_alarms(point)] for name, point in points.items()],
            ),
        )
    if corrected := metrics.get("recalibrated"):
        both = [("as trained", metrics), (corrected["how"], corrected)]
        yield (
            "probabilities corrected on validation",
            table(
                ["", "Brier", "ECE", "slope", "intercept"],
                [
                    [name]
                    + [_span(m[k]) for k in ("brier", "ece")]
                    + [_number(m.get("calibration", {}).get(k)) for k in ("slope", "intercept")]
                    for name, m in both
                ],
            ),
        )


def _alarms(point: Mapping[str, Any]) -> list[str]:
    if point["threshold"] is None:  # nothing on validation to fix it by
        return ["–"] * (len(_POINTS) + 2)
    figures = [_span(point[name]) for name in _POINTS]
    return [f"{point['threshold']:.3f}", *figures, _span(point["alarms_per_100"], 1)]


def _span(entry: Mapping[str, Any], digits: int = 3) -> str:
    return span(entry["value"], entry["low"], entry["high"], digits=digits)


def _lost(entry: Mapping[str, Any]) -> list[str]:
    """AUROC, difference and p; the reason where nothing was withheld."""
    if not entry["withheld"]:
        return [entry["reason"], "–", "–"]
    return [*_metric(entry["auroc"]), p_value(entry["auroc"]["p"])]


def _metric(entry: Mapping[str, Any]) -> list[str]:
    return [
        _span(entry),
        span(entry["difference"], entry["difference_low"], entry["difference_high"], "+"),
    ]


def _large_enough(part: Mapping[str, Any]) -> Mapping[str, Any]:
    """The metrics of a group, or none of a group too small to be shown, see `cells`."""
    return part if part["n"] >= SMALLEST else {}


def _why_empty(groups: Mapping[str, Mapping[str, Any]]) -> str:
    small = any(part["n"] < SMALLEST for part in groups.values())
    return f"\nempty: fewer than {SMALLEST} stays; --json holds them" if small else ""


def _few(part: Mapping[str, Any]) -> bool:
    return bool(min(part["positives"], part["n"] - part["positives"]) < PROVES_NOTHING)


def _marked(name: str, part: Mapping[str, Any]) -> str:
    shown = f"({name})" if name == UNKNOWN else name
    return shown + "*" * _few(part)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


__all__ = ["shown"]
