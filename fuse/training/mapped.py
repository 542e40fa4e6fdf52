"""Epochs of several runs at once: every step is one mapped step of all of them.

The rules are those of `loop`: the same batches, numbers, clipping, optimiser and order of events
for each member. A member that fails is left out; a step is computed again for the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from ...errors import CM2Error, ConfigError
from ..models.interface import FusionBatch, FusionModel, FusionOutput, Hyper
from ..precision import precision
from ..random import order
from ..rows import PREDICT_ROWS, FusionData, Rows
from .course import Course, Figures, trained
from .stack import Stack
from .step import Meter, clip, moved, non_finite

Fail = Callable[[Course, CM2Error], None]
T = TypeVar("T")


class _Step(NamedTuple):
    loss: Tensor  # (E,)
    output: FusionOutput
    gradients: dict[str, Tensor]


class Mapped:
    """Courses of one shape, trained, surveyed and judged side by side.

    Args:
        courses: At least one.
        data: Their rows.
        fail: Told of each course that cannot go on, with the reason; it is one of `courses` no
            longer.
    """

    def __init__(self, courses: Sequence[Course], data: FusionData, fail: Fail) -> None:
        self.courses, self.data, self.fail = list(courses), data, fail
        self.stack = Stack([course.model for course in courses])
        self.rows, self.judged_on = data.rows("train"), data.rows("val")

    def keep(self, members: Sequence[int]) -> None:
        """Go on with some of the members alone; the others' tensors are let go."""
        self.courses = [self.courses[e] for e in members]
        if self.courses:
            self.stack = Stack([course.model for course in self.courses])

    def train_epoch(self) -> list[Figures]:
        """Train every member for its next epoch.

        Returns:
            Mean losses by member; `courses` is shorter by those that failed.
        """
        for course in self.courses:
            course.set_rate()
        meter = Meter()
        size = self._first.config.batch_size
        keys = self.data.keys[self.rows]
        orders = {
            self._lane(c): self.rows[order(c.config.seed, "order", keys, c.epoch)]
            for c in self.courses
        }
        steps = -(-len(self.rows) // size)
        for step in range(steps):
            taken = {lane: rows[step * size : (step + 1) * size] for lane, rows in orders.items()}
            self._step(taken, meter, f"step {step + 1} of {steps}")
            if not self.courses:
                return []
        means = meter.means()
        return [
            trained({name: values[e] for name, values in means.items()})
            for e in range(len(self.courses))
        ]

    def refresh(self) -> list[dict[str, float]]:
        """Renew every member's statistics after an epoch.

        Returns:
            Figures by member; `courses` is shorter by those that failed.
        """
        model = self._first.model
        if type(model).refresh is not FusionModel.refresh:
            return self._each(
                lambda e, course: course.model.refresh(course.epoch, self.data.batches(self.rows))
            )
        if not model.surveyed:
            return [{} for _ in self.courses]
        with torch.no_grad(), precision(self._first.config, self.data.device):
            seen = [
                (self.stack.map(_survey, batch, in_dims=(None,)), batch.available)
                for batch in self.data.batches(self.rows)
            ]
        survey = torch.cat([part for part, _ in seen], 1)  # (E, N, ...)
        available = torch.cat([part for _, part in seen])
        return self._each(lambda e, course: course.model.renew(course.epoch, survey[e], available))

    @torch.no_grad()
    def judge(self) -> list[Figures]:
        """Judge every member on the validation stays.

        Returns:
            Figures by member; `courses` is shorter by those that failed.
        """
        hyper = self._hyper(lambda course: Hyper.of(course.config))
        noise = self._first.model.noise(training=False)
        seeds = [course.config.seed for course in self.courses]
        outputs: list[list[FusionOutput]] = [[] for _ in self.courses]
        for start in range(0, len(self.judged_on), PREDICT_ROWS):
            rows = self.judged_on[start : start + PREDICT_ROWS]
            if len(set(seeds)) == 1 or not noise:
                batch, axis = self.data.batch(rows, noise, seeds[0]), None
            else:
                every = np.broadcast_to(rows, (len(seeds), len(rows)))
                batch, axis = self.data.side_by_side(every, noise, seeds, [0] * len(seeds)), 0
            with precision(self._first.config, self.data.device):
                output = self.stack.map(_forward, batch, hyper, in_dims=(axis, 0))
            for e, own in enumerate(outputs):
                own.append(tree_map(lambda t, e=e: t[e], output._replace(extras={})))
        return self._each(lambda e, course: course.judge(outputs[e], self.data))

    def _each(self, ask: Callable[[int, Course], T]) -> list[T]:
        """Ask every member by itself; one that cannot answer is reported and left out.

        Args:
            ask: Takes a member's number and its course.

        Returns:
            Answers by member, in the order of `courses` as it is then.
        """
        answers, left = list[T](), list[int]()
        for e, course in enumerate(self.courses):
            try:
                with course.watched():
                    answers.append(ask(e, course))
            except Exception as error:
                self.fail(course, reason(course, error))
            else:
                left.append(e)
        if len(left) < len(self.courses):
            self.keep(left)
        return answers

    @property
    def _first(self) -> Course:
        return self.courses[0]

    def _lane(self, course: Course) -> tuple[int, int]:
        """Members with one seed at one epoch see the same rows and the same random numbers."""
        return course.config.seed, course.epoch

    def _hyper(self, of: Callable[[Course], Hyper]) -> Hyper:
        parts = zip(*(of(course) for course in self.courses), strict=True)
        return Hyper(*(torch.stack(part).to(self.data.device) for part in parts))

    def _batch(self, taken: dict[tuple[int, int], Rows]) -> tuple[FusionBatch, int | None]:
        """The rows of a step, and the axis of the members: None if all share one lane."""
        lanes = [self._lane(course) for course in self.courses]
        noise = self._first.model.noise(training=True)
        if len(set(lanes)) == 1:
            seed, epoch = lanes[0]
            return self.data.batch(taken[lanes[0]], noise, seed, epoch), None
        rows = np.stack([taken[lane] for lane in lanes])
        seeds, epochs = zip(*lanes, strict=True)
        return self.data.side_by_side(rows, noise, seeds, epochs), 0

    def _step(self, taken: dict[tuple[int, int], Rows], meter: Meter, where: str) -> None:
        batch, axis = self._batch(taken)
        total = torch.zeros(len(self.courses), dtype=torch.float64, device=self.data.device)
        hyper = self._hyper(lambda course: Hyper.of(course.config, course.epoch))
        for number in range(len(self._first.model.objectives(hyper))):
            while True:
                step = self._gradients(number, batch, hyper, axis)
                largest = np.array([course.config.clip for course in self.courses])
                norms = clip(step.gradients, self._first.model.learns_alone, largest)
                finite = np.isfinite(step.loss.cpu().numpy() + norms)
                if finite.all():
                    break
                self._drop(np.flatnonzero(~finite).tolist(), step, batch, axis, where)
                good = np.flatnonzero(finite).tolist()
                meter.keep(good)
                self.keep(good)
                if not good:
                    return
                batch, axis = self._batch(taken)
                total = total[good]
                hyper = self._hyper(lambda course: Hyper.of(course.config, course.epoch))
            self._move(step.gradients)
            if type(self._first.model).track is not FusionModel.track:
                with torch.no_grad():
                    self.stack.map(_track, batch, step.output, in_dims=(axis, 0))
            total += step.loss
            meter.add(step.output.losses)
        meter.add_loss(total, batch.y.shape[-2])

    def _gradients(self, number: int, batch: FusionBatch, hyper: Hyper, axis: int | None) -> _Step:
        def losses(model: FusionModel, batch: FusionBatch, hyper: Hyper) -> Any:
            output: FusionOutput = model(batch, hyper)
            return model.objectives(hyper)[number].total(output.losses), output

        with precision(self._first.config, self.data.device):
            loss, output = self.stack.map(losses, batch, hyper, in_dims=(axis, 0))
        objective = self._first.model.objectives(hyper)[number]
        names = moved(objective, list(self.stack.parameters))
        # Members share no number, so the gradient of the sum is each member's own; a parameter
        # that no loss reaches has none, as in a run alone.
        found = torch.autograd.grad(
            loss.sum(), [self.stack.parameters[name] for name in names], allow_unused=True
        )
        gradients = {
            name: gradient.contiguous()
            for name, gradient in zip(names, found, strict=True)
            if gradient is not None
        }
        return _Step(loss.detach(), tree_map(Tensor.detach, output), gradients)

    def _move(self, gradients: dict[str, Tensor]) -> None:
        """Let every member's own optimiser take its step."""
        self.stack.set_gradients(gradients)
        for course in self.courses:
            course.state.optimizer.step()

    def _drop(
        self, bad: list[int], step: _Step, batch: FusionBatch, axis: int | None, where: str
    ) -> None:
        for e in bad:
            course = self.courses[e]
            own = batch if axis is None else tree_map(lambda t, e=e: t[e], batch)
            output = tree_map(lambda t, e=e: t[e], step.output)
            gradients = self.stack.of_model(e, step.gradients)
            at = f"epoch {course.epoch}, {where}"
            self.fail(course, ConfigError(non_finite(course.model, own, output, gradients, at)))


def reason(course: Course, error: Exception) -> CM2Error:
    """Why a member cannot go on; of an unforeseen error the kind, for its text may hold data."""
    if isinstance(error, CM2Error):
        return error
    return ConfigError(
        f"{type(error).__name__} after {course.epoch - 1} whole epochs of a member of an "
        "ensemble. Give its `cm2 fuse` command by itself to see where."
    )


def _survey(model: FusionModel, batch: FusionBatch) -> Tensor:
    return model.survey(batch)


def _forward(model: FusionModel, batch: FusionBatch, hyper: Hyper) -> FusionOutput:
    output: FusionOutput = model(batch, hyper)
    return output


def _track(model: FusionModel, batch: FusionBatch, output: FusionOutput) -> Tensor:
    model.track(batch, output)
    return output.z  # a mapped function returns tensors


__all__ = ["Mapped", "reason"]
