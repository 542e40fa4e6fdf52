"""Parameters and options: everything is moved, stored, and does something."""

from __future__ import annotations

import fnmatch
from typing import Any

import torch

from ..methods import find
from ..models.interface import FusionModel, Hyper
from ..synthetic import make_batch, noisy
from .subject import Subject, require, run, total


def gradients(subject: Subject) -> None:
    """All objectives together give every parameter a gradient."""
    for m in (2, 3):
        model = subject.model(subject.specs(m))
        batch = noisy(make_batch(30, model.specs), model, training=True)
        total(model, run(model, batch)).backward()  # type: ignore[no-untyped-call]
        for name, parameter in model.named_parameters():
            idle = any(fnmatch.fnmatch(name, pattern) for pattern in model.idle)
            if parameter.numel() and not idle:
                moved = parameter.grad is not None and bool((parameter.grad != 0).any())
                require(moved, f"the parameter {name} gets no gradient with {m} modalities")


def steps(subject: Subject) -> None:
    """A loss of one modality alone steps no other's encoder; every parameter is stepped."""
    model = subject.model()
    names = [name for name, _ in model.named_parameters()]
    stepped: set[str] = set()
    for objective in model.objectives(Hyper.of(model.config)):
        moved = {
            n for n in names if objective.parameters is None or n.startswith(objective.parameters)
        }
        stepped |= moved
        for m, spec in enumerate(model.specs):
            if objective.parameters is not None and set(objective.weights) == {f"task.{spec.name}"}:
                others = tuple(f"encoders.parts.{o}." for o in range(len(model.specs)) if o != m)
                wrong = sorted(n for n in moved if n.startswith(others))
                require(not wrong, f"the loss of {spec.name} alone steps {', '.join(wrong[:2])}")
    left = sorted(set(names) - stepped)
    require(not left, f"no objective steps {', '.join(left[:3])}")


def checkpoint(subject: Subject) -> None:
    """Parameters and buffers are all there is: a model filled with them predicts the same."""
    model, fresh = subject.model(), subject.fresh(seed=5)
    fresh.load_state_dict(model.state_dict())
    batch = noisy(make_batch(9, model.specs), model, training=False)
    same = torch.equal(run(model, batch).logits, run(fresh, batch).logits)
    require(same, "the state lies outside of parameters and buffers")


def unread(subject: Subject) -> None:
    """General options change the model, or are declared as not read."""
    if subject.options.keys() - {"model", "preset", "options"}:
        return  # general options were chosen already
    options = find(str(subject.options.get("model", "cm2"))).options
    others: dict[str, Any] = {"hidden": 14, "fusion_hidden": 14, "series_encoder": "transformer"}
    before = _layout(subject.fresh())
    for name, value in others.items():
        if name in options.unread:
            continue
        changed = _layout(subject.fresh(**{name: value})) != before
        require(changed, f"the option {name} does nothing: add it to `unread` of the Options")


def _layout(model: FusionModel) -> dict[str, object]:
    return {name: tuple(part.shape) for name, part in model.named_parameters()}
