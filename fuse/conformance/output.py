"""What a method says about a batch: which stays move it, and what must not."""

from __future__ import annotations

import dataclasses

import torch

from ..models.interface import FusionBatch, RowLoss
from ..synthetic import make_batch, noisy, take, with_x
from .subject import Subject, close, require, run, total


def shapes(subject: Subject) -> None:
    """Any number of modalities, in any order, and of stays gives one finite loss per row."""
    for specs in (*map(subject.specs, (1, 2, 3)), subject.specs()[::-1]):
        model = subject.model(specs)
        M = len(specs)
        for n in (1, 5):
            output = run(model, noisy(make_batch(n, model.specs), model, training=True))
            where = f"with {M} modalities and {n} stays"
            require(
                output.logits.shape == (n, 1),
                f"logits {where}: expected {[n, 1]}, found {list(output.logits.shape)}",
            )
            require(
                output.z.shape[:2] == (n, M),
                f"z {where}: expected [{n}, {M}, D], found {list(output.z.shape)}",
            )
            require("task" in output.losses, f"there is no loss `task` {where}")
            for name, loss in output.losses.items():
                require(isinstance(loss, RowLoss), f"the loss {name} is no RowLoss")
                fits = loss.value.shape == loss.rows.shape == (n,)
                require(fits, f"the loss {name} {where} is not one number per row")
                require(loss.value.isfinite().all(), f"the loss {name} {where} is not finite")


def sensitivity(subject: Subject) -> None:
    """Changing a modality changes the predictions of the stays that have it, and no other."""
    model = subject.model()
    batch = noisy(make_batch(12, model.specs), model, training=False)
    before = run(model, batch).logits
    for m, spec in enumerate(model.specs):
        after = run(model, with_x(batch, spec.name, lambda x: x * 1.5 + 0.3)).logits
        changed = (after != before).any(1)
        has = batch.available[:, m]
        require(not (changed & ~has).any(), f"{spec.name} changes a stay that does not have it")
        if model.uses_all_modalities:
            require(changed[has].all(), f"{spec.name} does not change a stay that has it")
        else:
            require(not changed.all(), f"{spec.name} changes every stay: declare that it is read")


def absent_rows(subject: Subject) -> None:
    """Whatever the rows of an absent modality hold changes nothing."""
    model = subject.model()
    batch = noisy(make_batch(12, model.specs), model, training=True)
    spoiled = batch
    for m, spec in enumerate(model.specs):
        absent = ~batch.available[:, m].reshape(-1, 1, 1)
        held = torch.where(absent, torch.nan, batch.x[spec.name])
        spoiled = with_x(spoiled, spec.name, lambda _, held=held: held)  # type: ignore[misc]
    clean, garbage = run(model, batch), run(model, spoiled)
    require(torch.equal(clean.logits, garbage.logits), "garbage in absent rows moves a prediction")
    require((clean.z[~batch.available] == 0).all(), "an embedding of an absent modality is not 0")
    for name, loss in clean.losses.items():
        same = torch.equal(loss.value, garbage.losses[name].value)
        require(same, f"garbage in absent rows moves the loss {name}")


def padding(subject: Subject) -> None:
    """Steps and parts that are not real change nothing, whatever they hold and however many."""
    model = subject.model()
    batch = noisy(make_batch(12, model.specs), model, training=True)
    plain, padded = run(model, _padded(batch, 0)), run(model, _padded(batch, 4))
    close(padded.logits, plain.logits, "steps or parts that are not real move a prediction")
    for name, loss in plain.losses.items():
        text = f"steps or parts that are not real move the loss {name}"
        close(padded.losses[name].value, loss.value, text)


def _padded(batch: FusionBatch, more: int) -> FusionBatch:
    """Put some that are not real behind those that are, with the times of all said."""
    x, mask, time = {}, {}, {}
    for name, values in batch.x.items():
        n, length, width = values.shape
        x[name] = torch.cat([values, torch.full((n, more, width), 100.0)], 1)
        mask[name] = (torch.arange(length + more) < length).expand(n, -1)
        time[name] = ((1 + torch.arange(length + more)) / length).clamp(max=1).expand(n, -1)
    return dataclasses.replace(batch, x=x, mask=mask, time=time)


def targets(subject: Subject) -> None:
    """Several targets are predicted, an unknown one is left out, and classes are weighed."""
    model = subject.model(targets=2)
    batch = noisy(make_batch(12, model.specs, targets=2), model, training=True)
    output = run(model, batch)
    found = list(output.logits.shape)
    require(found == [12, 2], f"logits of 2 targets: expected [12, 2], found {found}")
    model.class_weights[1] *= 3
    changed = run(model, batch).losses["task"].value != output.losses["task"].value
    require(torch.equal(changed, (batch.y == 1).any(1)), "`class_weights` do not weigh the classes")
    partly = torch.where(torch.tensor([True, False]), batch.y, torch.nan)
    loss = run(model, dataclasses.replace(batch, y=partly)).losses["task"]
    require(loss.rows.all(), "a stay with one of two targets known has no loss")
    require(loss.value.isfinite().all(), "a stay with one of two targets known has no finite loss")


def draws(subject: Subject) -> None:
    """A new draw changes the stays that lack a modality, and no other."""
    model = subject.model()
    if not model.noise(training=False):
        return
    batch = make_batch(30, model.specs)
    complete = batch.available.all(1)
    first = run(model, noisy(batch, model, training=False, seed=1)).logits
    second = run(model, noisy(batch, model, training=False, seed=2)).logits
    changed = (first != second).any(1)
    if model.draws_for_all:
        require(changed.any(), "random numbers are asked for and change nothing")
    else:
        require(not changed[complete].any(), "a draw changes a stay that lacks nothing")
        require(changed[~complete].all(), "a draw does not change a stay that lacks a modality")


def alone(subject: Subject) -> None:
    """A stay's prediction depends neither on the others of its batch nor on their order."""
    model = subject.model()
    batch = noisy(make_batch(9, model.specs), model, training=True)
    whole, rows = run(model, batch), torch.tensor([4, 0, 8])
    part = run(model, take(batch, rows))
    if not model.batch_dependent:
        close(part.logits, whole.logits[rows], "other stays of a batch move a prediction")
        for name, loss in part.losses.items():
            if name not in model.compares_stays:
                expected = whole.losses[name].value[rows]
                close(loss.value, expected, f"other stays of a batch move the loss {name}")


def large_values(subject: Subject) -> None:
    """Values of a thousand standard deviations give finite numbers and gradients."""
    model = subject.model()
    batch = noisy(make_batch(12, model.specs), model, training=True)
    for spec in model.specs:
        batch = with_x(batch, spec.name, lambda x: x * 1e3)
    output = run(model, batch)
    loss = total(model, output)
    loss.backward()  # type: ignore[no-untyped-call]
    require(output.logits.isfinite().all(), "a prediction is not finite")
    require(loss.isfinite(), "the loss is not finite")
    for name, parameter in model.named_parameters():
        finite = parameter.grad is None or parameter.grad.isfinite().all()
        require(finite, f"the gradient of {name} is not finite")


def no_pairs(subject: Subject) -> None:
    """A batch whose stays have one modality only, with unknown targets, is finite."""
    model = subject.model()
    for m in range(len(model.specs)):
        batch = make_batch(6, model.specs)
        available = torch.zeros_like(batch.available)
        available[:, m] = True
        unknown = torch.full((6, 1), torch.nan)
        batch = dataclasses.replace(batch, available=available, y=unknown)
        output = run(model, noisy(batch, model, training=True))
        only = model.specs[m].name
        require(output.logits.isfinite().all(), f"a prediction from {only} alone is not finite")
        require(output.losses["task"].mean() == 0, "an unknown target has a loss")
        require(total(model, output).isfinite(), f"the loss with {only} alone is not finite")
