"""What is checked: a method with some of its options, on synthetic stays, after the warm-up."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, get_args

import torch
from torch import Tensor

from ..config import FuseConfig
from ..inference import build
from ..methods import canonical, find, short
from ..models import model_class
from ..models.interface import FusionBatch, FusionModel, FusionOutput, Hyper, ModalitySpec
from ..presets import presets
from ..synthetic import SPECS, make_batch

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

    def fresh(
        self, specs: tuple[ModalitySpec, ...] = (), targets: int = 1, **more: Any
    ) -> FusionModel:
        """A model that has seen nothing, of all modalities unless some are named."""
        return build(specs or self.specs(), self.config(**more), targets)

    def model(
        self, specs: tuple[ModalitySpec, ...] = (), targets: int = 1, **more: Any
    ) -> FusionModel:
        """A model as it is after warm-up: statistics have started."""
        model = self.fresh(specs, targets, **more)
        batch = make_batch(60, model.specs, seed=7, targets=targets)
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


def close(found: Tensor, expected: Tensor, text: str, tight: bool = False) -> None:
    """Raise Violation unless two tensors are equal to rounding."""
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
