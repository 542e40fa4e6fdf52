"""What every method has to do, whatever it is: the checks behind `cm2 models check`.

Each check would have caught a defect of a published implementation. They run on synthetic stays,
in seconds, on a model as it is after the warm-up.
"""

from __future__ import annotations

import dataclasses
import traceback
from collections.abc import Callable
from pathlib import Path

from .ensemble import vmaps
from .learning import interaction, overfits
from .output import (
    absent_rows,
    alone,
    draws,
    large_values,
    no_pairs,
    padding,
    sensitivity,
    shapes,
    targets,
)
from .parameters import checkpoint, gradients, steps, unread
from .subject import Subject, Violation, run, subjects


@dataclasses.dataclass(frozen=True)
class Finding:
    """Result of one check of one subject.

    Attributes:
        subject: Name of the method with its options.
        check: Name of the check.
        asks: What it asks for.
        result: `pass`, `fail`, `known` (declared, and so) or `fixed` (declared, and not so).
        reason: Why it failed.
    """

    subject: str
    check: str
    asks: str
    result: str
    reason: str = ""

    @property
    def good(self) -> bool:
        """Whether what is declared is so."""
        return self.result in ("pass", "known")


def examine(subject: Subject, name: str) -> Finding:
    """Run one check; an error of the method's own code is a failure with its place."""
    check = CHECKS[name]
    asks = (check.__doc__ or "").splitlines()[0].removesuffix(".")
    reason = ""
    try:
        check(subject)
    except Violation as violation:
        reason = str(violation)
    except Exception as error:  # whatever the user's file raises
        frame = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"{type(error).__name__}: {error} ({Path(frame.filename).name}:{frame.lineno})"
    declared = name in subject.violates
    result = {(False, False): "pass", (True, False): "fail", (True, True): "known"}.get(
        (bool(reason), declared), "fixed"
    )
    return Finding(subject.name, name, asks, result, reason)


CHECKS: dict[str, Callable[[Subject], None]] = {
    check.__name__: check
    for check in (
        shapes,
        sensitivity,
        absent_rows,
        padding,
        targets,
        draws,
        alone,
        gradients,
        steps,
        large_values,
        no_pairs,
        checkpoint,
        unread,
        overfits,
        interaction,
        vmaps,
    )
}
"""Every check by name, as `Options.violates` names them."""


__all__ = ["CHECKS", "Finding", "Subject", "Violation", "examine", "run", "subjects"]
