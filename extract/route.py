"""What the runner asks of a kind of source: its cohort, and a plan for each modality."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from ..cache.cohort import Cohort
from ..errors import ConfigError
from .config import ExtractConfig
from .receipts import Looks
from .work import Plan

if TYPE_CHECKING:
    from .estimate import Estimate


_LABELS = ("readm_rule", "death_rule")
_OWN = ("stays", "dataset_name", "subject_is_stay")


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
        _refuse(config, (*_OWN, *_LABELS, "encoder"), "a tree has its stays, labels and series")
        from .tree import TreeRoute

        return TreeRoute(config)
    if config.own_data:
        _refuse(config, _LABELS, "the labels are those of --stays")
        from .own.route import OwnRoute

        return OwnRoute(config)
    _refuse(config, _OWN, "these are tables of MIMIC, which name stays and patients")
    from .mimic import MimicRoute

    return MimicRoute(config)


def _refuse(config: ExtractConfig, names: Sequence[str], why: str) -> None:
    """Refuse options that the kind of source would leave unread."""
    defaults = type(config).model_fields
    given = [name for name in names if getattr(config, name) != defaults[name].default]
    if given:
        option = f"--{given[0].replace('_', '-')}"
        raise ConfigError(f"{option} would change nothing here: {why}. Leave it out.")


__all__ = ["Route", "open_route"]
