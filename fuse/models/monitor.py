"""Signs that embeddings are about to collapse, or that the copula term is not to be trusted."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from torch import Tensor

from ..combinations import SIMILARITIES
from ..config import FuseConfig

_log = logging.getLogger("cm2.fuse")

KS_LIMIT = 0.1
SPREAD_LIMIT, RANK_LIMIT = 0.1, 1.5
"""Embeddings have root mean square 1, so a spread of 0.1 leaves 1 % of it to tell stays apart; a
rank of 1.5 is hardly more than one direction."""

FALL = 0.5
"""Share of its highest value below which a figure has fallen far enough to be said."""


class Monitor:
    """Look at every epoch's figures and say each remedy once.

    Args:
        config: Decides which remedy is named.
        names: Modalities.
    """

    def __init__(self, config: FuseConfig, names: Sequence[str]) -> None:
        self.config, self.names = config, names
        self._said: set[str] = set()

    def collapse(self, spread: Tensor, rank: Tensor, highest: Tensor) -> None:
        """Warn while there is still something to save.

        Args:
            spread: Of the embeddings, ``(M,)``.
            rank: Effective rank of the embeddings, ``(M,)``.
            highest: Highest spread and rank of any epoch so far, ``(2, M)``.
        """
        for m, name in enumerate(self.names):
            if spread[m] < max(SPREAD_LIMIT, FALL * float(highest[0, m])):
                self._say(
                    f"The embeddings of {name!r} are collapsing to a point: spread "
                    + _fallen(float(spread[m]), float(highest[0, m]))
                    + self._remedy()
                )
            if rank[m] < max(RANK_LIMIT, FALL * float(highest[1, m])):
                self._say(
                    f"The embeddings of {name!r} are collapsing to few directions: effective rank "
                    + _fallen(float(rank[m]), float(highest[1, m]))
                    + self._remedy()
                )

    def width(self, filled: Tensor, width: int) -> None:
        """Warn when a modality cannot fill the copula space.

        A linear encoder of few columns has no more directions than columns, and one for their
        length. Whitening makes noise of the others, by which its marginal is thrown about.

        Args:
            filled: Directions in which the coordinates differ, ``(M,)``.
            width: Coordinates of the copula space.
        """
        for name, n in zip(self.names, filled.tolist(), strict=True):
            if 0 < n < width:  # 0: nobody has it, which is said elsewhere
                self._say(
                    f"The embeddings of {name!r} fill {n} of the {width} directions of the copula "
                    "space: its marginal describes noise in the others, and its copula term is "
                    f"not to be trusted. Give --copula-dim {n} or less."
                )

    def margins(self, figures: Mapping[str, float]) -> None:
        """Warn when u is not uniform.

        Args:
            figures: `ks`, and `ks_bound` that chance alone explains.
        """
        if figures["ks"] > max(KS_LIMIT, figures["ks_bound"]):
            self._say(
                f"A margin is {figures['ks']:.2f} away from uniform, so the copula term is "
                "not to be trusted. Raise --K or lower --lr."
            )

    def _remedy(self) -> str:
        config = self.config
        if config.objective == "paper":
            return "Leave --objective out, or lower --lambda-cop."
        if config.align in SIMILARITIES:
            return "Lower --lambda-align or --lr."
        return "Lower --lambda-cop or --lr." if config.align == "copula" else "Lower --lr."

    def _say(self, text: str) -> None:
        remedy = text.rpartition(". ")[2]
        if remedy not in self._said:
            self._said.add(remedy)
            _log.warning(text)


def _fallen(now: float, highest: float) -> str:
    """A figure, and what it was before if it has fallen at all."""
    return f"{now:.2g}, at most {highest:.2g} before. " if now < highest else f"{now:.2g}. "
