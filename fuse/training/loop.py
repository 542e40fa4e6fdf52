"""The one training loop: whole epochs, each committed by one file, whatever the method."""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...errors import ConfigError
from ...extract.encoders.weights import Weights
from ...progress import Progress, Stop
from ..config import FuseConfig
from ..data import FusionData
from ..evaluation.metrics import auroc, average_precision, macro
from ..inference import build, forward, precision, probabilities
from ..models.interface import FusionBatch, FusionModel, FusionOutput, Hyper, RowLoss
from ..random import order
from .history import best_epoch, ended, learning_rate
from .state import Journal, TrainerState

_log = logging.getLogger("cm2.fuse")


def train(
    config: FuseConfig,
    data: FusionData,
    journal: Journal,
    progress: Progress,
    stop: Stop,
    starts: Mapping[str, Weights] | None = None,
) -> TrainerState:
    """Train until the last epoch or until patience is exhausted, from the last whole epoch on.

    Args:
        config: What to train.
        data: The rows.
        journal: Where every whole epoch is kept.
        progress: Counts epochs.
        stop: Asked after every epoch.
        starts: Weights in files from which the encoders of a new run start, by modality.

    Raises:
        ConfigError: A loss or gradient is not finite.
        Interrupted: A stop was requested; the same call continues.
    """
    model = build(data.specs, config, len(data.targets)).to(data.device)
    state = TrainerState(model, make_optimizer(model, config))
    rows = data.rows("train")
    if not journal.resume(state):
        if starts:
            model.begin(starts)
        seen = [rows]
        if config.published.validation_in_normaliser:
            seen.append(data.rows("val"))
        model.start(data.batches(np.concatenate(seen)))
        if config.class_weight == "balanced":
            model.weigh(data.labels(rows).to(data.device))
    with progress(f"fuse {config.model}", config.epochs, "epochs") as advance:
        advance(len(state.history))
        while not ended(state.history, config):
            epoch = len(state.history) + 1
            rate = learning_rate(state.history, config)
            judged = _judge(state, data, epoch) if config.published.validate_first else {}
            losses = _train_epoch(state, data, epoch, rate)
            figures = model.refresh(epoch, data.batches(rows))
            judged = judged or _judge(state, data, epoch)
            row = {"epoch": epoch, "lr": rate, **losses, **judged, **figures}
            state.history.append({name: _finite(value) for name, value in row.items()})
            journal.commit(state)
            advance(1)
            stop.check(f"epoch {epoch} of {journal.name} is stored")
    return state


def make_optimizer(model: FusionModel, config: FuseConfig) -> torch.optim.Optimizer:
    """Make the optimiser of a configuration; its learning rates are set before each epoch."""
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
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
        # `share` is the group's part of the rate that the schedule gives.
        groups.append(
            {
                "params": [p for name, p in named if name.startswith(prefix)],
                "share": rate / config.lr,
                "weight_decay": 0.0 if prefix in model.dependence else config.weight_decay,
            }
        )
    groups = [group for group in groups if group["params"]]
    return kind(groups, lr=config.lr, betas=(0.9, config.beta2), fused=True)


@contextmanager
def reproducible(deterministic: bool) -> Iterator[None]:
    """Use one thread, so that sums are added up in one order; restore what was set before.

    Args:
        deterministic: Also refuse operations that have no deterministic algorithm.
    """
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(deterministic or strict)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(strict)


def _train_epoch(
    state: TrainerState, data: FusionData, epoch: int, rate: float
) -> dict[str, float]:
    model, optimizer = state.model, state.optimizer
    config = model.config
    hyper = Hyper.of(config, epoch)
    for group in optimizer.param_groups:
        group["lr"] = rate * group["share"]
    rows = data.rows("train")
    rows = rows[order(config.seed, "order", data.keys[rows], epoch)]
    meter = _Meter()
    noise = model.noise(training=True)
    steps = -(-len(rows) // config.batch_size)
    batches = data.batches(rows, config.batch_size, noise, config.seed, epoch)
    for step, batch in enumerate(batches, 1):
        where = f"epoch {epoch}, step {step} of {steps}"
        total = 0.0
        for objective in model.objectives(hyper):
            optimizer.zero_grad(set_to_none=True)
            with precision(config, data.device):
                output: FusionOutput = model(batch, hyper)
            loss = objective.total(output.losses)
            loss.backward()  # type: ignore[no-untyped-call]
            model.combine_gradients()
            _keep_only(model, objective.parameters)
            norm = _clip(model, config.clip)
            if not math.isfinite(float(loss.detach()) + norm):
                raise ConfigError(_non_finite(model, batch, output, where, config))
            optimizer.step()
            model.track(batch, output)
            total += float(loss.detach())
            meter.add(output.losses)
        meter.add_loss(total, len(batch.y))
    return {f"train_{name}": value for name, value in meter.means().items()}


def _judge(state: TrainerState, data: FusionData, epoch: int) -> dict[str, float | None]:
    """Validate the model as it is, and keep it if no epoch was better."""
    judged = _validate(state.model, data)
    row = {"epoch": epoch} | {name: _finite(value) for name, value in judged.items()}
    if best_epoch([*state.history, row], state.model.config.warmup) == epoch:
        state.keep_best()
    return judged


def _validate(model: FusionModel, data: FusionData) -> dict[str, float | None]:
    rows = data.rows("val")
    outputs = forward(model, data, rows)
    meter = _Meter()
    for output in outputs:
        meter.add(output.losses)
    means = meter.means()
    y = data.labels(rows).numpy()
    p = probabilities(outputs)
    return {
        "val_loss": means.pop("task"),
        **{f"val_{name}": value for name, value in means.items()},
        "val_auroc": macro(auroc, y, p),
        "val_aupr": macro(average_precision, y, p),
    }


class _Meter:
    """Means of losses over the rows that contribute to them."""

    def __init__(self) -> None:
        self._total: dict[str, float] = defaultdict(float)
        self._rows: dict[str, int] = defaultdict(int)

    def add(self, losses: dict[str, RowLoss]) -> None:
        for name, loss in losses.items():
            value = torch.where(loss.rows, loss.value.detach().double(), 0.0)
            self._total[name] += float(value.sum())
            self._rows[name] += int(loss.rows.sum())

    def add_loss(self, value: float, rows: int) -> None:
        self._total["loss"] += value * rows
        self._rows["loss"] += rows

    def means(self) -> dict[str, float]:
        return {name: total / max(self._rows[name], 1) for name, total in self._total.items()}


def _keep_only(model: nn.Module, prefixes: tuple[str, ...] | None) -> None:
    if prefixes is not None:
        for name, parameter in model.named_parameters():
            if not name.startswith(prefixes):
                parameter.grad = None


def _gradients(model: nn.Module) -> list[tuple[str, Tensor]]:
    return [(n, p.grad) for n, p in model.named_parameters() if p.grad is not None]


def _clip(model: FusionModel, largest: float) -> float:
    """Clip the gradient of every group of parameters, and return the sum of the norms before."""
    groups: dict[str, list[Tensor]] = defaultdict(list)
    for name, gradient in _gradients(model):
        group = next((prefix for prefix in model.learns_alone if name.startswith(prefix)), "")
        groups[group].append(gradient)
    norms = []
    for gradients in groups.values():
        norm = float(torch.stack([g.norm().double() for g in gradients]).norm())
        norms.append(norm)
        if 0 < largest < norm < math.inf:
            for gradient in gradients:
                gradient.mul_(largest / norm)
    return math.fsum(norms)


def _non_finite(
    model: nn.Module, batch: FusionBatch, output: FusionOutput, where: str, config: FuseConfig
) -> str:
    guilty = [f"loss {n!r}" for n, loss in output.losses.items() if not loss.mean().isfinite()]
    for m, spec in enumerate(getattr(model, "specs", ())):
        if not output.z[batch.available[:, m], m].isfinite().all():
            guilty.append(f"embedding of {spec.name!r}")
    guilty += [f"gradient of {name!r}" for name, g in _gradients(model) if not g.isfinite().all()]
    found = ", ".join(guilty[:4]) or "the sum of the losses"
    return (
        f"Training is no longer finite at {where}: {found}. Lower the learning rate (--lr, now "
        f"{config.lr:g}) or clip harder (--clip, now {config.clip:g}). The last whole epoch is "
        "kept in the run."
    )


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
