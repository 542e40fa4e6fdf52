"""An empty input in place of an absent one, as published code feeds it to its encoders."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...errors import ConfigError
from .interface import FusionBatch, ModalitySpec


class Blanks(nn.Module):
    """What the encoders of stage one make of an empty input, for the stays that lack an item.

    A series is encoded in stage two, by a network that starts at zero and stays there without
    steps: it remains absent.

    Args:
        specs: The modalities.

    Raises:
        ConfigError: The empty input of a modality is not known.
    """

    stored: Tensor

    def __init__(self, specs: Sequence[ModalitySpec]) -> None:
        super().__init__()
        self.specs = tuple(specs)
        stored = torch.tensor([spec.view != "series" for spec in self.specs])
        self.register_buffer("stored", stored, persistent=False)
        for m, spec in enumerate(self.specs):
            if spec.view == "series":
                continue
            if spec.null is None:
                raise ConfigError(
                    f"What an encoder makes of an empty input is not known of {spec.name!r}: it is "
                    "stored beside vectors that cm2 encoded itself. Let zero, mean or learned "
                    "(skip with mmtm and daft) stand in for what is absent, not blank."
                )
            self.register_buffer(f"null_{m}", spec.null.clone())

    def forward(self, batch: FusionBatch) -> FusionBatch:
        """Let every stay have every modality that is no series.

        Args:
            batch: The stays.
        """
        x, mask, time = dict(batch.x), dict(batch.mask), dict(batch.time)
        for m, spec in enumerate(self.specs):
            if spec.view == "series":
                continue
            name, null = spec.name, getattr(self, f"null_{m}").to(x[spec.name])
            there = batch.available[:, m : m + 1]
            L = max(x[name].shape[1], len(null))
            parts = _padded(null, L)
            real = torch.arange(L, device=null.device) < len(null)
            x[name] = torch.where(there.unsqueeze(-1), _padded(x[name], L), parts)
            held = _padded(mask[name].unsqueeze(-1), L).squeeze(-1)
            mask[name] = torch.where(there, held, real)
            if name in time:  # an empty input is read at the prediction
                times = _padded(time[name].unsqueeze(-1), L).squeeze(-1)
                time[name] = torch.where(there, times, 1.0)
        filled = batch.available | self.stored
        return dataclasses.replace(batch, x=x, mask=mask, available=filled, time=time)


def _padded(parts: Tensor, length: int) -> Tensor:
    """Append parts of zeros, ``(…, L, width)`` to ``(…, length, width)``."""
    return nn.functional.pad(parts, (0, 0, 0, length - parts.shape[-2]))


__all__ = ["Blanks"]
