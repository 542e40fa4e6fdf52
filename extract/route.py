"""What the runner asks of a kind of source: its cohort, and a plan for each modality."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ..cache.cohort import Cohort
from .config import ExtractConfig
from .receipts import Looks
from .work import Plan

if TYPE_CHECKING:
    from .estimate import Estimate


class Route(Protocol):
    """One kind of source, opened for one call; opening it checks its options, reads little."""

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities to extract, in order."""

    def cohort(self) -> Cohort:
        """Open the cohort, or build it if it is absent.

        Raises:
            ConfigError: A cohort of that name was built from something else.
            DataError: The tables are missing or damaged.
        """

    def plan(self, cohort: Cohort, modality: str) -> Plan:
        """Return the work of one modality."""

    def tables(self, modality: str | None = None) -> Looks:
        """Name, size and time of the tables behind the cohort or a modality; cheap."""

    def estimate(self, modality: str) -> Estimate:
        """Say how much work one modality is; problems are reported in it, not raised."""


def open_route(config: ExtractConfig) -> Route:
    """Return the route of a call: an existing tree, the user's own files, or a release of MIMIC.

    Raises:
        ConfigError: The options contradict each other.
        DataError: There is no source.
    """
    if config.from_tree is not None:
        from .tree import TreeRoute

        return TreeRoute(config)
    if config.own_data:
        from .own.route import OwnRoute

        return OwnRoute(config)
    from .mimic import MimicRoute

    return MimicRoute(config)


__all__ = ["Route", "open_route"]
