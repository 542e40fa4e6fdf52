"""One run from epoch to epoch: how it starts or continues, is judged, and is committed.

A single run and a member of an ensemble take the same course; they differ in who computes steps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...errors import ConfigError
from ...extract.encoders.weights import Weights
from ..config import FuseConfig
from ..evaluation.metrics import auroc, average_precision, macro
from ..inference import build, probabilities
from ..methods import short
from ..models.interface import FusionModel, FusionOutput
from ..rows import FusionData
from .history import best_epoch, ended, learning_rate
from .state import Journal, TrainerState
from .step import Meter, diverged

if TYPE_CHECKING:  # imports the compiler, which takes seconds
    from .compiled import Forward

Figures = dict[str, float | None]
_UNDECOMPOSED = (torch.linalg.LinAlgError, np.linalg.LinAlgError)  # type: ignore[attr-defined]


@dataclass
class Course:
    """A run between its first and its last epoch.

    Attributes:
        state: What the next epoch depends on.
        journal: Where every whole epoch is kept.
        compiled: What stands in for the model in steps of whole batches, if anything does.
    """

    state: TrainerState
    journal: Journal
    compiled: Forward | None = None

    @classmethod
    def open(
        cls,
        config: FuseConfig,
        data: FusionData,
        journal: Journal,
        starts: Mapping[str, Weights] | None = None,
    ) -> Course:
        """Continue after the last whole epoch, or start from the seed.

        Args:
            config: What to train.
            data: The rows.
            journal: Where every whole epoch is kept.
            starts: Weights in files from which the encoders of a new run start, by modality.

        Raises:
            ConfigError: The model cannot be made, or the stored state is another run's.
            IntegrityError: The stored state is not what was written.
        """
        model = build(data.specs, config, len(data.targets)).to(data.device)
        state = TrainerState(model, make_optimizer(model, config))
        if not journal.resume(state):
            require_fit(model, data, starts or {})
            rows = data.rows("train")
            seen = [rows]
            if config.published.validation_in_normaliser:
                seen.append(data.rows("val"))
            model.start(data.batches(np.concatenate(seen)))
            if config.class_weight == "balanced":
                model.weigh(data.labels(rows).to(data.device))
        return cls(state, journal)

    @property
    def config(self) -> FuseConfig:
        """The run's configuration."""
        return self.state.model.config

    @property
    def model(self) -> FusionModel:
        """The run's model."""
        return self.state.model

    @property
    def epoch(self) -> int:
        """The next epoch, from 1."""
        return len(self.state.history) + 1

    @property
    def ended(self) -> bool:
        """Whether there is no next epoch."""
        return ended(self.state.history, self.config)

    def set_rate(self) -> None:
        """Give every group of parameters its learning rate of the next epoch."""
        rate = learning_rate(self.state.history, self.config)
        for group in self.state.optimizer.param_groups:
            group["lr"] = rate * group["share"]

    def judge(self, outputs: Sequence[FusionOutput], data: FusionData) -> Figures:
        """Judge the model by its outputs on the validation stays; keep it if none was better.

        Raises:
            ConfigError: The validation loss is not finite, so that nothing can be chosen by it.
        """
        figures = _losses(outputs)
        if not math.isfinite(figures["val_loss"]):
            raise ConfigError(diverged(self.config, f"epoch {self.epoch}", "the validation loss"))
        y = data.labels(data.rows("val")).numpy()
        figures |= scores(y, probabilities(list(outputs)))
        row = {"epoch": self.epoch} | {name: _finite(value) for name, value in figures.items()}
        if best_epoch([*self.state.history, row], self.config.warmup) == self.epoch:
            self.state.keep_best()
        return figures

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Say what it means when a matrix of numbers that have diverged cannot be decomposed.

        Raises:
            ConfigError: It could not.
        """
        try:
            yield
        except _UNDECOMPOSED as error:
            found = "a matrix that cannot be decomposed"
            raise ConfigError(diverged(self.config, f"epoch {self.epoch}", found)) from error

    def pause(self, steps: int, meter: Meter, judged: Figures) -> None:
        """Keep an epoch that is under way.

        Args:
            steps: How many of its steps are done.
            meter: Their losses.
            judged: Its validation, if that came first.
        """
        self.state.partial = {
            "steps": steps,
            "losses": meter.content(),
            "judged": {name: _finite(value) for name, value in judged.items()},
        }
        self.journal.commit(self.state)

    def commit(self, *parts: Mapping[str, float | None]) -> None:
        """Keep the epoch that was trained just now, with all figures about it."""
        self.note(*parts)
        self.journal.commit(self.state)

    def note(self, *parts: Mapping[str, float | None]) -> None:
        """Add an epoch with all figures about it to the history."""
        row: dict[str, Any] = {
            "epoch": self.epoch,
            "lr": learning_rate(self.state.history, self.config),
        }
        for part in parts:
            row |= {name: _finite(value) for name, value in part.items()}
        self.state.history.append(row)
        self.state.partial = {}


def require_fit(model: FusionModel, data: FusionData, starts: Mapping[str, Weights]) -> None:
    """Start the encoders of a new model from weights, if it and they fit to the rows.

    Args:
        model: The model.
        data: The rows.
        starts: Weights by modality.

    Raises:
        ConfigError: The model cannot be trained on such rows, or weights have another shape.
    """
    if lacking := model.lacks(data.parts()):
        raise ConfigError(f"{short(model.config.model)} cannot be trained on this: {lacking}.")
    if starts:
        model.begin(starts)


def make_optimizer(model: FusionModel, config: FuseConfig) -> torch.optim.Optimizer:
    """Make the optimiser of a configuration; its learning rates are set before each epoch."""
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    groups = parameter_groups(model, config)
    return kind(groups, lr=config.lr, betas=(0.9, config.beta2), fused=True)


def parameter_groups(model: FusionModel, config: FuseConfig) -> list[dict[str, Any]]:
    """Parameters by their rate: `share` is a group's part of the rate that the schedule gives."""
    named = list(model.named_parameters())
    own = model.rates()
    groups: list[dict[str, Any]] = [
        {
            "params": [p for name, p in named if not name.startswith(tuple(own))],
            "share": 1.0,
            "weight_decay": config.weight_decay,
        }
    ]
    for prefix, rate in own.items():
        groups.append(
            {
                "params": [p for name, p in named if name.startswith(prefix)],
                "share": rate / config.lr,
                "weight_decay": 0.0 if prefix in model.dependence else config.weight_decay,
            }
        )
    return [group for group in groups if group["params"]]


def trained(means: Mapping[str, Any]) -> Figures:
    """Name the mean losses of an epoch of training."""
    return {f"train_{name}": float(value) for name, value in means.items()}


def _losses(outputs: Sequence[FusionOutput]) -> dict[str, Any]:
    meter = Meter()
    for output in outputs:
        meter.add(output.losses)
    means = {name: float(value) for name, value in meter.means().items()}
    return {
        "val_loss": means.pop("task"),
        **{f"val_{name}": value for name, value in means.items()},
    }


def scores(y: NDArray[np.float32], p: NDArray[np.float64]) -> Figures:
    """What epochs and runs are ranked by.

    Args:
        y: Targets of the validation stays, ``(N, C)``; NaN where unknown.
        p: Probabilities, ``(N, C)``.
    """
    return {"val_auroc": macro(auroc, y, p), "val_aupr": macro(average_precision, y, p)}


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


__all__ = ["Course", "make_optimizer", "require_fit", "scores", "trained"]
