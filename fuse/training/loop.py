"""The training loop of one run: whole epochs, each committed by one file, whatever the method."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

from ...errors import ConfigError
from ...extract.encoders.weights import Weights
from ...progress import Progress, Stop
from ..config import FuseConfig
from ..inference import forward
from ..methods import short
from ..models.interface import FusionOutput, Hyper
from ..precision import precision
from ..random import order
from ..rows import FusionData
from .course import Course, Figures, trained
from .state import Journal, TrainerState
from .step import Meter, clip, moved, non_finite
from .whole import fit_whole


def train(
    config: FuseConfig,
    data: FusionData,
    journal: Journal,
    progress: Progress,
    stop: Stop,
    starts: Mapping[str, Weights] | None = None,
    until: int | None = None,
    every: int = 0,
    compiled: bool = False,
) -> TrainerState:
    """Train until the last epoch or until patience is exhausted, from the last whole epoch on.

    Args:
        config: What to train.
        data: The rows.
        journal: Where every whole epoch is kept.
        progress: Counts epochs.
        stop: Asked after every epoch.
        starts: Weights in files from which the encoders of a new run start, by modality.
        until: Pause after so many epochs; None goes on to the end.
        every: Steps after which an epoch that is under way is kept too; 0 for never.
        compiled: Compile the steps, in mode stream the encoders.

    Raises:
        ConfigError: A loss, a gradient or a statistic is not finite, or nothing can be compiled.
        Interrupted: A stop was requested; the same call continues.
    """
    course = Course.open(config, data, journal, starts)
    if compiled:  # imports the compiler, which takes seconds
        if config.mode == "stream":
            from ..stream.compiled import compile_trunks

            compile_trunks(course.model, data.device)
        else:
            from .compiled import compile_forward

            course.compiled = compile_forward(course.model, data.device)
    rows, judged_on = data.rows("train"), data.rows("val")
    unit = "solutions" if config.options.candidates() else "epochs"
    with progress(f"fuse {short(config.model)}", config.passes, unit) as advance:
        advance(course.epoch - 1)
        last = config.passes if until is None else until
        if config.options.candidates():
            fit_whole(course, data, last, advance, stop)
        while not course.ended and course.epoch <= last:
            with course.watched():
                judged: Figures = course.state.partial.get("judged", {})
                if config.published.validate_first and not judged:
                    judged = course.judge(forward(course.model, data, judged_on), data)
                # Of an epoch that was killed after its last step no step is left, only its losses.
                meter = Meter.of(course.state.partial.get("losses", {}), data.device)
                for step, meter in _steps(course, data):
                    if every and step % every == 0:
                        course.pause(step, meter, judged)
                        stop.check(
                            f"step {step} of epoch {course.epoch} of {journal.name} is stored"
                        )
                losses = trained(meter.means())
                figures = course.model.refresh(course.epoch, data.batches(rows))
                judged = judged or course.judge(forward(course.model, data, judged_on), data)
            course.commit(losses, judged, figures)
            advance(1)
            stop.check(f"epoch {course.epoch - 1} of {journal.name} is stored")
    return course.state


@contextmanager
def reproducible(deterministic: bool) -> Iterator[None]:
    """Use one thread, so that sums are added up in one order; restore what was set before.

    Args:
        deterministic: Also refuse operations that have no deterministic algorithm.
    """
    threads, before = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    torch.set_num_threads(1)
    # Not use_deterministic_algorithms, which imports the compiler: seconds for every process.
    torch.set_deterministic_debug_mode("error" if deterministic else before)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_deterministic_debug_mode(before)


def train_epoch(course: Course, data: FusionData) -> Figures:
    """Train the next epoch, and return its mean losses.

    Raises:
        ConfigError: A loss or gradient is not finite.
    """
    ((_, meter),) = deque(_steps(course, data), maxlen=1)
    return trained(meter.means())


def _steps(course: Course, data: FusionData) -> Iterator[tuple[int, Meter]]:
    """Train one epoch from its first step that is not done.

    Yields:
        After every step, how many are done, and their losses.
    """
    model, optimizer, config = course.model, course.state.optimizer, course.config
    epoch = course.epoch
    hyper = Hyper.of(config, epoch)
    course.set_rate()
    named = dict(model.named_parameters())
    rows = data.rows("train")
    rows = rows[order(config.seed, "order", data.keys[rows], epoch)]
    done = int(course.state.partial.get("steps", 0))
    meter = Meter.of(course.state.partial.get("losses", {}), data.device)
    noise = model.noise(training=True)
    steps = -(-len(rows) // config.batch_size)
    left = rows[done * config.batch_size :]
    batches = data.batches(left, config.batch_size, noise, config.seed, epoch)
    for step, batch in enumerate(batches, done + 1):
        total = torch.zeros((), dtype=torch.float64, device=data.device)
        whole = len(batch.y) == config.batch_size
        network = course.compiled if course.compiled and whole else model
        for objective in model.objectives(hyper):
            optimizer.zero_grad(set_to_none=True)
            with precision(config, data.device):
                output: FusionOutput = network(batch, hyper)
            loss = objective.total(output.losses)
            loss.backward()  # type: ignore[no-untyped-call]
            model.combine_gradients()
            kept = set(moved(objective, list(named)))
            for name in named.keys() - kept:
                named[name].grad = None
            gradients = {name: p.grad for name, p in named.items() if p.grad is not None}
            norm = clip(gradients, model.learns_alone, config.clip)
            if not math.isfinite(float(loss.detach()) + norm):
                where = f"epoch {epoch}, step {step} of {steps}"
                raise ConfigError(non_finite(model, batch, output, gradients, where))
            optimizer.step()
            model.track(batch, output)
            total += loss.detach()
            meter.add(output.losses)
        meter.add_loss(total, len(batch.y))
        yield step, meter
