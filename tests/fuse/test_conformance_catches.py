"""Every check fails for a method that does what the check is about."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from cm2.fuse.conformance import CHECKS, Subject, Violation
from cm2.fuse.methods import METHODS
from cm2.fuse.methods.base import Method, Options
from cm2.fuse.models.concat import Concat
from cm2.fuse.models.interface import FusionBatch, FusionModel, FusionOutput, Hyper, Objective
from cm2.fuse.models.task import binary


class Broken(Concat):
    """Concatenation with one thing wrong."""

    def forward(self, batch: FusionBatch, hyper: Hyper) -> FusionOutput:
        return self.wrong(super().forward(batch, hyper), batch)

    def wrong(self, output: FusionOutput, batch: FusionBatch) -> FusionOutput:
        return output


class Shapes(Broken):
    def wrong(self, output: FusionOutput, batch: FusionBatch) -> FusionOutput:
        return output._replace(logits=output.logits[:, 0])


class Blind(Broken):
    def forward(self, batch: FusionBatch, hyper: Hyper) -> FusionOutput:
        available = batch.available & (torch.arange(batch.available.shape[1]) < 2)
        return super().forward(dataclasses.replace(batch, available=available), hyper)


class Leaky(Broken):
    def wrong(self, output: FusionOutput, batch: FusionBatch) -> FusionOutput:
        return output._replace(
            logits=output.logits + batch.x["ehr"].nan_to_num().mean((1, 2))[:, None]
        )


class Unmasked(Broken):
    def wrong(self, output: FusionOutput, batch: FusionBatch) -> FusionOutput:
        return output._replace(logits=output.logits + batch.x["report"].mean((1, 2))[:, None])


class Unweighed(Broken):
    def wrong(self, output: FusionOutput, batch: FusionBatch) -> FusionOutput:
        even = torch.ones_like(self.class_weights)
        return output._replace(losses={"task": binary(output.logits, batch.y, even)})


class Restless(Broken):
    def noise(self, training: bool) -> dict[str, tuple[int, ...]]:
        return {**super().noise(training), "draw": (1,)}

    def wrong(self, output: FusionOutput, batch: FusionBatch) -> FusionOutput:
        return output._replace(logits=output.logits + batch.noise.get("draw", torch.zeros(1)))


class Together(Broken):
    def wrong(self, output: FusionOutput, batch: FusionBatch) -> FusionOutput:
        return output._replace(logits=output.logits - output.logits.mean())


class Idle(Broken):
    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.spare = torch.nn.Linear(2, 2)


class Crossed(Broken):
    def wrong(self, output: FusionOutput, batch: FusionBatch) -> FusionOutput:
        return output._replace(losses={**output.losses, "task.ehr": output.losses["task"]})

    def objectives(self, hyper: Hyper) -> tuple[Objective, ...]:
        first = Objective({"task.ehr": hyper.task}, ("encoders.parts.1.",))
        return (first, *super().objectives(hyper))


class Explosive(Broken):
    def wrong(self, output: FusionOutput, batch: FusionBatch) -> FusionOutput:
        return output._replace(logits=(30 * output.z.sum((1, 2))).exp().unsqueeze(1))


class Divided(Broken):
    def wrong(self, output: FusionOutput, batch: FusionBatch) -> FusionOutput:
        return output._replace(logits=output.logits / batch.available[:, :1])


class Forgetful(Broken):
    def start(self, batches: Any) -> None:
        super().start(batches)
        self.memory = 1.0

    def wrong(self, output: FusionOutput, batch: FusionBatch) -> FusionOutput:
        return output._replace(logits=output.logits + getattr(self, "memory", 0.0))


class Fixed(Broken):
    def __init__(self, specs: Any, config: Any, targets: int = 1) -> None:
        super().__init__(specs, config.model_copy(update={"fusion_hidden": 6}), targets)


class Constant(Broken):
    def wrong(self, output: FusionOutput, batch: FusionBatch) -> FusionOutput:
        return output._replace(losses={"task": _zero(output.losses["task"])})


class Flat(Broken):
    def forward(self, batch: FusionBatch, hyper: Hyper) -> FusionOutput:
        self.layer.weight.data.zero_()
        return super().forward(batch, hyper)


class Branching(Broken):
    def wrong(self, output: FusionOutput, batch: FusionBatch) -> FusionOutput:
        return output if output.logits.sum() > 1e9 else output._replace(logits=output.logits + 0)


def _zero(loss: Any) -> Any:
    value: Tensor = loss.value * 0
    return loss._replace(value=value)


CASES: dict[str, type[FusionModel]] = {
    "shapes": Shapes,
    "sensitivity": Blind,
    "absent_rows": Leaky,
    "padding": Unmasked,
    "targets": Unweighed,
    "draws": Restless,
    "alone": Together,
    "gradients": Idle,
    "steps": Crossed,
    "large_values": Explosive,
    "no_pairs": Divided,
    "checkpoint": Forgetful,
    "unread": Fixed,
    "overfits": Constant,
    "interaction": Flat,
    "vmaps": Branching,
}


@pytest.fixture
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    METHODS["broken"] = Method("", Options, CASES[request.param])
    yield Subject("broken", {"model": "broken"})
    del METHODS["broken"]


@pytest.mark.parametrize(
    ("subject", "name"), [(n, n) for n in CASES], indirect=["subject"], ids=CASES
)
def test_a_check_finds_what_it_is_for(subject: Subject, name: str) -> None:
    with pytest.raises(Violation):
        CHECKS[name](subject)


def test_every_check_has_a_method_that_fails_it() -> None:
    assert CASES.keys() == CHECKS.keys()
