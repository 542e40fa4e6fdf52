"""Into which frame a picture is brought before an encoder sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image


SIDE = 256
"""Short side in pixels to which films are resized, as published."""


@dataclass(frozen=True)
class Frame:
    """How a decoded film becomes the picture that an encoder sees.

    Args:
        resize: Short side in pixels, or height and width.
        crop: Height and width of the centre that is cut out; None keeps everything.
        resample: Filter of the resizing, by Pillow's name in lower case.
    """

    resize: int | tuple[int, int] = SIDE
    crop: tuple[int, int] | None = (224, 224)
    resample: str = "bilinear"

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the result."""
        if self.crop is not None:
            return self.crop
        return (self.resize, self.resize) if isinstance(self.resize, int) else self.resize

    def resized(self, grey: Image.Image) -> Image.Image:
        """Resize with antialiasing."""
        from PIL.Image import Resampling

        width, height = grey.size
        if isinstance(self.resize, int):
            short = min(width, height)
            size = (self.resize * width // short, self.resize * height // short)
        else:
            size = (self.resize[1], self.resize[0])
        return grey.resize(size, Resampling[self.resample.upper()])

    def cut(self, grey: Image.Image) -> np.ndarray:
        """Cut out the centre, uint8 [H, W]; zeros where the picture is smaller."""
        pixels = np.asarray(grey)
        if self.crop is None:
            return pixels
        missing = [max(want - have, 0) for want, have in zip(self.crop, pixels.shape, strict=True)]
        if any(missing):
            pixels = np.pad(pixels, [(some // 2, some - some // 2) for some in missing])
        top, left = (
            round((have - want) / 2) for want, have in zip(self.crop, pixels.shape, strict=True)
        )
        return pixels[top : top + self.crop[0], left : left + self.crop[1]]


FRAME = Frame()
"""The published frame: short side 256, centre 224 x 224, bilinear."""

__all__ = ["FRAME", "SIDE", "Frame"]
