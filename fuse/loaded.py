"""A trained run as a plain module for programs of your own: `cm2.load_run`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import ConfigError, SchemaError, quoted
from .inference import load_model
from .models.interface import FusionBatch, FusionModel, Hyper, pattern_ids
from .random import stay_keys, uniforms
from .rundir import RunDir


class LoadedRun(nn.Module):
    """The best model of a run: arrays in, probabilities out.

    Attributes:
        model: The method, with its weights and buffers.
        modalities: Names of what it reads, in order.
        targets: Names of what it predicts.
    """

    def __init__(self, model: FusionModel, targets: tuple[str, ...]) -> None:
        super().__init__()
        self.model = model
        self.modalities = tuple(spec.name for spec in model.specs)
        self.targets = targets
        self.eval()

    def forward(
        self,
        x: Mapping[str, Any],
        mask: Mapping[str, Any] | None = None,
        available: Any = None,
        stay_id: Sequence[object] | Tensor | None = None,
        time: Mapping[str, Any] | None = None,
    ) -> Tensor:
        """Predict.

        Args:
            x: By modality ``[B, L, width]``, as `cm2.open_cache(C).dataset` gives them; a modality
                that is left out is absent everywhere.
            mask: By modality real steps or parts, ``[B, L]`` bool; all of them by default.
            available: ``[B, M]`` bool in the order of `modalities`; by default a stay has what has
                a real step.
            stay_id: Ids of the stays, which name their random draws; their positions by default.
            time: By modality, how much of the window before the prediction had passed,
                ``[B, L]``; by default steps are evenly spaced and parts stand at its end.

        Returns:
            Probabilities, ``[B, C]``; gradient reaches `x`.

        Everything is moved to the device of the module.

        Raises:
            ConfigError: An unknown modality, or a stay without any.
            SchemaError: An array of another shape.
        """
        device = next(chain(self.model.parameters(), self.model.buffers())).device
        named = {*x, *(mask or {}), *(time or {})}
        unknown = sorted(named - set(self.modalities))
        if unknown or not x:
            raise ConfigError(
                f"The run reads {', '.join(self.modalities)}; found {', '.join(unknown) or 'none'}."
            )
        values = {name: torch.as_tensor(part, device=device).float() for name, part in x.items()}
        B = len(next(iter(values.values())))
        masks: dict[str, Tensor] = {}
        for spec in self.model.specs:
            part = values.setdefault(spec.name, torch.zeros(B, 1, spec.width, device=device))
            if part.ndim != 3 or len(part) != B or part.shape[-1] != spec.width:
                raise SchemaError(
                    f"Modality {spec.name!r}: expected [{B}, steps or parts, {spec.width}], found "
                    f"{list(part.shape)}."
                )
            real = torch.full(part.shape[:2], spec.name in x, device=device)
            if mask is not None and spec.name in mask:
                real = torch.as_tensor(mask[spec.name], device=device).bool()
            if real.shape != part.shape[:2]:
                raise SchemaError(
                    f"Modality {spec.name!r}: expected a mask {list(part.shape[:2])}, found "
                    f"{list(real.shape)}."
                )
            masks[spec.name] = real
        there = torch.stack([masks[name].any(1) for name in self.modalities], 1)
        if available is not None:
            told = torch.as_tensor(available, device=device).bool()
            if told.shape != there.shape:
                raise SchemaError(
                    f"available: expected {list(there.shape)}, a column for each of "
                    f"{', '.join(self.modalities)}; found {list(told.shape)}."
                )
            there = there & told
        if not there.any(1).all():
            row = int((~there.any(1)).nonzero()[0])
            raise ConfigError(f"Stay {row} has none of {', '.join(self.modalities)}: leave it out.")
        config = self.model.config
        if isinstance(stay_id, Tensor):  # numbers that a DataLoader has put together
            stay_id = stay_id.tolist()
        keys = stay_keys(range(B) if stay_id is None else stay_id)
        if len(keys) != B:
            raise SchemaError(f"stay_id: expected {B} ids, one for each stay; found {len(keys)}.")
        batch = FusionBatch(
            x=values,
            mask=masks,
            available=there,
            pattern_id=pattern_ids(there),
            y=torch.full((B, len(self.targets)), np.nan, device=device),
            time={
                name: torch.as_tensor(part, device=device).float()
                for name, part in (time or {}).items()
            },
            noise={
                purpose: torch.from_numpy(uniforms(config.seed, purpose, keys, shape)).to(device)
                for purpose, shape in self.model.noise(training=False).items()
            },
        )
        logits = self.model(batch, Hyper.of(config)).logits
        probabilities: Tensor = logits.double().sigmoid()
        return probabilities


def load_run(path: str | Path) -> LoadedRun:
    """Load the best model of a finished run.

    Args:
        path: Directory of the run.

    Raises:
        DataError: No run is there.
        ConfigError: It is not finished, another version of cm2 wrote it, or it is streamed: its
            input is items, not arrays.
        IntegrityError: A file is not what was written.
    """
    run = RunDir.open(Path(path))
    if run.config.mode == "stream":
        raise ConfigError(
            f"{path} is a streamed run: it reads films or token ids, not arrays. `cm2 predict "
            f"{quoted(path)}` writes its probabilities; `cm2 extract … --weights "
            "MODALITY=RUN` makes vectors of its encoder, from which `cm2 fuse` trains a run for "
            "here."
        )
    model, targets, _ = load_model(run)
    return LoadedRun(model, targets)


__all__ = ["LoadedRun", "load_run"]
