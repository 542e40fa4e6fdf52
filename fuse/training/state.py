"""The state of a run between two epochs: one file, one commit."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...cache import checkpoint
from ...errors import ConfigError
from ..models.interface import FusionModel
from ..rundir import TRAINER


@dataclass
class TrainerState:
    """Everything that the next epoch depends on.

    Attributes:
        model: The model.
        optimizer: Its optimiser.
        history: One mapping per epoch.
        best: Weights and buffers of the best epoch so far.
    """

    model: FusionModel
    optimizer: torch.optim.Optimizer
    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)

    def keep_best(self) -> None:
        """Remember the present weights and buffers as the best."""
        self.best = {name: t.detach().clone() for name, t in self.model.state_dict().items()}

    def save(self, folder: Path, identity: str) -> None:
        """Commit the state of a whole epoch.

        Args:
            folder: Directory of the run.
            identity: The run's identity, so that no other run continues from it.
        """
        tensors = {f"model/{name}": t for name, t in self.model.state_dict().items()}
        tensors |= {f"best/{name}": t for name, t in self.best.items()}
        for index, entry in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{index}/{name}": value for name, value in entry.items()}
        checkpoint.save(folder / TRAINER, tensors, {"identity": identity, "history": self.history})

    def load(self, folder: Path, identity: str) -> bool:
        """Continue from the last whole epoch.

        Returns:
            Whether there was one.

        Raises:
            ConfigError: It belongs to another run.
            IntegrityError: It is not what was written.
        """
        path = folder / TRAINER
        if not path.is_file():
            return False
        tensors, meta = checkpoint.load(
            path, "Remove it: the run then starts at its first epoch and ends the same."
        )
        if meta["identity"] != identity:
            raise ConfigError(f"{path} belongs to another run. Remove it, or train elsewhere.")
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "optimizer": {}}
        for name, tensor in tensors.items():
            part, _, rest = name.partition("/")
            parts[part][rest] = tensor
        self.model.load_state_dict(parts["model"])
        self.best = parts["best"]
        self.history = meta["history"]
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in parts["optimizer"].items():
            index, _, entry = name.partition("/")
            state.setdefault(int(index), {})[entry] = tensor
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        return True
