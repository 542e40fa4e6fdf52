"""A batch whose items are not encoded yet."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from ..models.interface import FusionBatch


@dataclass(frozen=True)
class RawBatch(FusionBatch):
    """Some stays with the items that are there, and no others.

    Attributes:
        raw: By streamed modality the items of the real parts, packed in the order of stays and
            parts, ``(n, ...)``; of several processes each has its own share of them.
        number: Epoch from 1 as a plain number; 0 outside training.
    """

    raw: dict[str, Tensor] = field(default_factory=dict)
    number: int = 0

    def encoded(self, x: dict[str, Tensor]) -> FusionBatch:
        """The same stays with vectors in place of items.

        Args:
            x: Values of every modality.
        """
        return FusionBatch(
            x=x,
            mask=self.mask,
            available=self.available,
            pattern_id=self.pattern_id,
            y=self.y,
            noise=self.noise,
            epoch=self.epoch,
            time=self.time,
        )


__all__ = ["RawBatch"]
