"""Modalities withheld from some stays on purpose: how well does a method bear what lacks?

Nothing here imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .random import Keys


@dataclass(frozen=True)
class Drop:
    """One withheld modality.

    Attributes:
        name: The modality.
        share: Part of the stays that lose it, in (0, 1].
        by: `random`, or `severity`: those at little risk lose it rather.
    """

    name: str
    share: float
    by: Literal["random", "severity"]

    @classmethod
    def parse(cls, text: str) -> Drop:
        """Read NAME=SHARE or NAME=SHARE:severity.

        Raises:
            ValueError: Anything else.
        """
        name, _, rest = text.partition("=")
        share, colon, by = rest.partition(":")
        try:
            value = float(share)
        except ValueError:
            value = -1.0
        if not name or not 0 < value <= 1 or (colon and by not in ("random", "severity")):
            raise ValueError(
                f"expected NAME=SHARE with a share above 0 and at most 1, such as cxr=0.5 or "
                f"cxr=0.5:severity, found {text!r}"
            )
        return cls(name, value, "severity" if by == "severity" else "random")

    def chosen(
        self, keys: Keys, risk: NDArray[np.float64] | None = None, stream: str = "drop"
    ) -> NDArray[np.bool_]:
        """Choose who loses the modality; a larger share takes the same stays and more.

        At random each stay is judged by its own random number alone. By severity its rank in
        risk, from 0 to 1, is added, so that presence tells of severity without being settled by
        it.

        Args:
            keys: Keys of the stays that could lose it, ``(N,)``.
            risk: Their risk, ``(N,)``; needed by severity.
            stream: Name of the random numbers: stays that training left with the modality have
                large ones under its own name, and none of them would lose it again.

        Returns:
            ``(N,)``.
        """
        import numpy as np

        from .random import uniforms

        place = uniforms(0, f"{stream}.{self.name}", keys)
        if self.by == "random":
            return place < self.share
        assert risk is not None
        rank = np.argsort(np.argsort(risk, kind="stable"), kind="stable")
        place = place + rank / max(len(rank) - 1, 1)
        lost = np.zeros(len(place), dtype=bool)
        lost[np.argsort(place, kind="stable")[: round(self.share * len(place))]] = True
        return lost


__all__ = ["Drop"]
