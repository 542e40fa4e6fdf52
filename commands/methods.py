"""`cm2 models`: the methods there are to compare, one of them, or a check of one of your own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from ..console import records
from ..errors import ConfigError
from .shared import JsonOption, bars, print_json, say

_EVERYWHERE = ("model", "what", "needs", "absent modality", "options", "reference")
_ON_A_CACHE = ("model", "parameters", "this cache")


def models(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            help="NAME or FILE.py:CLASS for its options and presets; check NAME to check it.",
            metavar="[check] [NAME]",
        ),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            help="Say which methods this cache can serve, with their parameters.", metavar="DIR"
        ),
    ] = None,
    cohort: Annotated[str, typer.Option(help="Cohort of the cache.")] = "default",
    as_json: JsonOption = False,
) -> None:
    """List the methods, show the options of one, or check one of your own.

    `cm2 models check ./mine.py:MyFusion` holds a method to what every method has to do.
    """
    words = words or []
    if words[:1] == ["check"] and len(words) == 2:
        _check(words[1], as_json)
    elif not words or (len(words) == 1 and words != ["check"]):
        rows = list(_methods(words, cache, cohort))
        if as_json:
            print_json(rows[0] if words else rows)
        elif words:
            _show(rows[0])
        else:
            keys = _ON_A_CACHE if cache else _EVERYWHERE
            shown = [{key: _word(row[key]) for key in keys} for row in rows]
            print(records(shown))
            if told := [line for row in rows for line in _refused(row, f"{row['model']}, ")]:
                print("\n" + "\n".join(told))
            say("cm2 models NAME shows one with its options and presets")
    else:
        raise ConfigError(
            f"cm2 models takes a NAME, or check NAME; found {' '.join(words)!r}. One method at a "
            "time."
        )


def _methods(names: list[str], cache: Path | None, cohort: str) -> Iterator[dict[str, Any]]:
    from ..fuse.inspection import describe, rows_of, served
    from ..fuse.methods import METHODS, canonical

    data = None if cache is None else rows_of(cache, cohort)
    for name in names or METHODS:
        row = describe(name)
        if data is not None:
            row |= served(canonical(name), data)
        yield row


def _word(value: object) -> object:
    return ", ".join(value) if isinstance(value, dict) else value


def _show(row: dict[str, Any]) -> None:
    for key, value in row.items():
        if key not in ("options", "presets", "not served"):
            print(f"{key}: {value:,}" if isinstance(value, int) else f"{key}: {value}")
    for line in _refused(row):
        print(line)
    options = [{"option": f"model.{name}", **facts} for name, facts in row["options"].items()]
    print()
    print(records(options) if options else "no options of its own")
    for name, values in row["presets"].items():
        print(f"\npreset {name}: " + (", ".join(f"{k}={v}" for k, v in values.items()) or "-"))


def _refused(row: dict[str, Any], of: str = "") -> list[str]:
    return [f"{of}preset {name}: {why}" for name, why in row.get("not served", {}).items()]


def _check(name: str, as_json: bool) -> None:
    import torch

    from ..fuse.conformance import CHECKS, examine, subjects

    torch.set_num_threads(1)  # the products are tiny
    found = list(subjects(name))
    with bars()(f"check {name}", len(found) * len(CHECKS), "checks") as advance:
        findings = []
        for subject in found:
            for check in CHECKS:
                findings.append(examine(subject, check))
                advance(1)
    if as_json:
        print_json([vars(finding) for finding in findings])
    else:
        several = len(found) > 1
        rows = [
            {
                **({"method": finding.subject} if several else {}),
                "check": finding.check,
                "result": finding.result.upper() if not finding.good else finding.result,
                "reason": finding.reason or finding.asks,
            }
            for finding in findings
        ]
        print(records(rows))
    bad = [finding for finding in findings if not finding.good]
    say(f"{len(findings) - len(bad)} of {len(findings)} checks hold")
    if bad:
        raise typer.Exit(4)


__all__ = ["models"]
