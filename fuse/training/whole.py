"""Methods that are fitted as a whole: all solutions at once, judged one after the other."""

from __future__ import annotations

from collections.abc import Callable

from ...progress import Stop
from ..inference import forward
from ..rows import FusionData
from .course import Course


def fit_whole(
    course: Course, data: FusionData, last: int, advance: Callable[[int], None], stop: Stop
) -> None:
    """Fit, and judge every solution on the validation stays as an epoch is judged.

    Nothing is kept before all are judged: a run that was stopped is fitted anew, and the same rows
    give the same solutions, since one thread adds sums up in one order.

    Args:
        course: The run.
        data: The rows.
        last: Number of the last solution to judge.
        advance: Counts solutions.
        stop: Asked before the fit and at the end.
    """
    if course.ended or course.epoch > last:
        return
    model, rows = course.model, data.rows("val")
    stop.check(f"nothing of {course.journal.name} is stored: it is fitted as a whole")
    model.fit(data.batches(data.rows("train")))
    while not course.ended and course.epoch <= last:
        figures = model.choose(course.epoch)
        course.note(course.judge(forward(model, data, rows), data), figures)
        advance(1)
    course.journal.commit(course.state)
    stop.check(f"the fit of {course.journal.name} is stored")


__all__ = ["fit_whole"]
