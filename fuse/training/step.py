"""The rules of one step, for one run and for many side by side: what is clipped, counted, refused.

Members of an ensemble lie along a first axis E of every tensor; a single run has no such axis.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..config import FuseConfig
from ..models.interface import FusionBatch, FusionModel, FusionOutput, Objective, RowLoss

Gradients = Mapping[str, Tensor]
Floats = NDArray[np.float64]


class Meter:
    """Means of losses over the rows that contribute to them.

    Sums stay where the losses are computed until `means` asks for them.
    """

    def __init__(self) -> None:
        self._total: dict[str, Tensor] = {}
        self._rows: dict[str, Tensor] = {}

    @classmethod
    def of(cls, content: Mapping[str, Any], device: torch.device) -> Meter:
        """Continue from what `content` gave."""
        meter = cls()
        for name, (total, rows) in content.items():
            meter._total[name] = torch.tensor(total, dtype=torch.float64, device=device)
            meter._rows[name] = torch.tensor(rows, device=device)
        return meter

    def content(self) -> dict[str, list[float]]:
        """Sum and count of each loss of a single run, as JSON."""
        return {n: [float(t), int(self._rows[n])] for n, t in self._total.items()}

    def add(self, losses: Mapping[str, RowLoss]) -> None:
        """Count losses by row, ``(B,)`` or ``(E, B)``."""
        for name, loss in losses.items():
            value = torch.where(loss.rows, loss.value.detach().double(), 0.0)
            self._count(name, value.sum(-1), loss.rows.sum(-1))

    def add_loss(self, value: Tensor, rows: int) -> None:
        """Count what was minimised, ``()`` or ``(E,)``, once for each of `rows`."""
        self._count("loss", value.detach().double() * rows, torch.tensor(rows))

    def keep(self, members: Sequence[int]) -> None:
        """Forget all other members."""
        for sums in (self._total, self._rows):
            sums.update({name: t[list(members)] for name, t in sums.items() if t.dim()})

    def means(self) -> dict[str, Floats]:
        """Mean of each loss, ``()`` or ``(E,)``; 0 where no row contributed."""
        return {
            name: (total / self._rows[name].clamp(min=1).to(total.device)).cpu().numpy()
            for name, total in self._total.items()
        }

    def _count(self, name: str, total: Tensor, rows: Tensor) -> None:
        if name in self._total:
            total, rows = self._total[name] + total, self._rows[name] + rows
        self._total[name], self._rows[name] = total, rows


def moved(objective: Objective, names: Sequence[str]) -> list[str]:
    """Names of the parameters that an objective moves."""
    prefixes = objective.parameters
    return [name for name in names if prefixes is None or name.startswith(prefixes)]


def clip(gradients: Gradients, alone: Sequence[str], largest: float | Floats) -> Floats:
    """Clip the gradient of every group of parameters in place.

    Args:
        gradients: By name of the parameter.
        alone: Prefixes of groups that are clipped by themselves; the others are one group.
        largest: Largest norm, 0 for any; one number, or one for each member ``(E,)``.

    Returns:
        Sum of the groups' norms before, ``()`` or ``(E,)``; not finite if any gradient is not.
    """
    groups: dict[str, list[Tensor]] = defaultdict(list)
    for name, gradient in gradients.items():
        groups[next((prefix for prefix in alone if name.startswith(prefix)), "")].append(gradient)
    members = np.ndim(largest)
    norms = torch.stack([_norm(group, members) for group in groups.values()]).cpu().numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        over = (np.asarray(largest) > 0) & (norms > largest) & np.isfinite(norms)
        factors = np.where(over, largest / norms, 1.0)
    for group, factor in zip(groups.values(), factors, strict=True):
        if (factor != 1).any():
            for gradient in group:
                gradient.mul_(_along(factor, gradient) if members else float(factor))
    total: Floats = norms.sum(0)
    return total


def non_finite(
    model: FusionModel,
    batch: FusionBatch,
    output: FusionOutput,
    gradients: Gradients,
    where: str,
) -> str:
    """Say what is no longer finite in one run, and what to do about it.

    Args:
        model: The run's model.
        batch: The rows of the step.
        output: What the model said about them.
        gradients: By name of the parameter.
        where: Epoch and step, for the message.
    """
    config: FuseConfig = model.config
    guilty = [f"loss {n!r}" for n, loss in output.losses.items() if not loss.mean().isfinite()]
    for m, spec in enumerate(model.specs):
        if not output.z[batch.available[:, m], m].isfinite().all():
            guilty.append(f"embedding of {spec.name!r}")
    guilty += [f"gradient of {n!r}" for n, g in gradients.items() if not g.isfinite().all()]
    return diverged(config, where, ", ".join(guilty[:4]) or "the sum of the losses")


def diverged(config: FuseConfig, where: str, found: str) -> str:
    """Say that a run has diverged, and what to do about it.

    Args:
        config: The run's configuration.
        where: Epoch and step.
        found: What is no longer finite.
    """
    return (
        f"Training is no longer finite at {where}: {found}. Lower the learning rate (--lr, now "
        f"{config.lr:g}) or clip harder (--clip, now {config.clip:g}). The last whole epoch is "
        "kept in the run."
    )


def _norm(gradients: Sequence[Tensor], members: int) -> Tensor:
    """Norm of several tensors together, in double precision over the tensors."""
    norms = [
        torch.linalg.vector_norm(g, dim=tuple(range(members, g.dim())) or None) for g in gradients
    ]
    together: Tensor = torch.linalg.vector_norm(torch.stack([n.double() for n in norms]), dim=0)
    return together


def _along(factor: Floats, gradient: Tensor) -> Tensor:
    """One factor for each member, shaped to multiply a gradient ``(E, ...)``."""
    shape = (-1,) + (1,) * (gradient.dim() - 1)
    return torch.from_numpy(factor).to(gradient).reshape(shape)


__all__ = ["Meter", "clip", "diverged", "moved", "non_finite"]
