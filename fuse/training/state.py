"""The state of a run between two epochs, or on request between two steps: one file, one commit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from ...cache import checkpoint
from ...errors import ConfigError
from ..models.interface import FusionModel
from ..rundir import TRAINER, RunDir


@dataclass
class TrainerState:
    """Everything that the next epoch depends on.

    Attributes:
        model: The model.
        optimizer: Its optimiser.
        history: One mapping per epoch.
        best: Weights and buffers of the best epoch so far.
        partial: Of an epoch that is under way the steps done, sums of losses, and its validation
            if that came first; empty between epochs.
    """

    model: FusionModel
    optimizer: torch.optim.Optimizer
    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    partial: dict[str, Any] = field(default_factory=dict)

    def keep_best(self) -> None:
        """Remember the present weights and buffers as the best."""
        self.best = {name: t.detach().clone() for name, t in self.model.state_dict().items()}

    def save(self, folder: Path, identity: str) -> None:
        """Commit the state.

        Args:
            folder: Directory of the run.
            identity: The run's identity, so that no other run continues from it.
        """
        tensors = {f"model/{name}": t for name, t in self.model.state_dict().items()}
        tensors |= {f"best/{name}": t for name, t in self.best.items()}
        for index, entry in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{index}/{name}": value for name, value in entry.items()}
        meta = {"identity": identity, "history": self.history, "partial": self.partial}
        checkpoint.save(folder / TRAINER, tensors, meta)

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
        self.partial = meta.get("partial", {})
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in parts["optimizer"].items():
            index, _, entry = name.partition("/")
            state.setdefault(int(index), {})[entry] = tensor
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        return True


class Journal(Protocol):
    """Where the state is kept, so that a stopped training continues after what was kept last."""

    name: str

    def resume(self, state: TrainerState) -> bool:
        """Continue from the last whole epoch; whether there was one."""

    def commit(self, state: TrainerState) -> None:
        """Keep a whole epoch."""


class Commits:
    """A journal in the directory of a run: every epoch is one file.

    Args:
        run: The run.
        identity: Its identity, see `TrainerState.save`.
        held: Raises when this process no longer holds the run.
    """

    def __init__(self, run: RunDir, identity: str, held: Callable[[], None]) -> None:
        self.run, self.identity, self.held = run, identity, held
        self.name = f"the run {run.path}"

    def resume(self, state: TrainerState) -> bool:
        """Continue from the last whole epoch; see `TrainerState.load` for what it raises."""
        return state.load(self.run.path, self.identity)

    def commit(self, state: TrainerState) -> None:
        """Commit the state, then the history."""
        if not self.run.writes:
            return
        self.held()
        state.save(self.run.path, self.identity)
        self.run.write_history(state.history)


class InMemory:
    """A journal that keeps nothing: for a training without a directory."""

    name = "a training in memory"

    def resume(self, state: TrainerState) -> bool:
        """Start anew."""
        return False

    def commit(self, state: TrainerState) -> None:
        """Nothing to keep: the state lives as long as its process."""


__all__ = ["Commits", "InMemory", "Journal", "TrainerState"]
