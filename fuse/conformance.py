"""What every method has to do, whatever it is: the checks behind `cm2 models check`.

Each check would have caught a defect of a published implementation. They run on synthetic stays,
in seconds, on a model as it is after the warm-up.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap

from .config import FuseConfig
from .inference import build
from .methods import canonical, find, short
from .models import model_class
from .models.interface import FusionBatch, FusionModel, FusionOutput, Hyper, ModalitySpec, RowLoss
from .presets import presets
from .synthetic import SPECS, make_batch, noisy, take, with_x

SMALL = {"hidden": 10, "fusion_hidden": 12, "copula_dim": 4, "K": 2, "draws": 2}
"""Options that keep a check cheap; those that the method does not read are left out."""


class Violation(Exception):
    """A method does not do what every method has to do."""


@dataclasses.dataclass(frozen=True)
class Subject:
    """A method with some of its options.

    Attributes:
        name: For people.
        options: Options of a run; `model` names the method.
        violates: Names of the checks that it is known to fail, with the reason.
    """

    name: str
    options: Mapping[str, Any]
    violates: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def kind(self) -> type[FusionModel]:
        """Class of the method."""
        return model_class(str(self.options.get("model", "cm2")))

    def specs(self, m: int = 3) -> tuple[ModalitySpec, ...]:
        """The first m synthetic modalities, or as many of them as the method takes."""
        return SPECS[: min(m, self.kind.most_modalities or m)]

    def config(self, **more: Any) -> FuseConfig:
        """The configuration, small."""
        model = str(self.options.get("model", "cm2"))
        stated = presets(model)[str(self.options.get("preset", "corrected"))]
        widths = ("hidden", "fusion_hidden")
        read = {k for k in widths if k not in find(model).options.unread}
        if model == "cm2":
            read |= SMALL.keys() - stated.keys()
        small: dict[str, Any] = {name: value for name, value in SMALL.items() if name in read}
        given = {**self.options, **more}
        small["options"] = {**find(model).options.small, **given.pop("options", {})}
        return FuseConfig.of({**small, **given})

    def fresh(self, m: int = 3, **more: Any) -> FusionModel:
        """A model that has seen nothing."""
        return build(self.specs(m), self.config(**more))

    def model(self, m: int = 3, **more: Any) -> FusionModel:
        """A model as it is after warm-up: statistics have started."""
        model = self.fresh(m, **more)
        batch = make_batch(60, self.specs(m), seed=7)
        model.start([batch])
        model.refresh(1, [batch])
        fit_whole(model, batch)
        return model


def fit_whole(model: FusionModel, batch: FusionBatch) -> bool:
    """Fit a method that is fitted as a whole and take its last solution; whether it is one."""
    if solutions := model.config.options.candidates():
        model.fit([batch])
        model.choose(solutions)
    return solutions > 0


def subjects(name: str) -> Iterator[Subject]:
    """Every preset of a method, and every choice of every option of its own.

    Args:
        name: Name of the method.
    """
    name = canonical(name)
    kind = find(name).options
    label = short(name)
    for preset in find(name).presets:
        known = kind.violates.get(preset, {})
        title = label if preset == "corrected" else f"{label}-{preset}"
        yield Subject(title, {"model": name, "preset": preset}, known)
    for option, field in kind.model_fields.items():
        choices = (False, True) if field.annotation is bool else get_args(field.annotation)
        for value in choices:
            if value == field.default or isinstance(value, type):
                continue
            text = f"{option}={str(value).lower() if isinstance(value, bool) else value}"
            options = {"model": name, "options": {option: value}}
            yield Subject(f"{label}-{text}", options, kind.violates.get(text, {}))


def require(holds: bool | Tensor, text: str) -> None:
    """Raise Violation unless something holds."""
    if not bool(holds):
        raise Violation(text)


def _close(found: Tensor, expected: Tensor, text: str, tight: bool = False) -> None:
    tolerance = (1e-6, 1e-9) if tight else (1e-4, 1e-5)
    require(torch.allclose(found, expected, *tolerance, equal_nan=True), text)


def run(model: FusionModel, batch: FusionBatch) -> FusionOutput:
    """Predict and judge with the model's own configuration."""
    output: FusionOutput = model(batch, Hyper.of(model.config))
    return output


def total(model: FusionModel, output: FusionOutput) -> Tensor:
    """Sum of all objectives."""
    objectives = model.objectives(Hyper.of(model.config))
    return torch.stack([objective.total(output.losses) for objective in objectives]).sum()


def shapes(subject: Subject) -> None:
    """Any number of modalities and stays gives one finite loss per row."""
    for m in (1, 2, 3):
        model = subject.model(m)
        M = len(model.specs)
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
        _close(part.logits, whole.logits[rows], "other stays of a batch move a prediction")
        for name, loss in part.losses.items():
            if name not in model.compares_stays:
                expected = whole.losses[name].value[rows]
                _close(loss.value, expected, f"other stays of a batch move the loss {name}")


def gradients(subject: Subject) -> None:
    """All objectives together give every parameter a gradient."""
    for m in (2, 3):
        model = subject.model(m)
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


def overfits(subject: Subject) -> None:
    """Sixty-four stays, some with the wrong target, are learned by heart."""
    if not subject.kind.uses_all_modalities:
        return
    wide = {"hidden": 24, "fusion_hidden": 24}
    unread = find(str(subject.options.get("model", "cm2"))).options.unread
    model = subject.fresh(**{k: v for k, v in wide.items() if k not in unread})
    batch = make_batch(64, model.specs)
    flipped = torch.from_numpy(np.random.default_rng(1).random((64, 1)) < 0.3)
    batch = dataclasses.replace(batch, y=torch.where(flipped, 1 - batch.y, batch.y))
    model.start([batch])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, fused=True)
    model.refresh(1, [batch])
    fit_whole(model, batch)
    for step in range(401):
        if step % 20 == 0:
            with torch.no_grad():
                right = ((run(model, batch).logits > 0) == (batch.y > 0.5)).float().mean().item()
            if right > 0.97:
                return
        optimizer.zero_grad()
        output = run(model, batch)
        total(model, output).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        model.track(batch, output)
    raise Violation(f"only {100 * right:.0f} % of 64 stays are learned by heart")


def vmaps(subject: Subject) -> None:
    """Two members mapped over stacked parameters equal each by itself, or `vmappable` is False."""
    if not subject.kind.vmappable:
        return
    members = [subject.model(seed=seed).double() for seed in (0, 1)]
    base = members[0]
    batches = [
        _double(noisy(make_batch(6, base.specs, seed=e), members[e], True, seed=e)) for e in (0, 1)
    ]
    hypers = [
        Hyper(*torch.tensor([1e-3, p, c, 0.2, 1.5]).double()) for p, c in ((0.1, 1e-2), (0.4, 1e-1))
    ]

    def member_loss(
        params: dict[str, Tensor], buffers: dict[str, Tensor], batch: FusionBatch, hyper: Hyper
    ) -> Tensor:
        output = functional_call(base, (params, buffers), (batch, hyper))
        return base.objectives(hyper)[0].total(output.losses)

    params, buffers = stack_module_state(members)
    stacked = torch.utils._pytree.tree_map(lambda *parts: torch.stack(parts), *batches)
    hyper = Hyper(*(torch.stack(parts) for parts in zip(*hypers, strict=True)))
    try:
        gradient, losses = vmap(torch.func.grad_and_value(member_loss))(
            params, buffers, stacked, hyper
        )
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise Violation(f"it does not run under torch.func.vmap: {reason}") from error
    for e, model in enumerate(members):
        loss = model.objectives(hypers[e])[0].total(model(batches[e], hypers[e]).losses)
        loss.backward()  # type: ignore[no-untyped-call]
        _close(losses[e], loss.detach(), "the mapped loss differs from the member's own", True)
        for name, parameter in model.named_parameters():
            expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            text = f"the mapped gradient of {name} differs from the member's own"
            _close(gradient[name][e], expected, text, True)


def _double(batch: FusionBatch) -> FusionBatch:
    return dataclasses.replace(batch, x={k: v.double() for k, v in batch.x.items()})


def interaction(subject: Subject) -> None:
    """A label that needs two modalities at once is learned, if it is declared that they meet."""
    if subject.kind.most_modalities == 1:
        return
    specs = (
        ModalitySpec("ehr", "series", 3),
        ModalitySpec("cxr", "vector", 3, null=torch.zeros(1, 3)),
    )
    widths = {"hidden": 16, "fusion_hidden": 16, "dropout": 0.0}
    options = find(str(subject.options.get("model", "cm2"))).options
    config = subject.config(**{k: v for k, v in widths.items() if k not in options.unread})
    model = build(specs, config)
    train, test = _product(400, 1), _product(400, 2)
    model.start([train])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, fused=True)
    hyper = Hyper.of(config)
    whole = fit_whole(model, train)
    for step in range(151):
        if step % 25 == 0:
            with torch.no_grad():
                found = _auroc(model(test, hyper).logits[:, 0], test.y[:, 0])
            if found > 0.9 or whole:
                break
        for objective in model.objectives(hyper):
            optimizer.zero_grad()
            objective.total(model(train, hyper).losses).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    if model.models_interaction:
        require(found > 0.9, f"AUROC {found:.2f} where two modalities are needed at once")
    else:
        require(found < 0.65, f"AUROC {found:.2f} where both are needed: they do meet, declare it")


def _product(n: int, seed: int) -> FusionBatch:
    """A label that is the sign of a product: neither factor says anything alone."""
    random = np.random.default_rng(seed)
    a, b = random.choice([-1.0, 1.0], (2, n))
    x = {
        name: torch.from_numpy(
            np.repeat(sign[:, None, None], 3, 2) + 0.3 * random.normal(size=(n, steps, 3))
        ).float()
        for name, sign, steps in (("ehr", a, 4), ("cxr", b, 1))
    }
    mask = {name: torch.ones(values.shape[:2], dtype=torch.bool) for name, values in x.items()}
    y = torch.from_numpy((a * b > 0).astype(np.float32)).unsqueeze(1)
    return FusionBatch(x, mask, torch.ones(n, 2, dtype=torch.bool), torch.full((n,), 3), y)


def _auroc(score: Tensor, y: Tensor) -> float:
    positive, negative = score[y == 1], score[y == 0]
    return float((positive.unsqueeze(1) > negative).double().mean())


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


__all__ = ["CHECKS", "SMALL", "Finding", "Subject", "Violation", "examine", "subjects"]
